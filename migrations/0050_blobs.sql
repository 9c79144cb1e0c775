-- Blobs: contents of up to 64 MiB, which are too large for an event, by the SHA-256 of their bytes, for each tenant by itself.
--
-- A content is a number of chunks. It becomes a blob when all of them are there and the hash is right. What an upload left behind
-- that did not come to its end is removed by the upkeep.
--
-- A deployment with a role of its own for the application (see 0001) adds
--   GRANT SELECT, INSERT, UPDATE, DELETE ON blob, blob_chunk, blob_upload, blob_usage, blob_reference TO tidelog_app;

CREATE TABLE blob (
    tenant_id   uuid NOT NULL,
    sha256      bytea NOT NULL CHECK (octet_length(sha256) = 32),
    number      bigint GENERATED ALWAYS AS IDENTITY,   -- the order of making, for lists
    content_id  uuid NOT NULL,
    size        bigint NOT NULL CHECK (size >= 0),
    chunk_bytes integer NOT NULL CHECK (chunk_bytes > 0),   -- of each chunk but the last
    type        text NOT NULL,
    made_at     timestamptz NOT NULL,
    made_by     text NOT NULL,
    PRIMARY KEY (tenant_id, sha256)
);
CREATE INDEX blob_newest ON blob (tenant_id, number);
COMMENT ON TABLE blob IS 'Contents that are too large for events, by the hash of their bytes';

CREATE TABLE blob_chunk (
    tenant_id  uuid NOT NULL,
    content_id uuid NOT NULL,
    number     integer NOT NULL CHECK (number >= 0),
    data       bytea NOT NULL,
    PRIMARY KEY (tenant_id, content_id, number)
);
-- Not compressed: most large files are, and a part of a chunk is read without the rest.
ALTER TABLE blob_chunk ALTER COLUMN data SET STORAGE EXTERNAL;
COMMENT ON TABLE blob_chunk IS 'The bytes of blobs, and of uploads under way';

CREATE TABLE blob_upload (
    tenant_id  uuid NOT NULL,
    content_id uuid NOT NULL,
    reserved   bigint NOT NULL,        -- of the bytes that the tenant may have
    began_at   timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, content_id)
);
CREATE INDEX blob_upload_age ON blob_upload (began_at);
COMMENT ON TABLE blob_upload IS 'Uploads under way, and those that ended in the middle';

CREATE TABLE blob_usage (
    tenant_id uuid PRIMARY KEY,
    blobs     bigint NOT NULL,
    bytes     bigint NOT NULL,
    reserved  bigint NOT NULL          -- for uploads under way
) WITH (fillfactor = 70);
COMMENT ON TABLE blob_usage IS 'How many bytes of blobs each tenant has';

-- Written before the append of an event that refers to a blob. So what the log refers to has a row here; a row may also stand
-- for an append that failed.
CREATE TABLE blob_reference (
    tenant_id uuid NOT NULL,
    sha256    bytea NOT NULL,
    root_id   uuid NOT NULL,           -- of the events: a run, as a rule
    noted_at  timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, sha256, root_id)
);
COMMENT ON TABLE blob_reference IS 'Which roots have events that refer to a blob';
