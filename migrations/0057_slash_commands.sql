-- The workflows that slash commands start, in the order of their names: the list of them looks at no other workflow.

CREATE INDEX workflow_commands ON workflow (tenant_id, name)
    WHERE command IS NOT NULL AND version IS NOT NULL AND deprecated IS NULL;
