-- Looks for the newest version of a row that is written all the time, from the end of the index: decision 0075.
--
-- Under an old snapshot, no version of such a row can be removed. The planner knows one row only, and finds it as cheap to collect all
-- entries of the row and to sort them as to take the last one. So these looks are functions that leave the planner no choice. A plan
-- that a session keeps was made under the function's settings, too.
--
-- The functions answer as the statements in their place did: those that are STABLE by the snapshot of the statement that calls them.
CREATE FUNCTION checkpoint_position(wanted text) RETURNS bigint
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
BEGIN
    RETURN (SELECT position FROM checkpoint WHERE name >= wanted AND name <= wanted ORDER BY name DESC LIMIT 1);
END
$$;
COMMENT ON FUNCTION checkpoint_position IS 'How far a consumer of the log has come; null: there is no such consumer';

CREATE FUNCTION log_position() RETURNS bigint
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
BEGIN
    RETURN (SELECT position FROM log_head WHERE singleton >= true AND singleton <= true ORDER BY singleton DESC LIMIT 1);
END
$$;
COMMENT ON FUNCTION log_position IS 'The newest position of the log';

-- Of the table `activity_total` that the search_path of the caller names: a version of the read model has a schema of its own.
CREATE FUNCTION newest_activity_total(wanted_kind text, wanted_label text) RETURNS TABLE (place tid, running bigint)
LANGUAGE plpgsql STABLE ROWS 1 SET enable_seqscan = off SET enable_bitmapscan = off AS $$
BEGIN
    RETURN QUERY SELECT t.ctid, t.running FROM activity_total AS t
        WHERE (t.kind, t.label) >= (wanted_kind, wanted_label) AND (t.kind, t.label) <= (wanted_kind, wanted_label)
        ORDER BY t.kind DESC, t.label DESC LIMIT 1;
END
$$;

-- VOLATILE: it sees what was committed since its caller began.
CREATE FUNCTION log_head_place() RETURNS tid
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
BEGIN
    RETURN (SELECT ctid FROM log_head WHERE singleton >= true AND singleton <= true ORDER BY singleton DESC LIMIT 1);
END
$$;
COMMENT ON FUNCTION log_head_place IS 'Where the row of log_head was when the call began';

-- An append that another session has overtaken looks for the row of log_head from behind, and only then through the table: that is
-- where a third session has moved the row in between.
DO $$
DECLARE
    function record;
    changed text;
    seen integer := 0;
    scan constant text := '    IF NOT FOUND THEN
        UPDATE log_head SET position = position + events, recorded_at = greatest(recorded_at, clock_timestamp())
        RETURNING position - events, recorded_at, ctid INTO STRICT head, now_recorded, head_at;
    END IF;';
BEGIN
    FOR function IN
        SELECT p.oid, pg_get_functiondef(p.oid) AS definition FROM pg_proc AS p
        WHERE p.pronamespace = current_schema()::regnamespace AND p.proname IN ('append_events_v2', 'append_events_v3')
    LOOP
        IF position(scan IN function.definition) = 0 THEN
            RAISE EXCEPTION 'the function % is not as migration 0034 made it', function.oid::regprocedure;
        END IF;
        changed := replace(function.definition, scan, '    IF NOT FOUND THEN
        head_at := log_head_place();
        UPDATE log_head SET position = position + events, recorded_at = greatest(recorded_at, clock_timestamp())
        WHERE ctid = head_at RETURNING position - events, recorded_at, ctid INTO head, now_recorded, head_at;
    END IF;
' || scan);
        EXECUTE changed;
        seen := seen + 1;
    END LOOP;
    IF seen <> 2 THEN
        RAISE EXCEPTION 'there are % append functions instead of 2', seen;
    END IF;
END
$$;
