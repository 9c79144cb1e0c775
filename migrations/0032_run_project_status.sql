-- Runs of a project are listed by status without a look at other runs. Before, such a list walked over all runs of the project, or over
-- all runs of the status: 100,000 failed runs of other projects took longer than a page may take.
--
-- While the indexes are built, some two seconds for a million runs, the read model of runs waits. The log takes events meanwhile, and
-- all reads go on.

CREATE INDEX run_project_status_time ON run (tenant_id, project_id, status, created_at, run_id);
CREATE INDEX run_project_degraded_time ON run (tenant_id, project_id, created_at, run_id) WHERE degraded;
