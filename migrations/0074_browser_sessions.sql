-- Browsers that are signed in, and links that sign a browser in once.
--
-- Of a token its SHA-256 is stored alone: it has 256 random bits, so the hash tells nothing. No release before knows these tables.
--
-- A deployment with a role of its own for the application (see 0001) adds
--   GRANT SELECT, INSERT, DELETE ON browser_session, sign_in_link TO tidelog_app;

CREATE TABLE browser_session (
    token_sha256 text PRIMARY KEY,
    session_id   uuid NOT NULL UNIQUE,
    tenant_id    uuid NOT NULL,
    key_id       uuid NOT NULL,
    key_sha256   text NOT NULL,             -- the session ends with this key
    made_at      timestamptz NOT NULL DEFAULT now(),
    ends_at      timestamptz NOT NULL
);
CREATE INDEX browser_session_key ON browser_session (key_id, made_at);
CREATE INDEX browser_session_end ON browser_session (ends_at);
COMMENT ON TABLE browser_session IS 'Browsers that are signed in by a key';

CREATE TABLE sign_in_link (
    token_sha256 text PRIMARY KEY,
    tenant_id    uuid NOT NULL,
    key_id       uuid NOT NULL,
    key_sha256   text NOT NULL,
    made_at      timestamptz NOT NULL DEFAULT now(),
    ends_at      timestamptz NOT NULL
);
CREATE INDEX sign_in_link_key ON sign_in_link (key_id, made_at);
CREATE INDEX sign_in_link_end ON sign_in_link (ends_at);
COMMENT ON TABLE sign_in_link IS 'Links that were not used yet, each of which signs a browser in once';
