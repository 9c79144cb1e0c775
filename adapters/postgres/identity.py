"""Which log this is: a short id that tells the logs of two databases apart on one NATS."""

from adapters.postgres.pool import Pool, translate_errors

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
