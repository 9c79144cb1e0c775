-- Runs in rows and columns: a header, a row for each step whose work was requested, a row for each tool call. So an event changes one
-- or two small rows, however long the run is. What may be large (plan, input, results, errors) stays in the log alone; the rows hold
-- the positions of the events that have it.
--
-- A process of the release before writes runs as documents, in the column `view`. So does this release as long as such a process is
-- among the members. A run that began as a document stays one; `tidelog projections rebuild runs` makes rows of all runs.
--
-- A deployment with a role of its own for the application (see 0001) adds
--   GRANT SELECT, INSERT, UPDATE, DELETE ON run_step, run_call TO tidelog_app;

ALTER TABLE run
    ALTER COLUMN view DROP NOT NULL,
    ADD COLUMN updated_at     timestamptz,
    ADD COLUMN finished_at    timestamptz,
    ADD COLUMN start_position bigint,         -- of run.started: plan, input, metadata
    ADD COLUMN end_position   bigint,         -- of run.failed or run.cancelled: error, reason
    ADD COLUMN version        integer,
    ADD COLUMN event_count    integer,
    ADD COLUMN message_count  integer,
    ADD COLUMN call_count     integer,
    ADD COLUMN priority       text,
    ADD COLUMN agents         text,           -- names, with blanks between them; null: the run is a document of 0.1.0
    ADD COLUMN missing        text;           -- keys of steps, with blanks between them; null: none
COMMENT ON COLUMN run.view IS 'Null: the run is in rows. Else RunView as JSON, the fold of all events of the run';

CREATE TABLE run_step (
    run_id          uuid NOT NULL,
    agent_run_id    uuid NOT NULL,
    tenant_id       uuid NOT NULL,
    scheduled_at    timestamptz,              -- null: the step failed before its work was requested
    started_at      timestamptz,
    finished_at     timestamptz,
    result_position bigint,                   -- of run.step_completed
    error_position  bigint,                   -- of agent_run.retry_scheduled or run.step_failed, the last of them
    unused_position bigint,                   -- of agent_run.completed, if it names unused keys
    attempt         integer NOT NULL,
    recorded_steps  integer NOT NULL,
    call_count      integer NOT NULL,
    status          text NOT NULL,
    step            text NOT NULL,
    worker_id       text,
    PRIMARY KEY (run_id, agent_run_id)
) WITH (fillfactor = 80);
COMMENT ON TABLE run_step IS 'The steps of runs. A step of the plan without a row waits for steps before it, or was called off';

CREATE TABLE run_call (
    run_id              uuid NOT NULL,
    invocation_id       uuid NOT NULL,
    tenant_id           uuid NOT NULL,
    agent_run_id        uuid NOT NULL,
    position            bigint NOT NULL,      -- of agent_run.call_started: the order of calls
    started_at          timestamptz NOT NULL,
    finished_at         timestamptz,
    error_position      bigint,               -- of the invocation's event with the error
    resolution_position bigint,               -- of invocation.resolved
    attempts            integer NOT NULL,
    cancel_requested    boolean NOT NULL,
    status              text NOT NULL,
    key                 text NOT NULL,
    tool                text NOT NULL,
    worker_id           text,
    effect              text,
    PRIMARY KEY (run_id, invocation_id)
) WITH (fillfactor = 80);
CREATE INDEX run_call_position ON run_call (run_id, position);
COMMENT ON TABLE run_call IS 'The tool calls of runs, as a run shows them';
