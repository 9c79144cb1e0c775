-- Read models: derived from the log, rebuilt from it. Each table belongs to one projection of the same name.

CREATE TABLE checkpoint (
    name       text PRIMARY KEY,
    position   bigint NOT NULL DEFAULT 0,
    epoch      bigint NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE checkpoint IS 'How far each consumer of the log has come; written in the transaction of its rows';

CREATE TABLE parked_event (
    consumer  text NOT NULL,
    position  bigint NOT NULL,
    root_id   uuid NOT NULL,
    tenant_id uuid NOT NULL,
    topic     text NOT NULL,
    error     text NOT NULL,
    parked_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, position)
);
CREATE INDEX parked_event_root ON parked_event (consumer, root_id);
COMMENT ON TABLE parked_event IS 'Events that a consumer could not handle, and later ones of the same root, which wait behind them';

CREATE TABLE api_key (
    key_id     uuid PRIMARY KEY,
    tenant_id  uuid NOT NULL,
    sha256     text NOT NULL UNIQUE,
    label      text NOT NULL,
    issued_at  timestamptz NOT NULL,
    revoked_at timestamptz
);

CREATE TABLE tenant (
    tenant_id  uuid PRIMARY KEY,
    name       text NOT NULL,
    created_at timestamptz NOT NULL
);

CREATE TABLE project (
    project_id uuid PRIMARY KEY,
    tenant_id  uuid NOT NULL,
    name       text NOT NULL,
    metadata   text NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX project_tenant ON project (tenant_id, project_id);

CREATE TABLE agent (
    agent_id      uuid PRIMARY KEY,
    tenant_id     uuid NOT NULL,
    name          text NOT NULL,
    version       text NOT NULL,
    revision      int NOT NULL,
    description   text NOT NULL,
    capabilities  text[] NOT NULL,
    input_schema  text NOT NULL,
    output_schema text NOT NULL,
    registered_at timestamptz NOT NULL
);
CREATE INDEX agent_tenant ON agent (tenant_id, name);

CREATE TABLE tool (
    tool_id       uuid PRIMARY KEY,
    tenant_id     uuid NOT NULL,
    name          text NOT NULL,
    version       text NOT NULL,
    revision      int NOT NULL,
    description   text NOT NULL,
    capabilities  text[] NOT NULL,
    parameters    text NOT NULL,
    idempotent    boolean NOT NULL,
    timeout_s     double precision NOT NULL,
    max_attempts  int NOT NULL,
    registered_at timestamptz NOT NULL
);
CREATE INDEX tool_tenant ON tool (tenant_id, name);

CREATE TABLE run (
    run_id     uuid PRIMARY KEY,
    tenant_id  uuid NOT NULL,
    project_id uuid NOT NULL,
    status     text NOT NULL,
    position   bigint NOT NULL,
    created_at timestamptz NOT NULL,
    view       bytea NOT NULL
);
CREATE INDEX run_tenant ON run (tenant_id, run_id);
CREATE INDEX run_tenant_status ON run (tenant_id, status, run_id);
CREATE INDEX run_tenant_project ON run (tenant_id, project_id, run_id);
COMMENT ON COLUMN run.view IS 'RunView (projections/runs.py) as JSON: the fold of all events of the run';

CREATE TABLE message (
    message_id   uuid PRIMARY KEY,
    tenant_id    uuid NOT NULL,
    run_id       uuid NOT NULL,
    sender       text NOT NULL,
    recipient    text NOT NULL,
    body         text NOT NULL,
    position     bigint NOT NULL,
    sent_at      timestamptz NOT NULL,
    delivered_at timestamptz,
    received_at  timestamptz,
    refused      text
);
CREATE INDEX message_run ON message (tenant_id, run_id, position);

CREATE TABLE timer (
    timer_id       uuid PRIMARY KEY,
    tenant_id      uuid NOT NULL,
    root_id        uuid NOT NULL,
    stream_id      uuid NOT NULL,
    due_at         timestamptz NOT NULL,
    command        text NOT NULL,
    payload        text NOT NULL,
    correlation_id uuid NOT NULL,
    cause          text NOT NULL
);
CREATE INDEX timer_due ON timer (due_at);
CREATE INDEX timer_stream ON timer (stream_id);

CREATE TABLE open_work (
    work_id       uuid PRIMARY KEY,
    tenant_id     uuid NOT NULL,
    root_id       uuid NOT NULL,
    kind          text NOT NULL,
    pool          text NOT NULL,
    dispatch      int NOT NULL,
    dispatched_at timestamptz NOT NULL
);
COMMENT ON TABLE open_work IS 'What the work queue must hold: agent runs and invocations that are to be picked up or are being worked on';
