-- Approvals of a tool, for keys that are narrowed to projects.
CREATE INDEX approval_project_tool ON approval (tenant_id, project_id, tool, position);
