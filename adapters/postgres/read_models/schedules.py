"""Schedules that are due, over the table that the projection `schedules` keeps.

While another session holds an old snapshot, rows that are gone stay in the index, at its lower end. So a look begins where the look
before found nothing below, unless a notification says that a row has come that is due earlier.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from adapters.postgres.database import Database
from adapters.postgres.pool import Connection
from application.engine.ports.database import Listener
from application.engine.ports.due import DueLook, DueStream

LOOK = """
SELECT now(), (
    SELECT GREATEST(starts_at, put_off_until) FROM schedule_due WHERE GREATEST(starts_at, put_off_until) >= %(first)s::timestamptz
    ORDER BY GREATEST(starts_at, put_off_until) LIMIT 1
), EXISTS (SELECT FROM schedule_due WHERE waits)
"""
DUE = """
SELECT schedule_id, tenant_id, version FROM schedule_due
WHERE GREATEST(starts_at, put_off_until) BETWEEN %(first)s::timestamptz AND %(now)s::timestamptz
ORDER BY GREATEST(starts_at, put_off_until) LIMIT %(limit)s
"""
# In turns: many may wait, and none of them says for how long.
WAITING = """
SELECT schedule_id, tenant_id, version FROM schedule_due
WHERE waits AND schedule_id > %(after)s AND (put_off_until IS NULL OR put_off_until <= %(now)s::timestamptz)
ORDER BY schedule_id LIMIT %(limit)s
"""
DONE = """
DELETE FROM schedule_due USING unnest(%s::uuid[], %s::int[]) AS done (id, at)
WHERE schedule_due.schedule_id = done.id AND schedule_due.version <= done.at
"""
PUT_OFF = """
UPDATE schedule_due SET put_off_until = now() + make_interval(secs => %s) FROM unnest(%s::uuid[], %s::int[]) AS late (id, at)
WHERE schedule_due.schedule_id = late.id AND schedule_due.version <= late.at
"""
ALWAYS, NEVER = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
WHOLE_EVERY_S = 60.0
"""Seconds after which a look begins at the earliest time again: a notification may have been lost."""
NOBODY = UUID(int=0)


class PostgresDueSchedules:
    """The `DueStreams` port. One task looks and waits."""

    def __init__(self, database: Database, listener: Listener) -> None:
        self._database = database
        self._listener = listener
        self._first = ALWAYS
        """No row is due before this time, but for what was told since."""
        self._told = NEVER
        """The first time of rows that notifications told of since the last look began."""
        self._whole_at = -WHOLE_EVERY_S
        self._after = NOBODY
        """The last of those that wait which was looked at."""
        self._asleep_until: datetime | None = None
        """Rows that are due at this time or later need no look. None: nobody sleeps, or until no known time."""
        listener.matters = self._matters

    async def look(self, limit: int, most_waiting: int) -> DueLook:
        if time.monotonic() - self._whole_at >= WHOLE_EVERY_S:
            self._first, self._whole_at = ALWAYS, time.monotonic()
        began = min(self._first, self._told)
        self._first, self._told = began, NEVER
        try:
            async with self._database.connection() as connection:
                row = await (await connection.execute(LOOK, {"first": began})).fetchone()
                assert row is not None
                now, first, any_waits = row
                asked = {"first": began, "now": now, "limit": limit}
                any_due = first is not None and first <= now
                due = await (await connection.execute(DUE, asked)).fetchall() if any_due else []
                waiting = await self._waiting(connection, now, most_waiting) if any_waits else []
        except BaseException:
            self._first = ALWAYS
            raise
        if not due:
            self._first = first or NEVER
        return DueLook(now, [DueStream(*row) for row in due], waiting, None if first is None else (first - now).total_seconds())

    async def _waiting(self, connection: Connection, now: datetime, limit: int) -> list[DueStream]:
        asked = {"after": self._after, "now": now, "limit": limit}
        found = [DueStream(*row) for row in await (await connection.execute(WAITING, asked)).fetchall()]
        self._after = found[-1].stream_id if len(found) == limit else NOBODY
        return found

    async def done(self, streams: Sequence[DueStream]) -> None:
        async with self._database.connection() as connection:
            await connection.execute(DONE, [[one.stream_id for one in streams], [one.version for one in streams]])

    async def put_off(self, streams: Sequence[DueStream], seconds: float) -> None:
        parameters = [seconds, [one.stream_id for one in streams], [one.version for one in streams]]
        async with self._database.connection() as connection:
            await connection.execute(PUT_OFF, parameters)

    async def wait_for_change(self, timeout: float) -> None:
        self._asleep_until, begun = datetime.now(UTC) + timedelta(seconds=timeout), time.monotonic()
        try:
            if self._told < self._asleep_until:  # since the look
                return
            await self._listener.wait(timeout)
            if self._told == NEVER and time.monotonic() - begun < timeout:
                self._first = ALWAYS  # woken, and told nothing: the connection is a new one, and notifications may be lost
        finally:
            self._asleep_until = None

    def _matters(self, payload: str) -> bool:
        """Whether rows have come that are due before this process wakes up."""
        try:
            told = datetime.fromisoformat(payload)
        except ValueError:
            told = ALWAYS
        self._told = min(self._told, told)
        return self._asleep_until is None or told < self._asleep_until
