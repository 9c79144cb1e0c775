-- Sessions of workers: the lease of a worker's work is its session, which is renewed for all its work at once.
--
-- A deployment with a role of its own for the application (see 0001) adds
--   GRANT INSERT, UPDATE, DELETE ON worker_session, session_host TO tidelog_app;
--   GRANT SELECT ON installation_secret TO tidelog_app;

-- Renewed every 3 seconds, by updates that touch no index. Commits need not wait for the disk: a claim, which does wait, is committed
-- after its session and takes the session's row to the disk with it.
CREATE TABLE worker_session (
    session_id  uuid PRIMARY KEY,
    tenant_id   uuid NOT NULL,
    worker_id   text NOT NULL,
    actor       text NOT NULL,             -- the key that opened it
    incarnation uuid NOT NULL,             -- one start of the worker's process
    release     text NOT NULL,
    secret_hash bytea NOT NULL,
    member_id   uuid NOT NULL,             -- the api process that has the worker's connection, or had it last
    since       timestamptz NOT NULL,
    seen_at     timestamptz NOT NULL,
    ended_at    timestamptz,               -- null: the session goes on
    end_reason  text                       -- left, lost
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);
COMMENT ON TABLE worker_session IS 'Sessions of workers; the lease of all work that a worker has';

-- Api processes that take sessions. Without any, no session can be renewed, and no time counts against a session.
CREATE UNLOGGED TABLE session_host (
    member_id uuid PRIMARY KEY,
    ready_at  timestamptz NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);
COMMENT ON TABLE session_host IS 'Api processes that take sessions of workers, and when each said so last';

-- Which session has a piece of work. Work of before has none: its lease is the queue's.
ALTER TABLE open_work ADD COLUMN session_id uuid, ADD COLUMN attempt int;
CREATE INDEX open_work_session ON open_work (session_id) WHERE session_id IS NOT NULL;
COMMENT ON COLUMN open_work.session_id IS 'The session that claimed the work. Null: nobody has, or a worker without a session';

-- What lease tokens are made with. It never leaves the database and the api processes.
CREATE TABLE installation_secret (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    secret  bytea NOT NULL
);
INSERT INTO installation_secret (secret)
SELECT sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
