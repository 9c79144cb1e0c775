-- How often what had failed in a run was tried again (empty: never), and when the run must have ended (empty: whenever).
ALTER TABLE run ADD COLUMN retries integer, ADD COLUMN deadline_at timestamptz;

-- Whether a tenant has a run whose status of then may differ from that of now, though it had ended. Few runs are in it.
CREATE INDEX run_retried_idx ON run (tenant_id) WHERE retries IS NOT NULL;
