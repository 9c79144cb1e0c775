-- The lines that agents and tools log while they work: partitions of a day each, dropped as a whole.
--
-- A deployment with a role of its own for the application (see 0001) adds
--   GRANT INSERT ON work_log TO tidelog_app;
--   GRANT INSERT, UPDATE ON work_log_tally TO tidelog_app;
--   GRANT EXECUTE ON FUNCTION keep_work_logs TO tidelog_app;

CREATE TABLE work_log (
    tenant_id     uuid NOT NULL,
    run_id        uuid NOT NULL,
    line          integer NOT NULL,        -- counts within the run, from 1, in the order of recording
    received_at   timestamptz NOT NULL,    -- by the clock of the database: decides the partition
    written_at    timestamptz NOT NULL,    -- by the clock of the worker
    step          text NOT NULL,
    agent         text NOT NULL,
    tool          text,                    -- with invocation_id: the line is of a call of the agent
    invocation_id uuid,
    attempt       bigint NOT NULL,
    level         smallint NOT NULL,       -- 10 debug, 20 info, 30 warning, 40 error, 50 critical
    text          text NOT NULL CHECK (octet_length(text) <= 16384)
) PARTITION BY RANGE (received_at);
CREATE INDEX work_log_run ON work_log (run_id, line);
COMMENT ON TABLE work_log IS 'The lines that agents and tools log while they work';

-- One row for each run with lines: its numbers make the bound of a run exact, whichever process records the lines.
CREATE TABLE work_log_tally (
    tenant_id  uuid NOT NULL,
    run_id     uuid NOT NULL,
    lines      integer NOT NULL,           -- that were recorded
    added      integer NOT NULL,           -- by the last write
    beyond     bigint NOT NULL,            -- lines beyond the bound of the run
    lost       bigint NOT NULL,            -- lines that a worker or a process of the server had no room for
    changed_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, run_id)
) WITH (fillfactor = 70);
COMMENT ON TABLE work_log_tally IS 'How many lines each run has, and how many were dropped';

-- Makes the partitions of today and of the days ahead, and drops those that are older than the days kept. Returns about how many
-- lines were dropped. With the rights of its owner: the application need not be able to make tables.
CREATE FUNCTION keep_work_logs(ahead integer, kept integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '3s' AS $$
DECLARE
    today date := (now() AT TIME ZONE 'UTC')::date;
    day   date;
    part  text;
    found record;
    gone  bigint := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('keep_work_logs'));
    FOR i IN 0 .. ahead LOOP
        day := today + i;
        part := 'work_log_' || to_char(day, 'YYYYMMDD');
        IF to_regclass(part) IS NULL THEN
            -- A table that is made apart and attached does not lock out those who read and write the other days.
            EXECUTE format('CREATE TABLE %I (LIKE work_log INCLUDING CONSTRAINTS)', part);
            EXECUTE format(
                'ALTER TABLE work_log ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                part, day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC'
            );
        END IF;
    END LOOP;
    FOR found IN
        SELECT c.oid::regclass AS name, greatest(c.reltuples, 0)::bigint AS lines
        FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'work_log'::regclass AND c.relname ~ '^work_log_[0-9]{8}$'
          AND to_date(right(c.relname, 8), 'YYYYMMDD') < today - kept
        ORDER BY c.relname
    LOOP
        EXECUTE format('DROP TABLE %s', found.name);
        gone := gone + found.lines;
    END LOOP;
    DELETE FROM work_log_tally WHERE changed_at < (today - kept)::timestamp AT TIME ZONE 'UTC';
    RETURN gone;
END
$$;
REVOKE ALL ON FUNCTION keep_work_logs FROM PUBLIC;

SELECT keep_work_logs(7, 30);
