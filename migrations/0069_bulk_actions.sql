-- Bulk actions: one command for all runs that a filter finds, with its progress.
--
-- `bulk_action` is a read model of its own. No release before has written its events, so it begins at the head of the log.
--
-- A deployment with a role of its own for the application (see 0001) adds
--   GRANT SELECT, INSERT, UPDATE, DELETE ON bulk_action TO tidelog_app;

CREATE TABLE bulk_action (
    bulk_action_id uuid PRIMARY KEY,
    tenant_id      uuid NOT NULL,
    position       bigint NOT NULL,         -- of its start
    status         text NOT NULL,           -- selecting, acting, completed, cancelled, failed
    verb           text NOT NULL,
    within         uuid[],                  -- sorted; null: runs of the whole tenant
    version        int NOT NULL,            -- of the stream
    document       text NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX bulk_action_time ON bulk_action (tenant_id, position);
CREATE INDEX bulk_action_status ON bulk_action (tenant_id, status, position);
CREATE INDEX bulk_action_project ON bulk_action (tenant_id, (within[1]), position) WHERE within IS NOT NULL;
CREATE INDEX bulk_action_open ON bulk_action (position) WHERE status IN ('selecting', 'acting');
COMMENT ON TABLE bulk_action IS 'Bulk actions, and how far each has come';
INSERT INTO checkpoint (name, position) SELECT 'bulk_actions', position FROM log_head WHERE position > 0;
