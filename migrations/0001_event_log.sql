-- The event log: one append-only table in one total order, and the only function that may write it.
--
-- Positions are contiguous and visible in commit order, because every append takes the row lock of log_head before it takes a
-- position, and Postgres makes a transaction visible before it releases its locks. A reader may therefore use
-- `notification_id > x` as a complete cursor. This holds only while append_events_v1 is the one way in. A deployment that wants
-- the database to enforce that gives the application a role without UPDATE, DELETE and TRUNCATE on event:
--   CREATE ROLE tidelog_app LOGIN;
--   GRANT SELECT ON ALL TABLES IN SCHEMA public TO tidelog_app;
--   GRANT INSERT ON event, command TO tidelog_app;
--   GRANT UPDATE ON log_head TO tidelog_app;
--   GRANT INSERT, UPDATE ON tracking TO tidelog_app;

CREATE TABLE event (
    notification_id bigint NOT NULL PRIMARY KEY,  -- the position: 1, 2, 3 ... without a gap
    originator_version bigint NOT NULL,           -- place in its stream: 1, 2, 3 ... without a gap
    recorded_at timestamptz NOT NULL,             -- never decreases from one position to the next
    originator_id uuid NOT NULL,                  -- the stream
    tenant_id uuid NOT NULL,
    root_id uuid NOT NULL,                        -- the run for everything inside a run, else the stream itself
    schema_version smallint NOT NULL DEFAULT 1,
    topic text NOT NULL,
    metadata text NOT NULL,                       -- JSON; text, because jsonb is slower to store and nothing here looks inside
    state bytea NOT NULL,                         -- the canonical JSON, byte for byte as it was hashed
    CONSTRAINT event_stream_key UNIQUE (originator_id, originator_version)
);

CREATE INDEX event_root_idx ON event (root_id, notification_id);
CREATE INDEX event_tenant_idx ON event (tenant_id, notification_id);

-- Which commands were recorded, and what they were answered.
CREATE TABLE command (
    tenant_id uuid NOT NULL,
    command_id uuid NOT NULL,
    last_position bigint NOT NULL,
    recorded_at timestamptz NOT NULL,
    event_count integer NOT NULL,
    PRIMARY KEY (tenant_id, command_id)
);

