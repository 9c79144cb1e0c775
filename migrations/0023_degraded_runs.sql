-- Runs that were completed without some of their steps can be listed. The document of a run has the mark as well; the column is there
-- for the index.

ALTER TABLE run ADD COLUMN degraded boolean NOT NULL DEFAULT false;

-- A document begins with these fields (RunView), so no value of a user can stand before them.
UPDATE run SET degraded = true
WHERE status = 'completed' AND position('"status":"completed","degraded":true'::bytea IN substring(view FROM 1 FOR 200)) > 0;

CREATE INDEX run_degraded_time ON run (tenant_id, created_at, run_id) WHERE degraded;
COMMENT ON COLUMN run.degraded IS 'Completed, though some steps failed (RunView.missing)';
