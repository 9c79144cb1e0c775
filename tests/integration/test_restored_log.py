"""A log that was restored under a running server: no reader misses an event of the log, or keeps an event that the log has lost."""

import asyncio
import re
from collections.abc import AsyncIterator

import psycopg
import pytest
import pytest_asyncio

from adapters.nats.names import StreamOwner, owner_of, work_stream
from adapters.postgres.log.identity import log_id_of
from adapters.postgres.pool import open_pool
from api.assembly.upkeep import begin_history
from domain.errors import Unavailable
from domain.projects import CreateProject
from domain.tenants import DEFAULT_TENANT_ID
from tests.integration.nats_kit import NatsProcess, connected, open_log
from tests.integration.restore_kit import (
    Kept,
    Restorable,
    as_a_browser,
    as_a_poller,
    ended,
    from_the_fan_out,
    restorable,
    with_the_sdk,
)
from tests.integration.system_kit import System, eventually, issue_key, new_id, request_of, running, served


@pytest_asyncio.fixture
async def postgres() -> AsyncIterator[Restorable]:
    async with restorable() as server:
        yield server


async def create_projects(system: System, count: int) -> None:
    for _ in range(count):
        command_id, command = new_id(), CreateProject(project_id=new_id(), name="p")

        async def recorded() -> bool:
            try:
                await system.container.commands.execute(request_of(command_id=command_id), command)  # noqa: B023  # called in this turn
            except Unavailable:
                return False
            return True

        await eventually(recorded, "a command", 30)


async def log_of(system: System) -> list[tuple[int, str]]:
    events = await system.container.feed.read_tenant(DEFAULT_TENANT_ID, after=0, limit=10_000)
    return [(event.position, event.name) for event in events]


async def histories(system: System) -> list[tuple[str, int]]:
    return [(each.cause, each.last_common) for each in (await system.container.histories.fresh()).histories.all]


async def have_all(system: System, *readers: Kept) -> None:
    log = await log_of(system)
    for reader in readers:

        async def has_all(reader: Kept = reader) -> bool:
            return reader.events == log

        await eventually(has_all, f"{reader.name}: {reader.position} of {log[-1][0]}, resets {reader.resets}", 45)


@pytest.mark.parametrize("new_timeline", [False, True])
async def test_every_reader_has_the_restored_log(postgres: Restorable, nats: NatsProcess, new_timeline: bool) -> None:
    browser, late, poller, sdk, subscriber = readers = [Kept(n) for n in ("browser", "late", "poller", "SDK", "subscriber")]
    async with running(postgres.url, nats.url, fanout=True) as system, served(system.container) as url, connected(nats.url) as eyes:
        await issue_key(system)
        stream = f"TIDELOG_EVENTS_{await log_id(postgres)}"
        tasks = [
            asyncio.create_task(as_a_browser(url, system.key, browser)),
            asyncio.create_task(as_a_poller(url, system.key, poller)),
            asyncio.create_task(with_the_sdk(url, system.key, sdk)),
            asyncio.create_task(from_the_fan_out(eyes, stream, url, system.key, subscriber)),
        ]
        try:
            await create_projects(system, 30)
            await have_all(system, browser, poller, sdk, subscriber)
            await system.container.histories.check()  # the mark, which is otherwise moved every half minute
            kept = await system.settled()
            await postgres.back_up()
            await create_projects(system, 25)
            await have_all(system, browser, poller, sdk, subscriber)
            await system.copied()
            late.events, last = list(browser.events), (await system.container.histories.fresh()).histories.current.cursor(kept + 25)
            await postgres.restore(new_timeline=new_timeline)
            await create_projects(system, 45)  # beyond the old end of the log
            await have_all(system, browser, poller, sdk, subscriber)
            tasks.append(asyncio.create_task(as_a_browser(url, system.key, late, last)))
            await have_all(system, *readers)
        finally:
            await ended(*tasks)
        assert [reader.resets for reader in readers] == [[kept]] * 5, "from the last event in common on, and once"
        begun = await histories(system)
        assert len(begun) == 2 and begun[1][1] == kept, begun
        head = await system.settled()
        assert head == kept + 45
        for name, position in (await system.container.streams()).items():
            assert position == head, name


async def test_a_server_waits_for_a_database_in_recovery(postgres: Restorable, nats: NatsProcess) -> None:
    """PostgreSQL answers readers while it recovers, but neither writes nor shows its unlogged tables."""
    async with running(postgres.url, nats.url, fanout=True) as system:
        await issue_key(system)
        await create_projects(system, 3)
        await system.settled()
        await postgres.back_up()
        await postgres.restore(new_timeline=True, archive_s=1.5)

        async def recovered() -> bool:
            try:
                return (await system.sql("SELECT pg_is_in_recovery()"))[0][0] is False
            except psycopg.OperationalError:
                return False

        await eventually(recovered, "the end of the recovery")
        await create_projects(system, 3)
        await system.settled()


async def test_a_recovery_is_seen_by_its_timeline_and_a_copy_of_the_files_by_the_operator(postgres: Restorable) -> None:
    """There is no copy in NATS and no process that was running: only the marks that the log had noted before are certain."""
    async with open_log(postgres.url) as log:
        await log.append(20)
        await log.histories.check()
        await log.append(5)
    await postgres.back_up()
    async with open_log(postgres.url) as log:
        await log.append(10)
        await log.histories.check()
    await postgres.restore()
    async with open_log(postgres.url) as log:
        await log.append(15)
        await log.histories.check()
        assert len((await log.histories.fresh()).histories.all) == 1, "nothing tells it from a start"
        _, now = await log.histories.restored("a copy of the files")
        assert now.last_common == 20
    await postgres.restore(new_timeline=True)
    async with open_log(postgres.url) as log:
        await log.append(15)
        await log.histories.check()
        now = (await log.histories.fresh()).histories.current
        assert (now.cause, now.last_common) == ("server", 20) and "timeline 00000001 and is on 00000002" in now.reason


async def test_a_copy_of_the_files_gets_an_id_of_its_own(postgres: Restorable) -> None:
    """The copy lives beside its original, maybe on the same NATS, whose streams and subjects carry the log's id."""
    async with open_log(postgres.url) as log:
        await log.append(20)
        await log.histories.check()
    original = await log_id(postgres)
    await postgres.back_up()
    await postgres.restore()
    assert await log_id(postgres) == original, "files alone do not tell a copy"
    _, now, head = await begin_history(postgres.url, "a drill", None, copy=True)
    copy = await log_id(postgres)
    assert re.fullmatch(rf"{original}-[0-9a-f]{{8}}", copy) and (now.last_common, head) == (20, 20)
    async with open_log(postgres.url) as log:
        await log.append(5)
        await log.histories.check()
        assert (await log.histories.fresh()).histories.current == now, "the new id alone is no other history"
    assert owner_of(work_stream(copy)) == StreamOwner("work queue", copy)
    await begin_history(postgres.url, "a copy of the copy", None, copy=True)
    assert await log_id(postgres) not in (original, copy)


async def log_id(postgres: Restorable) -> str:
    pool = await open_pool(postgres.url, role="test", max_size=1)
    try:
        return await log_id_of(pool)
    finally:
        await pool.close()
