"""Leases in PostgreSQL (`Leases`): one statement for each beat, and a list of members for people."""

import os
import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from adapters.postgres.pool import Connections, Pool, translate_errors
from application.engine.ports.leases import Beat, Readable, Share

# A process without units gets a row too, for the questions about sessions and groups.
BEAT_SQL = """
    SELECT EXISTS (SELECT FROM worker_session), ARRAY (
        SELECT DISTINCT unnest(groups) FROM member WHERE member_lives(alive_until, lease_seconds, clock_timestamp())
    ), b.unit_group, b.share, b.held, b.offered_by
    FROM (SELECT) AS always LEFT JOIN beat_v3(%s, %s, %s, %s, %s, %s, %s, %s, %s) AS b ON true
"""
LEAVE_SQL = "WITH gone AS (DELETE FROM member WHERE member_id = %(me)s) DELETE FROM lease WHERE member_id = %(me)s"
MEMBERS_SQL = """
    SELECT m.member_id, m.place, m.groups, m.joined_at, member_lives(m.alive_until, m.lease_seconds, clock_timestamp()),
           coalesce(array_agg(l.unit ORDER BY l.unit) FILTER (WHERE l.unit IS NOT NULL), '{}'),
           m.release, m.formats, m.event_versions
    FROM member AS m LEFT JOIN lease AS l ON l.member_id = m.member_id
    GROUP BY m.member_id ORDER BY m.joined_at, m.member_id
"""
# After a start of PostgreSQL a process that lives may have no row, or one that looks dead, until it has said something. So all rows
# count then, and a row of an old process is made up, unless one of these is sure:
# - The database was made after the start, so no process of before knows it.
# - The rows are those of before: PostgreSQL was shut down in order (a crash empties the table), and was away for less time than
#   rows of dead processes are kept. The last checkpoint is then the one of the shutdown, on the same timeline. A recovery after a
#   crash ends with a checkpoint, too, perhaps in the second of the start. Times of checkpoints are whole seconds, so one of that
#   second says nothing, unless an old row proves that there was no crash.
FORMATS_SQL = """
    WITH server AS (
        SELECT pg_postmaster_start_time() AS started,
               clock_timestamp() < pg_postmaster_start_time() + make_interval(secs => %(settling)s) AS settles
    )
    SELECT m.formats FROM member AS m, server AS s
    WHERE s.settles OR member_lives(m.alive_until, m.lease_seconds, clock_timestamp())
    UNION ALL
    SELECT NULL FROM server AS s
    WHERE s.settles AND (SELECT min(applied_at) > s.started FROM schema_migration) IS NOT TRUE AND (
        SELECT c.redo_lsn = c.checkpoint_lsn
           AND lpad(upper(to_hex(c.timeline_id)), 8, '0') = left(pg_walfile_name(pg_current_wal_lsn()), 8)
           AND c.checkpoint_time >= s.started - make_interval(secs => %(away)s)
           AND (
               c.checkpoint_time < date_trunc('second', s.started)
               OR c.checkpoint_time <= s.started AND EXISTS (SELECT FROM member AS m WHERE m.joined_at < s.started)
           )
        FROM pg_control_checkpoint() AS c
    ) IS NOT TRUE
"""
SETTLING_S = 15.0
"""Seconds after a start of PostgreSQL in which processes may be there that have said nothing yet."""
MOST_AWAY_S = 30.0
"""Seconds for which PostgreSQL may be away before rows of processes that lived at its end may be removed."""
FIRST_FORMATS = frozenset({1})
"""What a process reads that does not say so."""


@dataclass(frozen=True, slots=True)
class Member:
    """A running process of the server.

    A process that is not alive has lost its units, or loses them at the next beat of another.
    """

    member_id: UUID
    place: str
    """Host and pid."""
    groups: list[str]
    joined_at: datetime
    alive: bool
    units: list[str]
    release: str | None
    """None, as the next two: a process of a release before, which reads format 1 and the events of its release."""
    formats: list[int] | None
    event_versions: list[str] | None


class PostgresLeases:
    """Implements the port `Leases` for one process."""

    def __init__(self, pool: Pool, *, lease_s: float, member_id: UUID | None = None, readable: Readable | None = None) -> None:
        """`member_id`: the id of the process's last start, if that start has certainly ended. Its units are then held on without a
        pause. `readable`: what this process can read. None: not known.
        """
        self._pool = pool
        self._lease_s = lease_s
        self._member_id = member_id or uuid4()
        self._place = f"{socket.gethostname()}:{os.getpid()}"
        self._readable = (
            (None, None, None) if readable is None else (readable.release, list(readable.formats), list(readable.event_versions))
        )

    async def beat(self, units: Mapping[str, Sequence[str]], given_back: Collection[str]) -> Beat:
        names = [unit for group in units.values() for unit in group]
        groups = [name for name, group in units.items() for _ in group]
        values = (self._member_id, self._place, self._lease_s, *self._readable, names, groups, list(given_back))
        with translate_errors():
            async with self._pool.connection() as connection:
                rows = await (await connection.execute(BEAT_SQL, values, prepare=True)).fetchall()
        shares = {
            group: Share(size, frozenset(held), dict(zip(held, offered_by, strict=True)))
            for *_, group, size, held, offered_by in rows
            if group is not None
        }
        return Beat(shares, any_session=rows[0][0], groups=frozenset(rows[0][1]))

    async def leave(self) -> None:
        with translate_errors():
            async with self._pool.connection() as connection:
                await connection.execute(LEAVE_SQL, {"me": self._member_id})


async def members(pool: Connections) -> list[Member]:
    """Processes that beat within the last minute. Raises Unavailable."""
    with translate_errors():
        async with pool.connection() as connection:
            return [Member(*row) for row in await (await connection.execute(MEMBERS_SQL)).fetchall()]


async def formats_of_all(pool: Connections, settling_s: float = SETTLING_S, most_away_s: float = MOST_AWAY_S) -> frozenset[int]:
    """The formats of the log's messages that every live process reads. Raises Unavailable."""
    values = {"settling": settling_s, "away": most_away_s}
    with translate_errors():
        async with pool.connection() as connection:
            rows = await (await connection.execute(FORMATS_SQL, values, prepare=True)).fetchall()
    return (
        frozenset.intersection(*(FIRST_FORMATS if row[0] is None else frozenset(row[0]) for row in rows)) if rows else FIRST_FORMATS
    )
