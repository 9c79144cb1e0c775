-- What is going on: runs, agent runs and tool calls that have not ended, and sums of all of them by agent and by tool. Metrics,
-- health and `tidelog doctor` read the sums, so the cost of a look does not depend on the length of the log.

CREATE TABLE activity (
    id        uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    kind      text NOT NULL,          -- run, agent, tool
    label     text NOT NULL,          -- name of the agent or tool in activity_total
    began_at  timestamptz NOT NULL,
    state     text NOT NULL,          -- waiting (for a worker), running, retrying (waits for its next attempt), ambiguous
    since     timestamptz NOT NULL
);
CREATE INDEX activity_state ON activity (state, kind, label, since);
COMMENT ON TABLE activity IS 'Runs, agent runs and tool calls that have not ended';

CREATE TABLE activity_total (
    kind             text NOT NULL,
    label            text NOT NULL,
    started          bigint NOT NULL,
    completed        bigint NOT NULL,
    degraded         bigint NOT NULL,
    failed           bigint NOT NULL,
    cancelled        bigint NOT NULL,
    retries          bigint NOT NULL,
    became_ambiguous bigint NOT NULL,
    waiting          bigint NOT NULL,
    running          bigint NOT NULL,
    retrying         bigint NOT NULL,
    ambiguous        bigint NOT NULL,
    microseconds     bigint NOT NULL,
    durations        bigint[] NOT NULL,
    PRIMARY KEY (kind, label)
) WITH (fillfactor = 50);
COMMENT ON TABLE activity_total IS 'Sums over all runs, by agent and by tool; a bounded number of rows';
COMMENT ON COLUMN activity_total.durations IS 'How many took at most as long as each bound in projections/activity.py, and longer';

-- Files of workers that cannot be used. Workers report them again and again, so nothing here needs to survive a crash.
CREATE UNLOGGED TABLE worker_problem (
    tenant_id   uuid NOT NULL,
    worker_id   text NOT NULL,
    problems    text NOT NULL,        -- JSON
    count       int NOT NULL,
    reported_at timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, worker_id)
);
COMMENT ON TABLE worker_problem IS 'Files with agents and tools that a worker cannot use; the newest report of each worker, until it expires';
