-- Breakers of tools, and the fallback tool that a call went on with.
--
-- The new columns are null in the rows of before: no call fell back. `breaker` is a read model of its own. No release before has
-- written its events, so it begins at the head of the log.
--
-- A deployment with a role of its own for the application (see 0001) adds
--   GRANT SELECT, INSERT, UPDATE, DELETE ON breaker, breaker_count TO tidelog_app;

ALTER TABLE invocation ADD COLUMN fallback text;
COMMENT ON COLUMN invocation.fallback IS 'The tool that is called instead of the one that was asked for';
ALTER TABLE run_call ADD COLUMN fallback text;

CREATE TABLE breaker (
    tenant_id  uuid NOT NULL,
    tool       text NOT NULL,
    breaker_id uuid NOT NULL UNIQUE,
    state      text NOT NULL,              -- what callers obey: closed, open, half_open
    changes    int NOT NULL,               -- version of the stream
    document   text NOT NULL,              -- the newest events that say why
    PRIMARY KEY (tenant_id, tool)
);
CREATE INDEX breaker_state ON breaker (tenant_id, state, tool);
COMMENT ON TABLE breaker IS 'Breakers of tools that have ever changed';
INSERT INTO checkpoint (name, position) SELECT 'breakers', position FROM log_head WHERE position > 0;

-- Not a read model: what follows from the counts is an event, and the counts themselves may be lost with the last moments before a
-- crash. Each process adds to a row at most every 50 ms, so there is room for the next version of the row on its page.
CREATE TABLE breaker_count (
    tenant_id  uuid NOT NULL,
    breaker_id uuid NOT NULL,
    changes    int NOT NULL,               -- counted since this change of the breaker
    turn       bigint NOT NULL,            -- the window: how many of its length have begun since 1970
    calls      int NOT NULL,               -- of the window
    failures   int NOT NULL,               -- of these
    in_a_row   int NOT NULL,               -- failures since the last success, of any window
    changed_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, breaker_id)
) WITH (fillfactor = 50);
COMMENT ON TABLE breaker_count IS 'Outcomes of calls of tools that have a breaker, since the newest change of the breaker';
