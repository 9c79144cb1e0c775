"""Connections to PostgreSQL: those of a process, of which a flood of requests leaves some for others.

Reads of requests have connections of their own, because they have rights of their own: see adapters/postgres/rights.py.
"""

from contextlib import AsyncExitStack
from dataclasses import dataclass

from adapters.postgres import pool as postgres
from adapters.postgres.shares import PoolShare, sizes


@dataclass(frozen=True, slots=True)
class Waits:
    """How many seconds a request waits for a connection, and how many requests may wait. Further requests are refused at once."""

    commands_s: float = 10.0
    reads_s: float = 5.0
    max_commands: int = 10_000
    max_reads: int = 5_000


@dataclass(frozen=True, slots=True)
class Pools:
    """The pools and shares of connections. Only the api role has shares, because only requests come in floods."""

    own: postgres.Pool
    """For the process's own work."""
    commands: postgres.Connections
    """A part of `own`."""
    reads: postgres.Connections
    """They see one tenant at a time, and change nothing."""
    health: postgres.Connections


async def open_pools(database_url: str, *, role: str, size: int, shares: Waits | None, stack: AsyncExitStack) -> Pools:
    """Opens the pools; `stack` closes them. `shares`: None if the process has no shares."""

    async def opened(part: str, most: int, rights: postgres.Rights = "app", least: int = 1) -> postgres.Pool:
        pool = await postgres.open_pool(database_url, role=role + part, rights=rights, min_size=least, max_size=most)
        stack.push_async_callback(pool.close)
        return pool

    if shares is None:
        pool = await opened("", size)
        return Pools(pool, pool, pool, pool)
    of_commands, of_reads = sizes(size)
    own, reads = await opened("", size - of_reads), await opened("-reads", of_reads, "reader")
    health = await opened("-health", 1, least=0)
    return Pools(
        own=own,
        commands=PoolShare(own, of_commands, timeout=shares.commands_s, max_waiting=shares.max_commands),
        reads=PoolShare(reads, of_reads, timeout=shares.reads_s, max_waiting=shares.max_reads),
        health=health,
    )
