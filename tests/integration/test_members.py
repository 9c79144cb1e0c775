"""Every process is a member, with its release and what it can read, whether it shares the engine's work or not."""

import asyncio
from importlib.metadata import version
from typing import Any

import psycopg
import pytest

from adapters.nats import FORMATS
from adapters.postgres.leases import formats_of_all
from adapters.postgres.pool import open_pool
from api.assembly import assemble
from api.settings import Role, Settings
from domain.registry import REGISTRY
from tests.integration.system_kit import eventually, running, stopped
from tests.pace import within

EVENTS = {f"{topic}/v{number}" for topic, number in REGISTRY.shapes()}
RELEASE = version("tidelog-server")


async def test_the_api_alone_is_a_member_without_units(database_url: str, nats_url: str) -> None:
    async with running(database_url, nats_url, roles=[], loops=[]) as system:
        query = "SELECT groups, release, formats, lease_seconds, event_versions FROM member"
        [row] = await eventually(lambda: system.sql(query))
        assert row[:3] == ([], RELEASE, [*FORMATS]) and set(row[4]) == EVENTS
        assert row[3] == 30, "it beats seldom"

        async def in_the_report() -> list[dict[str, Any]]:
            return (await system.http.get("/health/ready")).json().get("members", [])  # left out where a look takes two seconds

        [shown] = await eventually(in_the_report)
        assert (shown["alive"], shown["units"], shown["release"], shown["formats"]) == (True, [], RELEASE, [*FORMATS])


@pytest.mark.parametrize(("role", "events"), [("relay", {"*"}), ("projector", EVENTS), ("saga", EVENTS)])
async def test_each_role_says_what_it_reads(database_url: str, nats_url: str, role: Role, events: set[str]) -> None:
    async with assemble(Settings.model_validate({"database_url": database_url, "nats_url": nats_url}), [role]) as assembly:
        for name, loop in assembly.loops.items():
            if name != "sharing":
                loop.close()
        beating = asyncio.create_task(assembly.loops["sharing"])
        try:
            assert assembly.joined is not None
            async with within(15):
                await assembly.joined.wait()
            async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
                cursor = await connection.execute("SELECT release, formats, event_versions FROM member")
                [(release, formats, reads)] = await cursor.fetchall()
        finally:
            await stopped(beating)
    assert (release, formats, set(reads)) == (RELEASE, [*FORMATS], events)


async def test_the_oldest_live_process_says_what_may_be_written(database_url: str) -> None:
    """A process that does not say what it reads reads format 1. So does one that is not seen yet after a start of PostgreSQL."""

    pool = await open_pool(database_url, role="test", max_size=2)

    async def member(formats: list[int] | None, alive: str = "1 hour") -> None:
        async with pool.connection() as connection:
            await connection.execute(
                "INSERT INTO member (member_id, place, groups, joined_at, alive_until, lease_seconds, formats) VALUES "
                "(gen_random_uuid(), 'here', '{}', now(), now() + %s::interval, 3600, %s)",
                (alive, formats),
            )

    assert await formats_of_all(pool, 0) == {1}, "nobody is known"
    await member([1, 2])
    await member([1, 2, 3])
    assert await formats_of_all(pool, 0) == {1, 2}
    await member(None, "-5 seconds")
    assert await formats_of_all(pool, 0) == {1, 2}, "a process that is gone"
    await member(None)
    assert await formats_of_all(pool, 0) == {1}
    await pool.close()
