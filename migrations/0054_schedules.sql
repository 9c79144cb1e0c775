-- Schedules: runs that begin by the clock.
--
-- `schedule` and `schedule_due` are a read model of their own. No release before has written its events, so it begins at the head of
-- the log.
--
-- A deployment with a role of its own for the application (see 0001) adds
--   GRANT SELECT, INSERT, UPDATE, DELETE ON schedule, schedule_due TO tidelog_app;

CREATE TABLE schedule (
    schedule_id uuid PRIMARY KEY,
    tenant_id   uuid NOT NULL,
    name        text NOT NULL,
    project_id  uuid NOT NULL,
    status      text NOT NULL,              -- active, paused, finished
    next_at     timestamptz,                -- the first time about which nothing is decided
    waiting_at  timestamptz,                -- a time that waits for the end of a run
    jitter_s    int NOT NULL,
    version     int NOT NULL,               -- of the stream
    definition  text NOT NULL,
    document    text NOT NULL,              -- what happened
    UNIQUE (tenant_id, name)
) WITH (fillfactor = 70);
CREATE INDEX schedule_status ON schedule (tenant_id, status, name);
CREATE INDEX schedule_project ON schedule (tenant_id, project_id, name);
CREATE INDEX schedule_project_status ON schedule (tenant_id, project_id, status, name);
COMMENT ON TABLE schedule IS 'Schedules that were not removed';

-- Who fires a schedule takes its row away. The row of its next time comes with the events.
CREATE TABLE schedule_due (
    schedule_id   uuid PRIMARY KEY,
    tenant_id     uuid NOT NULL,
    starts_at     timestamptz,              -- null: no time is left, but one waits
    waits         boolean NOT NULL,         -- for the end of a run
    version       int NOT NULL,             -- of the schedule's stream
    put_off_until timestamptz               -- not of the log: nothing came of it, and it is tried again then
) WITH (fillfactor = 50);
CREATE INDEX schedule_due_time ON schedule_due (GREATEST(starts_at, put_off_until));
CREATE INDEX schedule_due_waiting ON schedule_due (schedule_id) WHERE waits;
COMMENT ON TABLE schedule_due IS 'Schedules by the time at which they are due';
INSERT INTO checkpoint (name, position) SELECT 'schedules', position FROM log_head WHERE position > 0;
