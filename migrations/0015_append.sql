-- Appends as append_events_v1 does, in less time: what can be counted outside comes counted, so that the usual case inserts its
-- parameters as they are. Both may run at once, under the same lock: processes of the release before call the first one.
--
-- Arguments, in three levels; requests are 1-based places in the first one:
--   per request  tenant_ids, command_ids (the dedupe key), metadatas, request_counts (its events), request_ends (events up to its last)
--   per stream   stream_requests (its request), stream_ids, stream_expected (the version that it must have now; 0 or less: it must
--                not exist)
--   per event    event_requests (its request), event_streams, event_roots, event_versions (its place in the stream), topics,
--                schema_versions, states
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
CREATE FUNCTION append_events_v2(
    tenant_ids uuid[], command_ids uuid[], metadatas text[], request_counts integer[], request_ends integer[],
    stream_requests integer[], stream_ids uuid[], stream_expected bigint[],
    event_requests integer[], event_streams uuid[], event_roots uuid[], event_versions bigint[],
    topics text[], schema_versions smallint[], states bytea[]
) RETURNS TABLE (
    request integer, outcome text, last_position bigint, event_count integer, recorded_at timestamptz,
    stream_id uuid, current_version bigint
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    requests constant integer := cardinality(tenant_ids);
    events constant integer := cardinality(states);
    head bigint;                -- position of the newest event, counting what this call has written
    first_head bigint;
    now_recorded timestamptz;
    pending boolean[];          -- not answered yet
    chosen boolean[];           -- to be inserted in this round
    optimistic boolean := true;
    written integer;
    refused record;
BEGIN
    -- Everything below sees what others committed, because each statement takes its snapshot after this lock.
    UPDATE log_head SET position = position + events, recorded_at = greatest(recorded_at, clock_timestamp())
    RETURNING position - events, recorded_at INTO STRICT head, now_recorded;

    first_head := head;

    IF 0 < ANY (stream_expected) THEN
        optimistic := NOT EXISTS (
            SELECT FROM unnest(stream_requests, stream_ids, stream_expected) AS s (request, id, expected)
            LEFT JOIN LATERAL (
                SELECT originator_version, tenant_id FROM event WHERE originator_id = s.id ORDER BY originator_version DESC LIMIT 1
            ) AS newest ON true
            WHERE s.expected > 0
              AND (newest.originator_version, newest.tenant_id) IS DISTINCT FROM (s.expected, tenant_ids[s.request])
        );
    END IF;

    IF optimistic THEN
        BEGIN
            INSERT INTO command (tenant_id, command_id, last_position, recorded_at, event_count)
            SELECT tenant_ids[i], command_ids[i], head + request_ends[i], now_recorded, request_counts[i]
            FROM generate_series(1, requests) AS i;

            INSERT INTO event (notification_id, originator_version, recorded_at, originator_id, tenant_id, root_id,
                               schema_version, topic, metadata, state)
            SELECT head + i, event_versions[i], now_recorded, event_streams[i], tenant_ids[event_requests[i]], event_roots[i],
                   schema_versions[i], topics[i], metadatas[event_requests[i]], states[i]
            FROM generate_series(1, events) AS i;

            PERFORM pg_notify('tidelog_log', (head + events)::text);  -- a hint, at most one for a call; readers poll as well
            RETURN QUERY SELECT 0, 'accepted', head + events, events, now_recorded, NULL::uuid, NULL::bigint;
            RETURN;
        EXCEPTION WHEN unique_violation THEN
            NULL;  -- somebody is a duplicate or collides
        END;
    END IF;

    pending := array_fill(true, ARRAY[requests]);
    LOOP
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

        INSERT INTO command (tenant_id, command_id, last_position, recorded_at, event_count)
        SELECT tenant_ids[i], command_ids[i], head + sum(request_counts[i]) OVER (ORDER BY i), now_recorded, request_counts[i]
        FROM generate_series(1, requests) AS i WHERE chosen[i];

        INSERT INTO event (notification_id, originator_version, recorded_at, originator_id, tenant_id, root_id,
                           schema_version, topic, metadata, state)
        SELECT head + row_number() OVER (ORDER BY i), event_versions[i], now_recorded, event_streams[i], tenant_ids[event_requests[i]],
               event_roots[i], schema_versions[i], topics[i], metadatas[event_requests[i]], states[i]
        FROM generate_series(1, events) AS i WHERE chosen[event_requests[i]];
        GET DIAGNOSTICS written = ROW_COUNT;

        RETURN QUERY
            SELECT i, 'accepted', head + sum(request_counts[i]) OVER (ORDER BY i), request_counts[i], now_recorded, NULL::uuid,
                NULL::bigint
            FROM generate_series(1, requests) AS i WHERE chosen[i];
        head := head + written;
        SELECT array_agg(p.pending AND NOT p.chosen ORDER BY p.no) INTO pending
        FROM unnest(pending, chosen) WITH ORDINALITY AS p (pending, chosen, no);
        EXIT WHEN NOT true = ANY (pending);
    END LOOP;

    UPDATE log_head SET position = head WHERE position <> head;
    IF head > first_head THEN
        PERFORM pg_notify('tidelog_log', head::text);
    END IF;
END
$$;
