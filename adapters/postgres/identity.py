"""Which log this is: a short id that tells the logs of two databases apart on one NATS."""

import asyncio

from adapters.postgres.pool import Pool, open_pool, translate_errors
from domain.errors import Unavailable

SQL = """
SELECT to_hex(system_identifier) || '-' || (SELECT oid FROM pg_database WHERE datname = current_database())
FROM pg_control_system()
"""


async def log_id_of(pool: Pool) -> str:
    """`<cluster>-<database>`: the same after a failover to a replica, another one after a restore by dump. Raises Unavailable."""
    with translate_errors():
        async with pool.connection() as connection:
            row = await (await connection.execute(SQL)).fetchone()
    assert row is not None
    return str(row[0])


async def log_id_at(database_url: str, *, timeout: float) -> str:
    """The same for a program that needs nothing else of the database. Raises Unavailable, at the latest after `timeout` seconds."""
    pool = await open_pool(database_url, role="identity", max_size=1)
    try:
        async with asyncio.timeout(timeout):
            return await log_id_of(pool)
    except TimeoutError:
        raise Unavailable(f"the database does not say within {timeout:g} s which log it holds") from None
    finally:
        await pool.close()
