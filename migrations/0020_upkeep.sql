-- What the server tidies up by itself, and how that went. One row for each chore, of its last run.
--
-- A deployment with a role of its own for the application (see 0001) adds
--   GRANT DELETE ON command, idempotency_key TO tidelog_app;
--   GRANT INSERT, UPDATE ON upkeep TO tidelog_app;

CREATE TABLE upkeep (
    name text NOT NULL PRIMARY KEY,
    every_seconds double precision NOT NULL,
    ended_at timestamptz NOT NULL,
    succeeded_at timestamptz,         -- null: no run has succeeded yet
    seconds double precision NOT NULL,
    removed bigint NOT NULL,          -- rows that the last run removed
    removed_in_all bigint NOT NULL,
    error text                        -- why the last run failed
);

-- A month of rows goes in small portions, day by day: they should be vacuumed before a fifth of the table is dead.
ALTER TABLE command SET (autovacuum_vacuum_scale_factor = 0.05);
