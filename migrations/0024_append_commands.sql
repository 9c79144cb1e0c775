-- Appends of several commands: a command, and those that follow from its events, reach the log together or not at all.
--
-- event.settled says which sagas need not look at an event any more, because their whole answer was appended with it: bit n for the
-- saga with the number n. Rows of before have 0: every saga looks at them.
-- command.content is a hash of what a command says, so that a repeat with another content is noticed. Null: not compared.
ALTER TABLE event ADD COLUMN settled bigint NOT NULL DEFAULT 0;
ALTER TABLE command ADD COLUMN content uuid;

-- Appends as append_events_v2 does, and each request holds one or more commands. All three functions may run at once, under the same
-- lock: processes of the release before call the older ones, which write 0 and null.
--
-- Arguments, in four levels; requests, commands and events are 1-based places in their level:
--   per request  tenant_ids, request_counts (its events), request_ends (events up to its last)
--   per command  command_requests (its request), command_ids (the dedupe key), metadatas, contents (all zeros: null),
--                command_counts (its events, 0 or more), command_ends (events up to its last)
--   per stream   stream_requests (its request), stream_ids, stream_expected (the version that it must have now; 0 or less: it must
--                not exist), stream_counts (its events; 0: the stream is only a condition)
--   per event    event_commands (its command), event_streams, event_roots, event_versions (its place in the stream), topics,
--                schema_versions, states, settled_by
--
-- Answers: one row with request 0 when everything was accepted (positions follow in the order of the events, up to last_position);
-- otherwise rows for each request, in no particular order, with outcome
--   accepted   last_position, event_count, recorded_at
--   duplicate  one row for each command that was recorded before, with its place among the commands, and as it was recorded the
--              first time; nothing of the request is written
--   conflict   stream_id is at current_version (0: it does not exist); nothing is written
--   foreign    stream_id belongs to another tenant; nothing is written
--
-- It is optimistic: requests and events are inserted without asking whether they are duplicates or collide. Only when the
-- keys say so does it look, leave those out and insert the rest. What a key cannot say (a stream behind its expected version, a
-- stream of another tenant, a stream that is only a condition) is looked at first.
CREATE FUNCTION append_events_v3(
    tenant_ids uuid[], request_counts integer[], request_ends integer[],
    command_requests integer[], command_ids uuid[], metadatas text[], contents uuid[], command_counts integer[], command_ends integer[],
    stream_requests integer[], stream_ids uuid[], stream_expected bigint[], stream_counts integer[],
    event_commands integer[], event_streams uuid[], event_roots uuid[], event_versions bigint[],
    topics text[], schema_versions smallint[], states bytea[], settled_by bigint[]
) RETURNS TABLE (
    request integer, outcome text, command integer, last_position bigint, event_count integer, recorded_at timestamptz, content uuid,
    stream_id uuid, current_version bigint
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    no_content constant uuid := '00000000-0000-0000-0000-000000000000';
    requests constant integer := cardinality(tenant_ids);
    commands constant integer := cardinality(command_ids);
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

    IF 0 < ANY (stream_expected) OR 0 = ANY (stream_counts) THEN
        optimistic := NOT EXISTS (
            SELECT FROM unnest(stream_requests, stream_ids, stream_expected, stream_counts) AS s (request, id, expected, count)
            LEFT JOIN LATERAL (
                SELECT originator_version, tenant_id FROM event WHERE originator_id = s.id ORDER BY originator_version DESC LIMIT 1
            ) AS newest ON true
            WHERE (s.expected > 0 OR s.count = 0) AND CASE
                WHEN s.expected > 0
                THEN (newest.originator_version, newest.tenant_id) IS DISTINCT FROM (s.expected, tenant_ids[s.request])
                ELSE newest.originator_version IS NOT NULL
            END
        );
        -- No key tells that one request writes the stream that is another one's condition.
        IF optimistic AND 0 = ANY (stream_counts) THEN
            optimistic := NOT EXISTS (
                SELECT FROM unnest(stream_ids, stream_counts) AS s (id, count) GROUP BY s.id HAVING min(s.count) = 0 AND max(s.count) > 0
            );
        END IF;
    END IF;

    IF optimistic THEN
        BEGIN
            INSERT INTO command (tenant_id, command_id, last_position, recorded_at, event_count, content)
            SELECT tenant_ids[command_requests[i]], command_ids[i], head + command_ends[i], now_recorded, command_counts[i],
                   nullif(contents[i], no_content)
            FROM generate_series(1, commands) AS i;

            INSERT INTO event (notification_id, originator_version, recorded_at, originator_id, tenant_id, root_id,
                               schema_version, topic, metadata, state, settled)
            SELECT head + i, event_versions[i], now_recorded, event_streams[i], tenant_ids[command_requests[event_commands[i]]],
                   event_roots[i], schema_versions[i], topics[i], metadatas[event_commands[i]], states[i], settled_by[i]
            FROM generate_series(1, events) AS i;

            PERFORM pg_notify('tidelog_log', (head + events)::text);  -- a hint, at most one for a call; readers poll as well
            RETURN QUERY SELECT 0, 'accepted', NULL::integer, head + events, events, now_recorded, NULL::uuid, NULL::uuid, NULL::bigint;
            RETURN;
        EXCEPTION WHEN unique_violation THEN
            NULL;  -- somebody is a duplicate or collides
        END;
    END IF;

    pending := array_fill(true, ARRAY[requests]);
    LOOP
        -- Recorded before? One recorded command keeps back the whole request.
        FOR refused IN
            SELECT u.request AS no, u.place, c.last_position, c.event_count, c.recorded_at, c.content
            FROM unnest(command_requests, command_ids) WITH ORDINALITY AS u (request, id, place)
            JOIN command AS c ON c.tenant_id = tenant_ids[u.request] AND c.command_id = u.id
            WHERE pending[u.request]
        LOOP
            pending[refused.no] := false;
            RETURN QUERY SELECT refused.no, 'duplicate', refused.place::integer, refused.last_position, refused.event_count,
                refused.recorded_at, refused.content, NULL::uuid, NULL::bigint;
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
            RETURN QUERY SELECT refused.no, CASE WHEN refused.is_foreign THEN 'foreign' ELSE 'conflict' END, NULL::integer,
                NULL::bigint, NULL::integer, NULL::timestamptz, NULL::uuid, refused.id,
                CASE WHEN refused.is_foreign THEN NULL ELSE refused.version END;
        END LOOP;

        -- Of requests that share a stream or a dedupe key only the first can go now; the others are looked at again.
        chosen := pending;
        FOR refused IN
            SELECT no FROM (
                SELECT u.request AS no, u.request > min(u.request) OVER (PARTITION BY tenant_ids[u.request], u.id) AS waits
                FROM unnest(command_requests, command_ids) AS u (request, id) WHERE pending[u.request]
                UNION ALL
                SELECT s.request, s.request > min(s.request) OVER (PARTITION BY s.id)
                FROM unnest(stream_requests, stream_ids) AS s (request, id) WHERE pending[s.request]
            ) AS shared
            WHERE waits
        LOOP
            chosen[refused.no] := false;
        END LOOP;

        INSERT INTO command (tenant_id, command_id, last_position, recorded_at, event_count, content)
        SELECT tenant_ids[command_requests[i]], command_ids[i], head + sum(command_counts[i]) OVER (ORDER BY i), now_recorded,
               command_counts[i], nullif(contents[i], no_content)
        FROM generate_series(1, commands) AS i WHERE chosen[command_requests[i]];

        INSERT INTO event (notification_id, originator_version, recorded_at, originator_id, tenant_id, root_id,
                           schema_version, topic, metadata, state, settled)
        SELECT head + row_number() OVER (ORDER BY i), event_versions[i], now_recorded, event_streams[i],
               tenant_ids[command_requests[event_commands[i]]], event_roots[i], schema_versions[i], topics[i],
               metadatas[event_commands[i]], states[i], settled_by[i]
        FROM generate_series(1, events) AS i WHERE chosen[command_requests[event_commands[i]]];
        GET DIAGNOSTICS written = ROW_COUNT;

        RETURN QUERY
            SELECT i, 'accepted', NULL::integer, head + sum(request_counts[i]) OVER (ORDER BY i), request_counts[i], now_recorded,
                NULL::uuid, NULL::uuid, NULL::bigint
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
