-- The append finds the row of log_head at the place where its own session left it.
--
-- Each append writes log_head anew. While another session holds an old snapshot, the versions of before stay in the table, and an
-- append that looked through the table would walk over all of them: some 60,000 after ten minutes. The place is a setting of the
-- session. It is a hint: where another session has moved the row, the append looks through the table as before.
--
-- Only the statements that write log_head change. Names, arguments and answers of the functions stay as they are, so that processes
-- of the release before call them as before.
DO $$
DECLARE
    function record;
    changed text;
    seen integer := 0;
    take constant text := 'UPDATE log_head SET position = position + events, recorded_at = greatest(recorded_at, clock_timestamp())
    RETURNING position - events, recorded_at INTO STRICT head, now_recorded;';
    give constant text := 'UPDATE log_head SET position = head WHERE position <> head;';
BEGIN
    FOR function IN
        SELECT p.oid, pg_get_functiondef(p.oid) AS definition FROM pg_proc AS p
        WHERE p.pronamespace = current_schema()::regnamespace AND p.proname IN ('append_events_v2', 'append_events_v3')
    LOOP
        IF position(take IN function.definition) = 0 OR position(give IN function.definition) = 0 THEN
            RAISE EXCEPTION 'the function % is not as migrations 0015 and 0024 made it', function.oid::regprocedure;
        END IF;
        changed := replace(function.definition, take, '-- By the place first: see migration 0034.
    UPDATE log_head SET position = position + events, recorded_at = greatest(recorded_at, clock_timestamp())
    WHERE ctid = nullif(current_setting(''tidelog.head_at'', true), '''')::tid
    RETURNING position - events, recorded_at, ctid INTO head, now_recorded, head_at;
    IF NOT FOUND THEN
        UPDATE log_head SET position = position + events, recorded_at = greatest(recorded_at, clock_timestamp())
        RETURNING position - events, recorded_at, ctid INTO STRICT head, now_recorded, head_at;
    END IF;
    PERFORM set_config(''tidelog.head_at'', head_at::text, false);');
        changed := replace(changed, give, 'UPDATE log_head SET position = head WHERE ctid = head_at AND position <> head RETURNING ctid INTO head_at;
    IF FOUND THEN
        PERFORM set_config(''tidelog.head_at'', head_at::text, false);
    END IF;');
        changed := replace(changed, '    first_head bigint;', '    first_head bigint;
    head_at tid;                -- the place of the row of log_head');
        EXECUTE changed;
        seen := seen + 1;
    END LOOP;
    IF seen <> 2 THEN
        RAISE EXCEPTION 'there are % append functions instead of 2', seen;
    END IF;
END
$$;
