-- What runs are found by: an entry for each agent of a run, for who started it and on whose behalf, for each value of its metadata, and
-- for each word of its errors. Entries of one term stand in the order of lists, so a page of the runs of an agent is as short a walk as
-- a page of all runs, also for a term that no run has, and for one of long ago. Rows are written once and never changed, so the row
-- of the run gets no further index, and its updates stay on their pages.
--
-- A read model of its own: after the upgrade it reads the log from the beginning, beside the others, and so knows all earlier runs.
--
-- A deployment with a role of its own for the application (see 0001) adds
--   GRANT SELECT, INSERT, UPDATE, DELETE ON run_term TO tidelog_app;

CREATE TABLE run_term (
    term       bigint NOT NULL,               -- 64 bits of a hash of tenant, kind, name and value: see projections/run_terms.py
    created_at timestamptz NOT NULL,          -- of the run
    run_id     uuid NOT NULL,
    PRIMARY KEY (term, created_at, run_id)
);
COMMENT ON TABLE run_term IS 'Agents, starters, metadata and words of errors, and the runs that have them; written once';
