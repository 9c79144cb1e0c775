-- How processes share the work of the engine: who is there, and who holds which unit of work.
--
-- A lease says who should do a unit; that two do one unit at once does no harm (checkpoints have an epoch, the stream a compare-and-set,
-- reactions derived ids). So nothing here needs to survive a crash of the database: the tables are unlogged, and beats make them anew.

CREATE UNLOGGED TABLE member (
    member_id   uuid PRIMARY KEY,          -- one start of one process
    place       text NOT NULL,             -- host and pid, for people
    groups      text[] NOT NULL,           -- of which groups of units it does some
    joined_at   timestamptz NOT NULL,
    alive_until timestamptz NOT NULL       -- unless it beats again before
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);
COMMENT ON TABLE member IS 'Processes that share the work of the engine, each alive until its time is over';

CREATE UNLOGGED TABLE lease (
    unit      text PRIMARY KEY,
    unit_group text NOT NULL,
    member_id uuid NOT NULL,
    since     timestamptz NOT NULL
);
COMMENT ON TABLE lease IS 'Which process does which unit of work: a projection, a partition of the sagas, the relay';

-- One beat of a member: says that it lives, gives back what it has let go, takes what is free up to its fair share.
--
--   unit_names, unit_groups   all units that this member could do, and the group of each
--   given_back                units that it held and does no longer do
--
-- Answers with one row for each of its groups: the fair share (units by members, rounded up) and the units that it holds, which may be
-- more than its share when another member has joined: it then lets go of some and gives them back with a later beat.
CREATE FUNCTION beat_v1(
    member uuid, at_place text, lease_seconds double precision, unit_names text[], unit_groups text[], given_back text[]
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

    INSERT INTO member AS m (member_id, place, groups, joined_at, alive_until)
    SELECT member, at_place, coalesce(array_agg(DISTINCT g), '{}'), moment, moment + make_interval(secs => lease_seconds)
    FROM unnest(unit_groups) AS g
    ON CONFLICT (member_id) DO UPDATE SET alive_until = EXCLUDED.alive_until, groups = EXCLUDED.groups;

    DELETE FROM lease WHERE member_id = member AND unit = ANY (given_back);
    DELETE FROM lease AS l
    WHERE NOT EXISTS (SELECT FROM member AS m WHERE m.member_id = l.member_id AND m.alive_until >= moment);
    DELETE FROM member WHERE alive_until < moment - interval '1 minute';  -- until then people see whom they lost

    FOR this_group IN SELECT DISTINCT g FROM unnest(unit_groups) AS g LOOP
        SELECT count(*) INTO members FROM member WHERE alive_until >= moment AND this_group = ANY (groups);
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

-- The sagas' one checkpoint becomes one for each partition of the root ids; see application/sagas/manager.py.
INSERT INTO checkpoint (name, position) SELECT 'sagas:' || n, position FROM checkpoint, generate_series(0, 7) AS n WHERE name = 'sagas';
DELETE FROM checkpoint WHERE name = 'sagas';
UPDATE parked_event SET consumer = 'sagas:' || (get_byte(uuid_send(root_id), 15) & 7) WHERE consumer = 'sagas';
