-- Versions of read models: what is being built beside the live tables or compared with them, and what was kept of the version before.

-- A build has no row in `checkpoint`: what stands there is to be at the head of the log, and a build is on its way.
CREATE TABLE projection_build (
    projection   text NOT NULL,
    purpose      text NOT NULL CHECK (purpose IN ('version', 'check')),
    kind         text NOT NULL CHECK (kind IN ('rebuild', 'rollback', 'verify')),
    status       text NOT NULL CHECK (
        status IN ('requested', 'building', 'comparing', 'ready', 'swapped', 'equal', 'different', 'cancelled', 'failed')
    ),
    swap         boolean NOT NULL DEFAULT false,
    position     bigint NOT NULL DEFAULT 0,
    epoch        bigint NOT NULL DEFAULT 0,
    first        bigint NOT NULL DEFAULT 0,
    target       bigint NOT NULL DEFAULT 0,
    events       bigint NOT NULL DEFAULT 0,
    rows         bigint NOT NULL DEFAULT 0,
    rate         double precision,
    requested_at timestamptz NOT NULL DEFAULT now(),
    started_at   timestamptz,
    updated_at   timestamptz NOT NULL DEFAULT now(),
    finished_at  timestamptz,
    error        text,
    difference   text,
    PRIMARY KEY (projection, purpose)
);
COMMENT ON TABLE projection_build IS 'The last job of each read model: a version being built, or a check of the live one against the log';
COMMENT ON COLUMN projection_build.position IS 'Its checkpoint: written in the transaction of its rows';
COMMENT ON COLUMN projection_build.epoch IS 'Counts who works on it and who changed its course; an earlier one''s transaction is refused';
COMMENT ON COLUMN projection_build.first IS 'The position it began from';
COMMENT ON COLUMN projection_build.rate IS 'Events per second, lately';
COMMENT ON COLUMN projection_build.difference IS 'projections.verify.Difference as JSON: the first row of the live tables that is not what the log says';

CREATE TABLE projection_previous (
    projection  text PRIMARY KEY,
    position    bigint NOT NULL,
    replaced_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE projection_previous IS 'The version that was live before the last swap: in the schema previous_<projection>, as of this position';

CREATE TABLE projection_installation (
    projection   text PRIMARY KEY,
    ddl_sha256   text NOT NULL,
    installed_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE projection_installation IS 'Read models of plug-ins whose tables were made, and by which statements';
