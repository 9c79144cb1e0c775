-- Tools say more of themselves, can be deprecated and removed, and each of their versions can be read.
--
-- The new columns are null in the rows of before: nothing of the kind was said. `tool_version` is a read model of its own: after the
-- upgrade it reads the log from the beginning, beside the others, and so knows the versions of before.
--
-- A deployment with a role of its own for the application (see 0001) adds
--   GRANT SELECT, INSERT, UPDATE, DELETE ON tool_version TO tidelog_app;

ALTER TABLE tool ADD COLUMN more text, ADD COLUMN deprecated text, ADD COLUMN stream_version int;
COMMENT ON COLUMN tool.more IS 'Later fields of the declaration, as JSON; null: their defaults';
COMMENT ON COLUMN tool.deprecated IS 'Since when, by what the tool is replaced, and a note, as JSON';
COMMENT ON COLUMN tool.stream_version IS 'Version of the stream at the newest change after the registration; null: the revision';

CREATE TABLE tool_version (
    tenant_id          uuid NOT NULL,
    tool_id            uuid NOT NULL,
    version            text NOT NULL,
    revision           int NOT NULL,          -- of the newest registration of this version
    declaration        text NOT NULL,
    registered_at      timestamptz NOT NULL,
    last_registered_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, tool_id, version)
);
CREATE INDEX tool_version_newest ON tool_version (tenant_id, tool_id, revision);
COMMENT ON TABLE tool_version IS 'What each version of a tool declares';
