"""Connections to PostgreSQL: one pool for a process, with shares, so that a flood of requests leaves connections for others."""

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
    """All connections, for the process's own work."""
    commands: postgres.Connections
    reads: postgres.Connections
    health: postgres.Connections


async def open_pools(database_url: str, *, role: str, size: int, shares: Waits | None, stack: AsyncExitStack) -> Pools:
    """Opens the pools; `stack` closes them. `shares`: None if the process has no shares."""
    pool = await postgres.open_pool(database_url, role=role, max_size=size)
    stack.push_async_callback(pool.close)
    if shares is None:
        return Pools(pool, pool, pool, pool)
    health = await postgres.open_pool(database_url, role=f"{role}-health", min_size=0, max_size=1)
    stack.push_async_callback(health.close)
    commands, reads = sizes(size)
    return Pools(
        own=pool,
        commands=PoolShare(pool, commands, timeout=shares.commands_s, max_waiting=shares.max_commands),
        reads=PoolShare(pool, reads, timeout=shares.reads_s, max_waiting=shares.max_reads),
        health=health,
    )
