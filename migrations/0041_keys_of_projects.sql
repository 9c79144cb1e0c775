-- A key can be narrowed to projects of its tenant. NULL: the key is for the whole tenant, as every key was before.
ALTER TABLE api_key ADD COLUMN projects uuid[];
