"""The id of the log: a short text that tells the logs of two databases apart on one NATS."""

import asyncio
from typing import Any

from psycopg import AsyncConnection

from adapters.postgres.pool import Pool, open_pool, translate_errors
from domain.errors import Unavailable

DATABASE = """
SELECT to_hex(system_identifier) || '-' || (SELECT oid FROM pg_database WHERE datname = current_database()),
    to_regclass('log_identity') IS NOT NULL
FROM pg_control_system()
"""
COPY = "SELECT copy_id FROM log_identity"
BECOME_A_COPY = "UPDATE log_identity SET copy_id = substr(replace(gen_random_uuid()::text, '-', ''), 1, 8)"


async def identify(connection: AsyncConnection[Any]) -> str:
    """`<cluster>-<database>`, and `-<copy>` where an operator said that the log is a copy of another one.

    The id stays the same after a failover to a replica, and changes with a restore from a dump. A database without our tables has
    one, too. Raises psycopg.Error.
    """
    row = await (await connection.execute(DATABASE)).fetchone()
    assert row is not None
    log_id, has_tables = row
    copy = await (await connection.execute(COPY)).fetchone() if has_tables else None
    return f"{log_id}-{copy[0]}" if copy is not None and copy[0] is not None else str(log_id)


async def become_a_copy(pool: Pool) -> None:
    """Gives the log an id of its own. A copy of the files begins with the id of the original. Raises Unavailable."""
    with translate_errors():
        async with pool.connection() as connection:
            await connection.execute(BECOME_A_COPY)


async def log_id_of(pool: Pool) -> str:
    """As `identify`. Raises Unavailable."""
    with translate_errors():
        async with pool.connection() as connection:
            return await identify(connection)


async def log_id_at(database_url: str, *, timeout: float) -> str:
    """As `log_id_of`, for a program that needs nothing else from the database.

    Raises Unavailable, at the latest after `timeout` seconds.
    """
    pool = await open_pool(database_url, role="identity", max_size=1)
    try:
        async with asyncio.timeout(timeout):
            return await log_id_of(pool)
    except TimeoutError:
        raise Unavailable(f"the database does not say within {timeout:g} s which log it holds") from None
    finally:
        await pool.close()
