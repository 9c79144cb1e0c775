"""What the ports `RecordedCommands` and `UpkeepRuns` promise; in memory and on PostgreSQL."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import Protocol

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from uuid_utils.compat import uuid7

from adapters.embedded import EmbeddedServices
from adapters.postgres import upkeep
from adapters.postgres.database import PostgresDatabase
from adapters.postgres.pool import Connection, Pool
from adapters.postgres.upkeep import PostgresRecordedCommands, PostgresUpkeepRuns
from application.engine.ports.log import AppendRequest, NewEvent, StreamAppend, StreamHead, one_command
from application.engine.ports.upkeep import RecordedCommands, UpkeepRun, UpkeepRuns
from tests.contract.conftest import LogSide, MemoryLogSide, PostgresLogSide
from tests.kit.memory import MemoryRecordedCommands, MemoryUpkeepRuns

DAY_S = 86_400.0
EVENT = NewEvent("thing.happened", 1, b"{}")


class UpkeepSide(Protocol):
    log: LogSide
    commands: RecordedCommands
    runs: UpkeepRuns

    async def pass_time(self, seconds: float) -> None:
        """For recorded commands and for the record of the chores."""
        ...


class MemorySide:
    def __init__(self, log: MemoryLogSide) -> None:
        self.log = log
        self.commands = MemoryRecordedCommands(log.log, log.checkpoints)
        self.runs = MemoryUpkeepRuns(log.log)

    async def pass_time(self, seconds: float) -> None:
        self.log.clock.advance(seconds)


class PostgresSide:
    """Time passes by moving the times of the rows back."""

    def __init__(self, log: PostgresLogSide, pool: Pool) -> None:
        self.log = log
        self.commands, self.runs = PostgresRecordedCommands(PostgresDatabase(pool)), PostgresUpkeepRuns(PostgresDatabase(pool))

    async def pass_time(self, seconds: float) -> None:
        for table, column in (("command", "recorded_at"), ("upkeep", "ended_at"), ("upkeep", "succeeded_at")):
            await self.log.sql(f"UPDATE {table} SET {column} = {column} - make_interval(secs => %s)", seconds)


@pytest.fixture
def memory_upkeep(memory_log: MemoryLogSide) -> MemorySide:
    return MemorySide(memory_log)


@pytest.fixture
def postgres_upkeep(postgres_log: PostgresLogSide, pool: Pool) -> PostgresSide:
    return PostgresSide(postgres_log, pool)


@pytest.fixture(params=["memory", "postgres"])
def side(request: pytest.FixtureRequest) -> UpkeepSide:
    found: UpkeepSide = request.getfixturevalue(f"{request.param}_upkeep")
    return found


TENANT = uuid7()


async def append(side: UpkeepSide, events: int = 1) -> tuple[AppendRequest, int]:
    """The command, and the position of its last event."""
    stream = uuid7()
    request = one_command(TENANT, uuid7(), (StreamAppend(stream, stream, 0, (EVENT,) * events),), "{}")
    return request, (await side.log.store.append(request)).last_position


async def prune(side: UpkeepSide, *consumers: str, older_than_s: float = 30 * DAY_S) -> int:
    return await side.commands.prune(older_than_s=older_than_s, consumers=consumers, parking=("sagas", *consumers))


async def move(side: UpkeepSide, name: str, position: int) -> None:
    await side.log.checkpoints.advance(await side.log.checkpoints.take([name]), position)


async def known(side: UpkeepSide, request: AppendRequest) -> bool:
    return await side.log.store.find_command(TENANT, request.commands[0].command_id) is not None


async def test_old_rows_below_the_lowest_checkpoint_go(side: UpkeepSide) -> None:
    first, _ = await append(side, 2)
    second, at_second = await append(side)
    third, _ = await append(side)
    await side.pass_time(31 * DAY_S)
    young, head = await append(side)
    await move(side, "a", head)
    await move(side, "b", at_second)
    assert await prune(side, "a", "b") == 2
    assert [await known(side, each) for each in (first, second, third, young)] == [False, False, True, True]
    assert await prune(side, "a", "b") == 0
    await move(side, "b", head)
    assert await prune(side, "a", "b") == 1
    assert [await known(side, each) for each in (third, young)] == [False, True]


async def test_nothing_goes_before_each_consumer_has_a_position(side: UpkeepSide) -> None:
    _, head = await append(side)
    await side.pass_time(31 * DAY_S)
    await append(side)
    await move(side, "a", head)
    assert await prune(side, "a", "b") == 0
    await move(side, "b", head)
    assert await prune(side, "a", "b") == 1


async def test_a_parked_event_keeps_the_rows_after_it(side: UpkeepSide) -> None:
    first, _ = await append(side)
    parked, _ = await append(side)
    after, _ = await append(side)
    await side.pass_time(31 * DAY_S)
    _, head = await append(side)
    await move(side, "a", head)
    [event] = await side.log.feed.at([2])
    await side.log.checkpoints.park("sagas", event, "broken")
    [of_a_read_model] = await side.log.feed.at([1])
    await side.log.checkpoints.park("runs", of_a_read_model, "broken")
    assert await prune(side, "a") == 2
    assert [await known(side, each) for each in (first, parked, after)] == [False, False, True]


async def test_a_log_that_rests_loses_nothing(side: UpkeepSide) -> None:
    """Age counts up to the newest event: a clock that jumps ahead does not make everything old."""
    _, head = await append(side)
    await move(side, "a", head)
    await side.pass_time(1)
    if isinstance(side, MemorySide):
        await side.pass_time(365 * DAY_S)
    assert await prune(side, "a", older_than_s=DAY_S) == 0


async def test_an_empty_log_has_nothing_to_prune(side: UpkeepSide) -> None:
    assert await prune(side, "a") == 0


async def test_a_command_that_was_pruned_is_recorded_again(side: UpkeepSide) -> None:
    """From then on only the rules of the slices tell a repeat."""
    request, _ = await append(side)
    assert (await side.log.store.append(request)).duplicate
    await side.pass_time(31 * DAY_S)
    _, head = await append(side)
    await move(side, "a", head)
    assert await prune(side, "a") == 1
    stream = uuid7()
    again = request._replace(streams=(StreamHead(stream, stream, 0),))
    assert not (await side.log.store.append(again)).duplicate


async def test_a_large_table_is_pruned_in_portions(
    postgres_upkeep: PostgresSide, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "BLOCKS", 2)
    monkeypatch.setattr(upkeep, "PAUSE_S", 0.0)
    side = postgres_upkeep
    _, head = await append(side)
    await move(side, "a", head)
    await side.log.sql(
        """INSERT INTO command SELECT gen_random_uuid(), gen_random_uuid(), 1, now() - make_interval(days => 60 - i / 20), 1
           FROM generate_series(1, 1000) AS i"""
    )
    [(blocks,)] = await side.log.sql("SELECT pg_relation_size('command') / 8192")
    assert blocks > 4
    async with pool.connection() as connection:
        part = {"first": 2, "end": 4, "before": datetime.now(UTC), "bound": 1}
        plan = await (await connection.execute("EXPLAIN " + upkeep.PRUNE, part)).fetchall()
    assert "Tid Range Scan" in str(plan), "a statement reads its own blocks only"
    assert await prune(side, "a") == 599
    [(left,)] = await side.log.sql("SELECT count(*) FROM command WHERE recorded_at < now() - interval '30 days 1 hour'")
    assert left == 0


class AsRole:
    """A database whose connections have the rights of one role."""

    def __init__(self, pool: Pool, role: str) -> None:
        self._pool, self._role = pool, role

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        async with self._pool.connection() as connection:
            await connection.execute("SELECT set_config('role', %s, false)", [self._role])
            try:
                yield connection
            finally:
                await connection.execute("RESET ROLE")

    def transaction(self) -> AbstractAsyncContextManager[Connection]:
        raise NotImplementedError


async def test_a_role_that_may_not_touch_the_log_can_do_it(
    postgres_upkeep: PostgresSide, pool: Pool, services: EmbeddedServices
) -> None:
    """With the rights that the migrations name."""
    side, role = postgres_upkeep, f"app_{uuid7().hex}"
    _, head = await append(side)
    await side.pass_time(31 * DAY_S)
    await append(side)
    await move(side, "a", head)
    database = conninfo_to_dict(side.log.database_url)
    admin = make_conninfo(services.admin_database_url, dbname=database["dbname"])
    async with await psycopg.AsyncConnection.connect(admin, autocommit=True) as superuser:
        await superuser.execute(f"CREATE ROLE {role}; GRANT {role} TO {database['user']}".encode())
        try:
            await superuser.execute(
                f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}; GRANT DELETE ON command, idempotency_key TO {role};"
                f"GRANT INSERT, UPDATE ON upkeep TO {role}".encode()
            )
            limited = AsRole(pool, role)
            assert await PostgresRecordedCommands(limited).prune(older_than_s=30 * DAY_S, consumers=["a"], parking=["a"]) == 1
            await PostgresUpkeepRuns(limited).record(UpkeepRun("commands", 60, 1, 1))
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                async with limited.connection() as connection:
                    await connection.execute("DELETE FROM event")
        finally:
            await superuser.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


# --- the record of the chores ---------------------------------------------------------------------------------------------


async def test_each_chore_has_its_last_run(side: UpkeepSide) -> None:
    assert await side.runs.states() == []
    await side.runs.record(UpkeepRun("keys", 3_600, 0.5, 3))
    await side.runs.record(UpkeepRun("commands", 60, 1.5, 7))
    await side.pass_time(100)
    commands, keys = await side.runs.states()
    assert (keys.name, keys.every_s, keys.seconds, keys.removed, keys.removed_in_all, keys.error) == (
        "keys",
        3_600,
        0.5,
        3,
        3,
        None,
    )
    assert (commands.name, commands.age_s) == ("commands", pytest.approx(100, abs=20))
    assert commands.success_age_s == pytest.approx(100, abs=20)


async def test_a_failure_keeps_the_time_of_the_last_success(side: UpkeepSide) -> None:
    await side.runs.record(UpkeepRun("commands", 60, 1, 7))
    await side.pass_time(1_000)
    await side.runs.record(UpkeepRun("commands", 60, 1, 0, "TypeError: no\x00"))
    [state] = await side.runs.states()
    assert (state.removed, state.removed_in_all) == (0, 7) and state.error is not None and state.error.startswith("TypeError: no")
    assert state.age_s == pytest.approx(0, abs=20) and state.success_age_s == pytest.approx(1_000, abs=20)
    await side.runs.record(UpkeepRun("never", 60, 1, 0, "TypeError"))
    assert [each.success_age_s for each in await side.runs.states() if each.name == "never"] == [None]
