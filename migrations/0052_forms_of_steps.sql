-- What people see of steps that are more than one execution of an agent: the values that a decision saw, items of a map, times of a
-- loop, child runs, fallbacks; and what a run is of: its parent, its workflow, what started it.
--
-- Only runs of such plans use the new columns and the new table. A process of the release before starts no such run, and no such run
-- is started while a process of that release is among the members. So nothing of before changes, and nothing is to be built anew.
--
-- A deployment with a role of its own for the application (see 0001) adds
--   GRANT SELECT, INSERT, UPDATE, DELETE ON run_part TO tidelog_app;

ALTER TABLE run
    ADD COLUMN has_parts boolean,              -- whether steps have parts, fallbacks or conditions; null: they have not
    ADD COLUMN parent_id uuid,                 -- the run whose step started the run
    ADD COLUMN workflow  text,                 -- name@version
    ADD COLUMN origin    text;                 -- kind:name, such as schedule:nightly
COMMENT ON COLUMN run.end_position IS 'Of run.failed, run.cancelled, or of run.completed with a result of its own';

ALTER TABLE run_step ADD COLUMN form text;
COMMENT ON COLUMN run_step.form IS 'JSON: why the step ran or not, counts of its parts, its fallbacks: see StepForm; null: nothing to say';

ALTER TABLE run_call
    ADD COLUMN step text,                      -- null: the step of the agent run
    ADD COLUMN part integer;                   -- null: the agent run is no part

CREATE TABLE run_part (
    run_id             uuid NOT NULL,
    step               text NOT NULL,
    number             integer NOT NULL,       -- 0, 1, 2 …; -1: the step itself, since it fell back to another agent
    tenant_id          uuid NOT NULL,
    execution_id       uuid NOT NULL,          -- the agent run or the child run
    is_run             boolean NOT NULL,
    agent              text,                   -- null: a child run
    agent_version      text,
    status             text NOT NULL,
    attempt            integer NOT NULL,
    fallback           integer NOT NULL,       -- place among the fallbacks; 0: the agent of the plan
    worker_id          text,
    scheduled_at       timestamptz NOT NULL,
    started_at         timestamptz,
    finished_at        timestamptz,
    scheduled_position bigint NOT NULL,        -- of run.part_scheduled: the input
    result_position    bigint,                 -- of run.part_completed
    error_position     bigint,                 -- of agent_run.retry_scheduled, run.step_fell_back or run.part_failed, the last of them
    PRIMARY KEY (run_id, step, number)
) WITH (fillfactor = 80);
CREATE INDEX run_part_execution ON run_part (run_id, execution_id);
COMMENT ON TABLE run_part IS 'The executions of steps that have several, and child runs';
