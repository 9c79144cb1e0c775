"""Shares of a pool: each class of requests has a bounded part of the connections, so that a flood of one class harms no other."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from psycopg_pool import PoolTimeout, TooManyRequests

from adapters.postgres.pool import Connection, Connections


class Sizes(NamedTuple):
    """How many connections of a pool each class may hold at a time. The rest is for the process's own work."""

    commands: int
    reads: int


def sizes(pool_size: int) -> Sizes:
    """A quarter stays free; commands and reads each get half of the rest. Reads get at least two, because some reads hold two."""
    shared = pool_size - pool_size // 4
    commands = max(1, min(shared // 2, shared - 2))
    return Sizes(commands, shared - commands)


class PoolShare:
    """A part of a pool, for one class of requests. First come, first served. Raises the errors of the pool."""

    def __init__(self, pool: Connections, size: int, *, timeout: float, max_waiting: int) -> None:
        """`timeout`:

        seconds to wait for a connection. `max_waiting`: number of callers that may wait; the next is refused at once.
        """
        self._pool = pool
        self._size = size
        self._timeout = timeout
        self._max_waiting = max_waiting
        self._free = asyncio.Semaphore(size)
        self._waiting = 0

    @asynccontextmanager
    async def connection(self, timeout: float | None = None) -> AsyncIterator[Connection]:
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + (self._timeout if timeout is None else timeout)
        if self._free.locked():
            await self._wait(give_up_at)
        else:
            await self._free.acquire()
        try:
            async with self._pool.connection(max(give_up_at - loop.time(), 0.01)) as connection:
                yield connection
        finally:
            self._free.release()

    async def _wait(self, give_up_at: float) -> None:
        if self._waiting >= self._max_waiting:
            raise TooManyRequests(f"{self._waiting} requests wait already for one of {self._size} connections")
        self._waiting += 1
        try:
            async with asyncio.timeout_at(give_up_at):
                await self._free.acquire()
        except TimeoutError:
            raise PoolTimeout(f"none of {self._size} connections came free in time") from None
        finally:
            self._waiting -= 1
