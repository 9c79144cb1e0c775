-- A member's share of a group, where the members do not know the same units: as in an upgrade, in which processes of two releases work
-- side by side. The newer knows more read models. A share that only counts members let it fill its share with those, while the older
-- gave back half of the others: nobody took them, so nobody moved those read models for as long as both were there.
--
-- Now each unit counts for the members that know it. Members of the release before call beat_v2, and share by the same rule.

ALTER TABLE member ADD COLUMN units text[];
COMMENT ON COLUMN member.units IS 'The units that it could run. Null: it has not beaten since the column is there, so it may know all';

CREATE FUNCTION beat_v3(
    member uuid, at_place text, lasting double precision, of_release text, reads_formats smallint[], reads_events text[],
    unit_names text[], unit_groups text[], given_back text[]
) RETURNS TABLE (unit_group text, share integer, held text[], offered_by integer[]) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    this_group text;
    known text[];   -- the member's units of this group
    offers integer[];  -- and how many living members could run each of them
    fair integer;
    moment timestamptz;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM pg_advisory_xact_lock(7310579128);  -- members take turns; a beat takes well under a millisecond
    moment := clock_timestamp();

    INSERT INTO member AS m (
        member_id, place, groups, joined_at, alive_until, lease_seconds, release, formats, event_versions, units
    )
    SELECT member, at_place, coalesce(array_agg(DISTINCT g), '{}'), moment, moment + make_interval(secs => lasting), lasting,
           of_release, reads_formats, reads_events, unit_names
    FROM unnest(unit_groups) AS g
    ON CONFLICT (member_id) DO UPDATE SET alive_until = EXCLUDED.alive_until, groups = EXCLUDED.groups,
        lease_seconds = EXCLUDED.lease_seconds, release = EXCLUDED.release, formats = EXCLUDED.formats,
        event_versions = EXCLUDED.event_versions, units = EXCLUDED.units;

    DELETE FROM lease WHERE member_id = member AND unit = ANY (given_back);
    DELETE FROM lease AS l
    WHERE NOT EXISTS (
        SELECT FROM member AS m WHERE m.member_id = l.member_id AND member_lives(m.alive_until, m.lease_seconds, moment)
    );
    -- Until then people see whom they lost.
    DELETE FROM member WHERE alive_until < moment - interval '1 minute'
        OR alive_until > moment + make_interval(secs => coalesce(lease_seconds, 3) + 60);

    FOR this_group IN SELECT DISTINCT g FROM unnest(unit_groups) AS g LOOP
        -- Rounded: six sixths are one, and not a little more.
        SELECT array_agg(o.name), array_agg(o.members), ceil(round(sum(1::numeric / o.members), 6)) INTO known, offers, fair
        FROM (
            SELECT u.name, (
                SELECT count(*)::integer FROM member AS m
                WHERE member_lives(m.alive_until, m.lease_seconds, moment) AND this_group = ANY (m.groups)
                      AND (m.units IS NULL OR u.name = ANY (m.units))
            ) AS members
            FROM unnest(unit_names, unit_groups) AS u (name, of_group) WHERE u.of_group = this_group
        ) AS o;
        -- What the fewest know goes first, and what is held before what is free.
        INSERT INTO lease (unit, unit_group, member_id, since)
        SELECT r.name, this_group, member, moment
        FROM (
            SELECT o.name, l.member_id, row_number() OVER (ORDER BY o.members, l.member_id IS NULL, o.name) AS place
            FROM unnest(known, offers) AS o (name, members) LEFT JOIN lease AS l ON l.unit = o.name
            WHERE l.member_id IS NULL OR l.member_id = member
        ) AS r
        WHERE r.member_id IS NULL AND r.place <= fair
        ORDER BY r.place;
        RETURN QUERY
            SELECT this_group, fair, coalesce(array_agg(l.unit ORDER BY l.unit), '{}'),
                   coalesce(array_agg(coalesce(o.members, 1) ORDER BY l.unit), '{}')
            FROM lease AS l LEFT JOIN unnest(known, offers) AS o (name, members) ON o.name = l.unit
            WHERE l.member_id = member AND l.unit_group = this_group;
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION beat_v2(
    member uuid, at_place text, lasting double precision, of_release text, reads_formats smallint[], reads_events text[],
    unit_names text[], unit_groups text[], given_back text[]
) RETURNS TABLE (unit_group text, share integer, held text[]) LANGUAGE sql AS $$
    SELECT b.unit_group, b.share, b.held
    FROM beat_v3(
        member, at_place, lasting, of_release, reads_formats, reads_events, unit_names, unit_groups, given_back
    ) AS b
$$;