-- The newest position. One row, updated by every append: room on its page lets each update stay on it (HOT).
CREATE TABLE log_head (
    singleton boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (singleton),
    position bigint NOT NULL,
    recorded_at timestamptz NOT NULL
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

INSERT INTO log_head (position, recorded_at) VALUES (0, '-infinity');

-- Positions of consumers that use the `eventsourcing` library; its layout, and its mark for "one row per application".
CREATE TABLE tracking (
    application_name text NOT NULL PRIMARY KEY,
    notification_id bigint NOT NULL
) WITH (fillfactor = 50);

INSERT INTO tracking (application_name, notification_id) VALUES ('__migration__', 1);

-- For people with psql. A state that is not JSON (an encrypted one of the library, say) is shown in base64.
CREATE FUNCTION readable_state(state bytea) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN convert_from(state, 'UTF8')::jsonb;
EXCEPTION WHEN data_exception THEN
    RETURN to_jsonb(encode(state, 'base64'));
END
$$;

CREATE VIEW event_readable AS
SELECT notification_id AS position, tenant_id, originator_id AS stream_id, originator_version AS version, root_id, topic,
       schema_version, readable_state(state) AS state, metadata::jsonb AS metadata, recorded_at
FROM event;

-- Appends many requests in one transaction; one that is refused leaves its neighbours alone.
--
-- Arguments, in three levels; numbers are 1-based places in the level above:
--   per request  tenant_ids, command_ids (the dedupe key), metadatas
--   per stream   stream_requests (its request), stream_ids, stream_roots, stream_expected (the version that it must have now;
--                0 or less: it must not exist), stream_counts (how many events follow for it)
--   per event    topics, schema_versions, states, in the order of the streams
--
-- Answers: one row with request 0 when everything was accepted (positions follow in the order of the requests, up to
-- last_position); otherwise one row per request, in no particular order, with outcome
--   accepted   last_position, event_count, recorded_at
--   duplicate  the same, as it was answered the first time; nothing is written
--   conflict   stream_id is at current_version (0: it does not exist); nothing is written
--   foreign    stream_id belongs to another tenant; nothing is written
--
-- It is optimistic: requests and events are inserted without asking whether they are duplicates or collide. Only when the
-- keys say so does it look, leave those out and insert the rest. What a key cannot say (a stream behind its expected version, a
-- stream of another tenant) is looked at first, and only for streams that should exist.
CREATE FUNCTION append_events_v1(
    tenant_ids uuid[], command_ids uuid[], metadatas text[],
    stream_requests integer[], stream_ids uuid[], stream_roots uuid[], stream_expected bigint[], stream_counts integer[],
    topics text[], schema_versions smallint[], states bytea[]
) RETURNS TABLE (
    request integer, outcome text, last_position bigint, event_count integer, recorded_at timestamptz,
    stream_id uuid, current_version bigint
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    requests constant integer := cardinality(tenant_ids);
    head bigint;                -- position of the newest event, counting what this call has written
    first_head bigint;
    now_recorded timestamptz;
    pending boolean[] := array_fill(true, ARRAY[requests]);   -- not answered yet
    chosen boolean[] := pending;                              -- to be inserted in this round
    optimistic boolean;
    written integer;
    refused record;
BEGIN
    -- Everything below sees what others committed, because each statement takes its snapshot after this lock.
    UPDATE log_head SET position = position + cardinality(states), recorded_at = greatest(recorded_at, clock_timestamp())
    RETURNING position - cardinality(states), recorded_at INTO STRICT head, now_recorded;

    first_head := head;

    optimistic := NOT EXISTS (
        SELECT FROM unnest(stream_requests, stream_ids, stream_expected) AS s (request, id, expected)
        LEFT JOIN LATERAL (
            SELECT originator_version, tenant_id FROM event WHERE originator_id = s.id ORDER BY originator_version DESC LIMIT 1
        ) AS newest ON true
        WHERE s.expected > 0
          AND (newest.originator_version, newest.tenant_id) IS DISTINCT FROM (s.expected, tenant_ids[s.request])
    );

    LOOP
        IF NOT optimistic THEN
            -- Answered before?
            FOR refused IN
                SELECT r.no, c.last_position, c.event_count, c.recorded_at
                FROM unnest(tenant_ids, command_ids, pending) WITH ORDINALITY AS r (tenant, command, pending, no)
                JOIN command AS c ON c.tenant_id = r.tenant AND c.command_id = r.command
                WHERE r.pending
            LOOP
                pending[refused.no] := false;
                RETURN QUERY SELECT refused.no::integer, 'duplicate', refused.last_position, refused.event_count,
                    refused.recorded_at, NULL::uuid, NULL::bigint;
            END LOOP;

            -- Not at the expected version, or not theirs?
            FOR refused IN
                SELECT DISTINCT ON (s.request) s.request AS no, s.id, coalesce(newest.originator_version, 0) AS version,
                    newest.tenant_id <> tenant_ids[s.request] AS is_foreign
                FROM unnest(stream_requests, stream_ids, stream_expected) AS s (request, id, expected)
                LEFT JOIN LATERAL (
                    SELECT originator_version, tenant_id FROM event WHERE originator_id = s.id
                    ORDER BY originator_version DESC LIMIT 1
                ) AS newest ON true
                WHERE pending[s.request] AND (
                    newest.tenant_id <> tenant_ids[s.request]
                    OR coalesce(newest.originator_version, least(s.expected, 0)) <> s.expected
                )
                ORDER BY s.request
            LOOP
                pending[refused.no] := false;
                RETURN QUERY SELECT refused.no, CASE WHEN refused.is_foreign THEN 'foreign' ELSE 'conflict' END, NULL::bigint,
                    NULL::integer, NULL::timestamptz, refused.id,
                    CASE WHEN refused.is_foreign THEN NULL ELSE refused.version END;
            END LOOP;

            -- Of requests that share a stream or a dedupe key only the first can go now; the others are looked at again.
            chosen := pending;
            FOR refused IN
                SELECT no FROM (
                    SELECT r.no, r.no > min(r.no) OVER (PARTITION BY r.tenant, r.command) AS waits
                    FROM unnest(tenant_ids, command_ids, pending) WITH ORDINALITY AS r (tenant, command, pending, no)
                    WHERE r.pending
                    UNION ALL
                    SELECT s.request, s.request > min(s.request) OVER (PARTITION BY s.id)
                    FROM unnest(stream_requests, stream_ids) AS s (request, id) WHERE pending[s.request]
                ) AS shared
                WHERE waits
            LOOP
                chosen[refused.no] := false;
            END LOOP;
        END IF;

        BEGIN
            INSERT INTO command (tenant_id, command_id, last_position, recorded_at, event_count)
            SELECT tenant_ids[s.request], command_ids[s.request], head + max(s.total), now_recorded, sum(s.count)
            FROM (
                SELECT request, count, sum(count) OVER (ORDER BY no) AS total
                FROM unnest(stream_requests, stream_counts) WITH ORDINALITY AS u (request, count, no) WHERE chosen[request]
            ) AS s
            GROUP BY s.request ORDER BY s.request;

            INSERT INTO event (notification_id, originator_version, recorded_at, originator_id, tenant_id, root_id,
                               schema_version, topic, metadata, state)
            SELECT head + s.total - s.count + i, s.expected + i, now_recorded, s.id, tenant_ids[s.request], s.root,
                   schema_versions[s.place + i], topics[s.place + i], metadatas[s.request], states[s.place + i]
            FROM (
                SELECT request, id, root, expected, count, place, sum(count) OVER (ORDER BY no) AS total
                FROM (
                    SELECT *, (sum(count) OVER (ORDER BY no) - count)::integer AS place
                    FROM unnest(stream_requests, stream_ids, stream_roots, stream_expected, stream_counts) WITH ORDINALITY
                        AS u (request, id, root, expected, count, no)
                ) AS placed
                WHERE chosen[request]
            ) AS s, generate_series(1, s.count) AS i;
            GET DIAGNOSTICS written = ROW_COUNT;
        EXCEPTION WHEN unique_violation THEN
            IF NOT optimistic THEN
                RAISE;
            END IF;
            optimistic := false;
            CONTINUE;
        END;

        IF optimistic THEN
            RETURN QUERY SELECT 0, 'accepted', head + written, written, now_recorded, NULL::uuid, NULL::bigint;
            head := head + written;
            EXIT;
        END IF;

        RETURN QUERY
            SELECT s.request, 'accepted', head + max(s.total)::bigint, sum(s.count)::integer, now_recorded, NULL::uuid, NULL::bigint
            FROM (
                SELECT request, count, sum(count) OVER (ORDER BY no) AS total
                FROM unnest(stream_requests, stream_counts) WITH ORDINALITY AS u (request, count, no) WHERE chosen[request]
            ) AS s
            GROUP BY s.request;
        head := head + written;
        SELECT array_agg(p.pending AND NOT p.chosen ORDER BY p.no) INTO pending
        FROM unnest(pending, chosen) WITH ORDINALITY AS p (pending, chosen, no);
        EXIT WHEN NOT true = ANY (pending);
    END LOOP;

    IF NOT optimistic THEN
        UPDATE log_head SET position = head WHERE position <> head;
    END IF;
    IF head > first_head THEN
        PERFORM pg_notify('tidelog_log', head::text);  -- a hint, at most one for a call; readers poll as well
    END IF;
END
$$;
