-- Approvals: what waits for people, and what they said.
--
-- `approval` is a read model of its own. No release before has written its events, so it begins at the head of the log.
--
-- A deployment with a role of its own for the application (see 0001) adds
--   GRANT SELECT, INSERT, UPDATE, DELETE ON approval TO tidelog_app;

CREATE TABLE approval (
    approval_id uuid PRIMARY KEY,
    tenant_id   uuid NOT NULL,
    position    bigint NOT NULL,            -- of the event that asked
    run_id      uuid NOT NULL,
    project_id  uuid,                       -- null: the call belongs to no run
    tool        text NOT NULL,
    status      text NOT NULL,              -- open, approved, denied, withdrawn
    roles       text NOT NULL,              -- who may decide, sorted
    deciders    text[] NOT NULL,            -- whose approval counts already
    version     int NOT NULL,               -- of the stream
    document    text NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX approval_time ON approval (tenant_id, position);
CREATE INDEX approval_status ON approval (tenant_id, status, position);
CREATE INDEX approval_run ON approval (tenant_id, run_id, position);
CREATE INDEX approval_tool ON approval (tenant_id, tool, position);
CREATE INDEX approval_tool_status ON approval (tenant_id, tool, status, position);
CREATE INDEX approval_project ON approval (tenant_id, project_id, position);
CREATE INDEX approval_project_status ON approval (tenant_id, project_id, status, position);
CREATE INDEX approval_open ON approval (tenant_id, roles, position) WHERE status = 'open';
COMMENT ON TABLE approval IS 'Approvals, open and settled';
INSERT INTO checkpoint (name, position) SELECT 'approvals', position FROM log_head WHERE position > 0;
