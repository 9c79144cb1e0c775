-- Folded states of long streams, so that loading one reads few events. Derived data: correct without it, and it may be emptied at
-- any time (TRUNCATE snapshot). A role of its own for the application needs SELECT, INSERT, UPDATE and DELETE here.

CREATE TABLE snapshot (
    stream_id uuid NOT NULL,
    version bigint NOT NULL,      -- of the last event that the state is built from
    position bigint NOT NULL,     -- of the same event
    tenant_id uuid NOT NULL,
    slice text NOT NULL,          -- whose rules made the state
    model text NOT NULL,          -- digest of these rules and of the state's form: another release reads on from the events instead
    state bytea NOT NULL,         -- the state as JSON
    taken_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (stream_id, version)
);
