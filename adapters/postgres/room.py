"""Whether the disk of PostgreSQL has room. A client cannot ask for the free space, so it has PostgreSQL write a temporary file.

Such a file is in the database's tablespace, is gone with the statement and writes no WAL. Small appends may still fit into pages
that exist when the disk is full, so an append that succeeds proves nothing.
"""

import time

import psycopg
import structlog

from adapters.postgres.pool import Connections, translate_errors
from domain.errors import Unavailable

ASK_EVERY_S = 5.0
"""A full disk is noticed after at most so many seconds. While the disk is full, each call asks."""

LITTLE_MEMORY = "SET LOCAL work_mem = '64kB'"
SPILL = "SELECT count(*) FROM unnest(array_fill(repeat('x', 1000), ARRAY[1000])) AS spilled (line)"
"""The rows of a function are stored until they are read: one megabyte, which does not fit in the memory."""

log = structlog.get_logger(__name__)


class DiskIsFull(Unavailable):
    """PostgreSQL has no room left. A person has to make room; then appends are taken again by themselves."""


class Room:
    """What this process knows about the room of PostgreSQL."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._full = False
        self._ask_at = 0.0

    async def check(self) -> None:
        """Raises DiskIsFull. A database that is away may have room: other checks report the outage."""
        if not self._full and time.monotonic() < self._ask_at:
            return
        try:
            with translate_errors():
                async with self._connections.connection() as connection, connection.transaction():
                    await connection.execute(LITTLE_MEMORY)
                    await connection.execute(SPILL)
        except Unavailable as error:
            if not isinstance(error.__cause__, psycopg.errors.DiskFull):
                return
            if not self._full:  # one line, not one for each look
                log.error("disk_full", reason=error.message)
            self._full = True
            reason = error.message.removeprefix("the database is not available: ")
            raise DiskIsFull(f"the disk of PostgreSQL is full: {reason}") from error
        if self._full:
            log.info("disk_has_room_again")
        self._full, self._ask_at = False, time.monotonic() + ASK_EVERY_S
