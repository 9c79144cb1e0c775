-- Which release each process is of, and what it can read: so that a later release writes nothing that a process beside it cannot read.
-- Every process has a row, also one that does none of the engine's work.

ALTER TABLE member
    ADD COLUMN release text,
    ADD COLUMN formats smallint[],
    ADD COLUMN event_versions text[],
    ADD COLUMN lease_seconds double precision;
COMMENT ON COLUMN member.release IS 'Null, as the next two: a process of a release before, which reads format 1 and the events of its release';
COMMENT ON COLUMN member.formats IS 'Formats of the log''s messages on NATS that it reads';
COMMENT ON COLUMN member.event_versions IS 'What it reads, as run.started/v1; {*}: it passes events on without reading them';

-- Whether a member lives. One that is to live for longer than any beat says was there before the clock was set back.
CREATE FUNCTION member_lives(alive_until timestamptz, lease_seconds double precision, moment timestamptz) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN alive_until >= moment AND alive_until <= moment + make_interval(secs => coalesce(lease_seconds, 3) + 1);

-- A beat as beat_v1 makes it, which also says what the member can read.
CREATE FUNCTION beat_v2(
    member uuid, at_place text, lasting double precision, of_release text, reads_formats smallint[], reads_events text[],
    unit_names text[], unit_groups text[], given_back text[]
) RETURNS TABLE (unit_group text, share integer, held text[]) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    this_group text;
    members integer;
    fair integer;
    holding integer;
    moment timestamptz;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM pg_advisory_xact_lock(7310579128);  -- members take turns; a beat takes well under a millisecond
    moment := clock_timestamp();

    INSERT INTO member AS m (member_id, place, groups, joined_at, alive_until, lease_seconds, release, formats, event_versions)
    SELECT member, at_place, coalesce(array_agg(DISTINCT g), '{}'), moment, moment + make_interval(secs => lasting), lasting,
           of_release, reads_formats, reads_events
    FROM unnest(unit_groups) AS g
    ON CONFLICT (member_id) DO UPDATE SET alive_until = EXCLUDED.alive_until, groups = EXCLUDED.groups,
        lease_seconds = EXCLUDED.lease_seconds, release = EXCLUDED.release, formats = EXCLUDED.formats,
        event_versions = EXCLUDED.event_versions;

    DELETE FROM lease WHERE member_id = member AND unit = ANY (given_back);
    DELETE FROM lease AS l
    WHERE NOT EXISTS (
        SELECT FROM member AS m WHERE m.member_id = l.member_id AND member_lives(m.alive_until, m.lease_seconds, moment)
    );
    -- Until then people see whom they lost.
    DELETE FROM member WHERE alive_until < moment - interval '1 minute'
        OR alive_until > moment + make_interval(secs => coalesce(lease_seconds, 3) + 60);

    FOR this_group IN SELECT DISTINCT g FROM unnest(unit_groups) AS g LOOP
        SELECT count(*) INTO members FROM member
        WHERE member_lives(alive_until, lease_seconds, moment) AND this_group = ANY (groups);
        SELECT ceil(count(*)::numeric / members) INTO fair FROM unnest(unit_groups) AS g WHERE g = this_group;
        SELECT count(*) INTO holding FROM lease AS l WHERE l.member_id = member AND l.unit_group = this_group;
        INSERT INTO lease (unit, unit_group, member_id, since)
        SELECT u.name, this_group, member, moment FROM unnest(unit_names, unit_groups) AS u (name, of_group)
        WHERE u.of_group = this_group AND NOT EXISTS (SELECT FROM lease AS l WHERE l.unit = u.name)
        ORDER BY u.name LIMIT greatest(fair - holding, 0);
        RETURN QUERY
            SELECT this_group, fair, coalesce(array_agg(l.unit ORDER BY l.unit), '{}') FROM lease AS l
            WHERE l.member_id = member AND l.unit_group = this_group;
    END LOOP;
END
$$;
