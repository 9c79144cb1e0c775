-- Runs are listed newest first by the time of their start. Before, they were listed by their ids, which clients may make: a run whose
-- id is of the far future stayed on top for ever. The new indexes take the place of the old ones, so that a run costs as many as before;
-- a process of the release before still lists runs, by a sort.

CREATE INDEX run_tenant_time ON run (tenant_id, created_at, run_id);
CREATE INDEX run_status_time ON run (tenant_id, status, created_at, run_id);
CREATE INDEX run_project_time ON run (tenant_id, project_id, created_at, run_id);
DROP INDEX run_tenant;
DROP INDEX run_tenant_status;
DROP INDEX run_tenant_project;
