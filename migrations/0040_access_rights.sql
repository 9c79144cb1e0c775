-- The roles of the database, and what the rights were when they were given: decision 0083, adapters/postgres/rights.py.
--
-- No row: the backstop is off. Then every connection works with the rights of its login.
CREATE TABLE access_rights (
    singleton   boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (singleton),
    owner       text NOT NULL,          -- owns the log, and migrates
    log         text NOT NULL,          -- owns the functions that append
    app         text NOT NULL,          -- appends by those functions, owns the read models, reads for every tenant
    reader      text NOT NULL,          -- reads for one tenant at a time
    fingerprint text NOT NULL,          -- of owners, grants and policies
    applied_at  timestamptz NOT NULL DEFAULT now()
);
GRANT SELECT ON access_rights TO PUBLIC;  -- whoever connects looks whether there is a role for it
COMMENT ON TABLE access_rights IS 'The roles whose rights are in force; empty: there are none';

-- The tenant whose rows the role `reader` sees. Null: none.
CREATE FUNCTION reading_tenant() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE
RETURN nullif(current_setting('tidelog.tenant', true), '')::uuid;
COMMENT ON FUNCTION reading_tenant IS 'The tenant that a reading connection is for; null: none';
