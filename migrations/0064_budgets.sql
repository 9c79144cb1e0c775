-- Usage: what calls have used, by day and by run.
--
-- A read model of its own. No release before has written the fields that it counts, so it begins at the head of the log. An empty
-- name or the zero id stands for what nobody said: rows are found by their key.
--
-- A deployment with a role of its own for the application (see 0001) adds
--   GRANT SELECT, INSERT, UPDATE, DELETE ON usage_day, usage_run TO tidelog_app;

CREATE TABLE usage_day (
    tenant_id  uuid NOT NULL,
    day        date NOT NULL,               -- of the outcome, in UTC
    project_id uuid NOT NULL,
    agent      text NOT NULL,
    tool       text NOT NULL,
    calls      bigint NOT NULL,
    money      bigint NOT NULL,             -- in millionths of the tenant's unit
    tokens     bigint NOT NULL,
    PRIMARY KEY (tenant_id, day, project_id, agent, tool)
) WITH (fillfactor = 70);
COMMENT ON TABLE usage_day IS 'What calls have used, by the day of their outcome';

CREATE TABLE usage_run (
    tenant_id  uuid NOT NULL,
    run_id     uuid NOT NULL,
    project_id uuid NOT NULL,
    agent      text NOT NULL,
    tool       text NOT NULL,
    calls      bigint NOT NULL,
    money      bigint NOT NULL,
    tokens     bigint NOT NULL,
    PRIMARY KEY (tenant_id, run_id, agent, tool)
) WITH (fillfactor = 70);
COMMENT ON TABLE usage_run IS 'What the calls of each run have used';
INSERT INTO checkpoint (name, position) SELECT 'usage', position FROM log_head WHERE position > 0;
