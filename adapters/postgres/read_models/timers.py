"""Durable timers over the table that the projection `timers` keeps.

`set_at` and `due_at` come from the log, whose times never go back. If the database's clock is set back, they lie in the future by
as much. `due` then notes in `no_later_than` that the timer fires one delay after the look that found it so. If the clock is set
back again, the time that was noted lies in the future too, and is noted anew.

While another session holds an old snapshot, timers that are gone stay in the indexes. A look that began at the earliest time would
walk over all of them, and there may be one for each run of the last hours. So a look goes on from the look before: it begins at the
time that was the earliest then, and looks for timers that were set since by the time of their event.

A new timer that is due after the time until which this process sleeps anyway causes no look: its notification names the time.
"""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from uuid import UUID

from adapters.postgres.database import Database
from adapters.postgres.pool import Connection
from application.engine.ports.database import Listener
from application.engine.ports.timers import PARKED_AS, DueTimer

# The delay is added in seconds: a difference of timestamps has days, and a day may have 23 hours in the time zone of a session.
OF_THE_FUTURE = """
UPDATE timer SET no_later_than = now() + make_interval(secs => extract(epoch FROM due_at - set_at)::float8)
WHERE set_at > now() AND (
    no_later_than IS NULL OR no_later_than > now() + make_interval(secs => extract(epoch FROM due_at - set_at)::float8)
)
"""
# `reached`: up to which event the timers are in the table. Events of later positions are not recorded before, so timers that come
# into the table later are set at that time or after. The order and the limit, which the planner does not know, make the planner
# take the index by `set_at`. The checkpoint is looked up from behind: see `projections/engine/checkpoints.py`.
LOOK = """
WITH reached AS MATERIALIZED (
    SELECT recorded_at FROM event WHERE notification_id = checkpoint_position('timers')
), later AS MATERIALIZED (
    SELECT LEAST(due_at, no_later_than) AS fires_at FROM timer
    WHERE set_at >= %(since)s::timestamptz AND %(since)s::timestamptz > '-infinity'
    ORDER BY set_at LIMIT (SELECT 2147483647)
), undated AS MATERIALIZED (
    SELECT LEAST(due_at, no_later_than) AS fires_at FROM timer WHERE set_at IS NULL
), first AS MATERIALIZED (
    SELECT LEAST(
        (SELECT LEAST(due_at, no_later_than) FROM timer WHERE LEAST(due_at, no_later_than) >= %(first)s::timestamptz
         ORDER BY LEAST(due_at, no_later_than) LIMIT 1),
        (SELECT min(fires_at) FROM later), (SELECT min(fires_at) FROM undated)
    ) AS fires_at
)
SELECT (SELECT recorded_at FROM reached), fires_at, extract(epoch FROM fires_at - now())::float8 FROM first
"""
DUE = """
SELECT timer_id, tenant_id, root_id, command, payload, correlation_id, cause FROM timer
WHERE LEAST(due_at, no_later_than) BETWEEN %(first)s::timestamptz AND now() ORDER BY LEAST(due_at, no_later_than) LIMIT %(limit)s
"""
DELETE = "DELETE FROM timer WHERE timer_id = ANY (%s)"
PARK = """
WITH gone AS (DELETE FROM timer WHERE timer_id = %(timer)s RETURNING stream_id, cause)
INSERT INTO parked_event (consumer, position, root_id, tenant_id, topic, error)
SELECT %(consumer)s, notification_id, root_id, tenant_id, topic, %(error)s FROM event
WHERE tenant_id = %(tenant)s AND originator_id = %(stream)s AND originator_version = %(version)s AND EXISTS (SELECT FROM gone)
ON CONFLICT DO NOTHING
"""


ALWAYS, NEVER = "-infinity", "infinity"
WHOLE_EVERY_S = 60.0
"""Seconds after which a look begins at the earliest time again. Timers may come back into the table with their old times, when
PostgreSQL crashed or the read model was built anew."""


class PostgresTimers:
    """The `Timers` port over the table. One task uses it."""

    def __init__(self, database: Database, listener: Listener) -> None:
        self._database = database
        self._listener = listener
        self._first: datetime | str = ALWAYS
        """At the last look no timer fired before this time."""
        self._since: datetime | str = ALWAYS
        """All timers that came into the table after the last look were set at this time or later."""
        self._whole_at = -WHOLE_EVERY_S
        self._looked: tuple[float | None, float] | None = None
        """What the look of `due` has seen that found no due timer, and when: one look answers both questions."""
        self._asleep_until: datetime | None = None
        """Timers that are due at this time or later need no look. None: nobody sleeps, or until no known time."""
        listener.matters = self._matters

    async def due(self, limit: int) -> list[DueTimer]:
        self._looked = None
        async with self._looking() as connection:
            if (await connection.execute(OF_THE_FUTURE)).rowcount:
                self._forget()
            seconds = await self._look(connection)
            if seconds is None or seconds > 0:
                self._looked = (seconds, time.monotonic())
                return []
            rows = await (await connection.execute(DUE, {"first": self._first, "limit": limit})).fetchall()
        return [DueTimer(r[0], r[1], r[2], r[3], r[4].encode(), r[5], r[6]) for r in rows]

    @asynccontextmanager
    async def _looking(self) -> AsyncIterator[Connection]:
        """A connection. The database may have crashed where it is away, and may have lost what the last look saw."""
        try:
            async with self._database.connection() as connection:
                yield connection
        except BaseException:
            self._forget()
            raise

    def _forget(self) -> None:
        self._first = self._since = ALWAYS

    async def _look(self, connection: Connection) -> float | None:
        """Seconds until the first timer fires, less than 0 if it is due. None: there is no timer."""
        if time.monotonic() - self._whole_at >= WHOLE_EVERY_S:
            self._forget()
            self._whole_at = time.monotonic()
        row = await (await connection.execute(LOOK, {"first": self._first, "since": self._since})).fetchone()
        assert row is not None
        reached, first, seconds = row
        if reached is None:
            self._forget()  # the read model has read nothing yet
        else:
            self._since, self._first = reached, first or NEVER
        return None if seconds is None else float(seconds)

    async def delete(self, timer_ids: Sequence[UUID]) -> None:
        self._looked = None
        async with self._database.connection() as connection:
            await connection.execute(DELETE, [list(timer_ids)])

    async def park(self, timer: DueTimer, error: str) -> None:
        self._looked = None
        stream, _, version = timer.cause.rpartition(":")
        parameters = {
            "timer": timer.timer_id, "consumer": PARKED_AS, "tenant": timer.tenant_id, "stream": UUID(stream),
            "version": int(version), "error": error[:10_000].replace("\x00", ""),
        }  # fmt: skip
        async with self._database.connection() as connection:
            await connection.execute(PARK, parameters)

    async def seconds_until_next(self) -> float | None:
        if self._looked is not None:
            (seconds, looked_at), self._looked = self._looked, None
            return None if seconds is None else seconds - (time.monotonic() - looked_at)
        async with self._looking() as connection:
            return await self._look(connection)

    async def wait_for_change(self, timeout: float) -> None:
        # What was told since the last look began is not compared: the look may not have seen it.
        self._asleep_until = self._first if isinstance(self._first, datetime) else None
        try:
            await self._listener.wait(timeout)
        finally:
            self._asleep_until = None

    def _matters(self, payload: str) -> bool:
        """Whether timers were set that are due before this process wakes up."""
        if self._asleep_until is None:
            return True
        try:
            return datetime.fromisoformat(payload) < self._asleep_until
        except (ValueError, TypeError):  # a release before names no time
            return True
