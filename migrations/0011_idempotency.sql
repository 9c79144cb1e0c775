-- Answers kept for repeats of a request with the same Idempotency-Key (api/http/idempotency.py).

CREATE TABLE idempotency_key (
    key_id      uuid PRIMARY KEY,
    tenant_id   uuid NOT NULL,
    body_sha256 text NOT NULL,
    begun_at    timestamptz NOT NULL DEFAULT now(),
    status      int,
    answer      bytea,
    headers     text
);
CREATE INDEX idempotency_key_begun ON idempotency_key (begun_at);
