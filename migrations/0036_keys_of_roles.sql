-- API keys have a role, may expire, can be rotated, and are revoked for a reason. The keys of before are keys of owners.
--
-- The time of the last use is no part of the log, so it has a table of its own that no rebuild touches. Roles of the database:
--   GRANT SELECT, INSERT, UPDATE ON api_key_use TO tidelog_app;
ALTER TABLE api_key
    ADD COLUMN role text NOT NULL DEFAULT 'owner',
    ADD COLUMN expires_at timestamptz,
    ADD COLUMN rotated_to uuid,
    ADD COLUMN revoke_reason text;
CREATE INDEX api_key_tenant ON api_key (tenant_id, key_id);

CREATE TABLE api_key_use (
    key_id    uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    used_at   timestamptz NOT NULL
) WITH (fillfactor = 70);
COMMENT ON TABLE api_key_use IS 'When each API key was last used; written at most once a minute by each process';
