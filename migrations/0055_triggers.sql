-- Triggers, and the secrets of their webhooks.
--
-- `trigger` is a read model. No release before has written its events, so it begins at the head of the log.
--
-- `hook_secret` is none: what proves where a delivery comes from is neither in an event nor in a log. Only the role of the server
-- reads it; a delivery names its hook before anybody knows of which tenant it is.
--
-- A deployment with a role of its own for the application (see 0001) adds
--   GRANT SELECT, INSERT, UPDATE, DELETE ON trigger, hook_secret TO tidelog_app;

CREATE TABLE trigger (
    tenant_id  uuid NOT NULL,
    name       text NOT NULL,
    trigger_id uuid NOT NULL UNIQUE,
    project_id uuid NOT NULL,
    status     text NOT NULL,              -- active, paused
    first      bigint NOT NULL,            -- position of the event that created it
    since      bigint NOT NULL,            -- position of the event that made it as it is
    version    int NOT NULL,               -- of its stream
    fired      bigint NOT NULL,
    misfired   bigint NOT NULL,
    limited    bigint NOT NULL,            -- over its limit, so nothing was started
    created_at timestamptz NOT NULL,
    changed_at timestamptz NOT NULL,
    fired_at   timestamptz,
    document   text NOT NULL,              -- what it is about, what it starts, and why it is paused
    last_error text,
    bounds     uuid[],                     -- the only projects whose events it sees; null: it sees those of the whole tenant
    PRIMARY KEY (tenant_id, name)
) WITH (fillfactor = 80);
CREATE INDEX trigger_status ON trigger (tenant_id, status, name);
CREATE INDEX trigger_of_project ON trigger (tenant_id, project_id, status, name) WHERE bounds IS NOT NULL;
COMMENT ON TABLE trigger IS 'What starts when something happens';
INSERT INTO checkpoint (name, position) SELECT 'triggers', position FROM log_head WHERE position > 0;

CREATE TABLE hook_secret (
    hook_id   uuid NOT NULL,
    number    int NOT NULL,                -- 1, 2, … : each rotation makes one
    tenant_id uuid NOT NULL,
    name      text NOT NULL,               -- of the trigger
    scheme    text NOT NULL,               -- how it is used
    secret    bytea NOT NULL,              -- of the scheme `token`: its SHA-256
    made_at   timestamptz NOT NULL DEFAULT now(),
    ends_at   timestamptz,                 -- null: no rotation has given it an end
    PRIMARY KEY (hook_id, number)
);
COMMENT ON TABLE hook_secret IS 'What proves that a delivery comes from where it says';
