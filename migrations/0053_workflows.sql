-- Workflows: plans under a name, with a draft, and what each published version says.
--
-- A deployment with a role of its own for the application (see 0001) adds
--   GRANT SELECT, INSERT, UPDATE, DELETE ON workflow, workflow_version TO tidelog_app;

CREATE TABLE workflow (
    tenant_id      uuid NOT NULL,
    name           text COLLATE "C" NOT NULL,
    workflow_id    uuid NOT NULL,
    stream_version int NOT NULL,
    version        int,                      -- the current one; null: only a draft so far
    definition     text,                     -- of the current version, as JSON
    published_at   timestamptz,
    draft          text,                     -- its definition, as JSON
    drafted_at     timestamptz,
    drafted_by     text,
    description    text NOT NULL,            -- of the current version, or else of the draft
    command        text,                     -- likewise, as JSON
    deprecated     text,                     -- the whole workflow: since when and why, as JSON
    PRIMARY KEY (tenant_id, name)
);
CREATE INDEX workflow_deprecated ON workflow (tenant_id, name) WHERE deprecated IS NOT NULL;
CREATE INDEX workflow_in_use ON workflow (tenant_id, name) WHERE deprecated IS NULL;
COMMENT ON TABLE workflow IS 'Workflows by name: the current version and the draft';

CREATE TABLE workflow_version (
    tenant_id     uuid NOT NULL,
    workflow_id   uuid NOT NULL,
    version       int NOT NULL,
    name          text NOT NULL,
    definition    text NOT NULL,
    note          text,
    reverted_from int,
    published_at  timestamptz NOT NULL,
    published_by  text,
    deprecated    text,                      -- this version: since when and why, as JSON
    PRIMARY KEY (tenant_id, workflow_id, version)
);
COMMENT ON TABLE workflow_version IS 'What each version of a workflow says';
