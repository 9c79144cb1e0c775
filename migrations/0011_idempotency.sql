-- Answers kept for repeats of a request with the same Idempotency-Key (api/http/idempotency.py).

CREATE TABLE idempotency_key (
    key_id      uuid PRIMARY KEY,
    tenant_id   uuid NOT NULL,
    body_sha256 text NOT NULL,
    token       uuid NOT NULL,
    begun_at    timestamptz NOT NULL DEFAULT now(),
    released    boolean NOT NULL DEFAULT false,
    status      int,
    answer      bytea,
    headers     text
);
COMMENT ON COLUMN idempotency_key.token IS 'Command id of the request, the same for each repeat; in the order of time, as ids made from it must be';
COMMENT ON COLUMN idempotency_key.released IS 'The request failed with an unknown outcome: a repeat may be executed at once, as the same command';
CREATE INDEX idempotency_key_begun ON idempotency_key (begun_at);
