-- Tool calls as people look for them: which of them wait for somebody, and which belong to a run. Arguments and results stay in the
-- log: a single call is the fold of its own events.

CREATE TABLE invocation (
    tenant_id        uuid NOT NULL,
    invocation_id    uuid NOT NULL,
    run_id           uuid NOT NULL,
    agent_run_id     uuid NOT NULL,
    key              text NOT NULL,
    tool             text NOT NULL,
    status           text NOT NULL,
    since            timestamptz NOT NULL,
    attempt          int NOT NULL,
    cancel_requested boolean NOT NULL,
    PRIMARY KEY (tenant_id, invocation_id)
);
CREATE INDEX invocation_status ON invocation (tenant_id, status, invocation_id);
CREATE INDEX invocation_run ON invocation (tenant_id, run_id, invocation_id);
