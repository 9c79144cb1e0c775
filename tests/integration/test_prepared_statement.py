"""The writer's statement without a cursor: answers, refusals, and every way in which a connection ends."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import psycopg
import pytest
import pytest_asyncio
from psycopg.pq import ExecStatus

from adapters.postgres import pool
from adapters.postgres.log.prepared import PreparedStatement, _error_of
from tests.integration.parts_kit import ended_before_reading, say_something
from tests.integration.system_kit import eventually
from tests.pace import within

PREPARE = """
    PREPARE act (bytea) AS SELECT $1, act.done FROM (
        SELECT CASE convert_from(substr($1, 1, 5), 'UTF8')
            WHEN 'sleep' THEN pg_sleep(100)::text
            WHEN 'fails' THEN (1 / (length($1) - 5))::text
            WHEN 'later' THEN fails_later()
            ELSE 'done'
        END
    ) AS act (done)
"""
# The trigger runs when the transaction ends, after the rows of the statement were sent.
FAILS_LATER = """
    CREATE TABLE late (n integer);
    GRANT INSERT ON late TO PUBLIC;
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'the commit fails' USING ERRCODE = 'check_violation'; END $$;
    CREATE CONSTRAINT TRIGGER late AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse();
    CREATE FUNCTION fails_later() RETURNS text LANGUAGE plpgsql AS $$ BEGIN INSERT INTO late VALUES (1); RETURN 'done'; END $$;
"""
ACTIVE = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND state = 'active'"


@dataclass
class Side:
    connection: pool.Connection
    statement: PreparedStatement
    inputs: list[bool]
    """For each input without an execution: whether the connection had ended."""
    seconds: float = 300.0
    """Of one execution."""

    async def act(self, value: bytes) -> list[tuple[object, ...]]:
        return await self.statement.run([value], tuple, self.seconds)

    async def ended(self) -> bool:
        return self.statement.broken


@pytest_asyncio.fixture
async def admin(database_url: str) -> AsyncIterator[pool.Connection]:
    async with await pool.connect(database_url, role="test", rights="login") as connection:
        await connection.execute(FAILS_LATER)
        yield connection


@pytest_asyncio.fixture
async def side(database_url: str, admin: pool.Connection) -> AsyncIterator[Side]:
    connection = await pool.connect(
        database_url, role="test", statement_timeout=300.0, options={"plan_cache_mode": "force_generic_plan"}
    )
    await connection.execute(PREPARE)
    inputs: list[bool] = []
    statement = PreparedStatement(connection, b"act", 1, lambda: inputs.append(statement.broken))
    statement.watch()
    yield Side(connection, statement, inputs)
    statement.close()
    await connection.close()


async def killed(admin: pool.Connection, side: Side) -> None:
    await admin.execute("SELECT pg_terminate_backend(%s)", (side.connection.info.backend_pid,))


async def sleeping(admin: pool.Connection, side: Side) -> bool:
    row = await (await admin.execute(ACTIVE, (side.connection.info.backend_pid,))).fetchone()
    return row == (1,)


async def test_rows_come_back_also_when_both_sides_have_more_to_say_than_the_socket_holds(side: Side) -> None:
    async with within(30):
        for value in (b"small", b"x" * 8_000_000, b"small again"):
            assert await side.act(value) == [(value, "done")]


async def test_a_refused_statement_raises_the_servers_error_and_the_next_one_goes_on(side: Side) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        await side.act(b"fails")
    assert await side.act(b"hello") == [(b"hello", "done")]


async def test_a_commit_that_fails_after_the_rows_were_sent_is_no_success(side: Side, admin: pool.Connection) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match="the commit fails"):
        await side.act(b"later")
    assert await side.act(b"hello") == [(b"hello", "done")]
    assert await (await admin.execute("SELECT count(*) FROM late")).fetchone() == (0,)


async def test_a_connection_that_ends_under_way_is_an_error_that_may_be_tried_again(side: Side, admin: pool.Connection) -> None:
    acting = asyncio.create_task(side.act(b"sleep"))
    await eventually(lambda: sleeping(admin, side))
    await killed(admin, side)
    with pytest.raises(psycopg.Error) as caught:
        await acting
    assert pool.is_transient(caught.value)
    with pytest.raises(psycopg.Error) as caught:
        await side.act(b"hello")
    assert pool.is_transient(caught.value)


@pytest.mark.parametrize("size", [100_000, 8_000_000], ids=["reading", "writing, too"])
async def test_an_end_that_comes_as_an_error_of_the_socket_is_noticed(side: Side, size: int) -> None:
    with ended_before_reading(side.connection):
        acting = asyncio.create_task(side.act(b"x" * size))
        await asyncio.sleep(0)  # the statement is sent, or the socket is full
    async with within(10):
        with pytest.raises(psycopg.Error) as caught:
            await acting
    assert pool.is_transient(caught.value)
    assert side.statement.broken


async def test_an_end_that_comes_as_an_error_of_the_socket_is_noticed_without_a_statement(side: Side) -> None:
    with ended_before_reading(side.connection):
        say_something(side.connection)
    await eventually(side.ended)
    assert side.inputs[-1] is True


async def test_a_server_that_is_silent_until_the_deadline_is_given_up(side: Side) -> None:
    side.seconds = 0.2
    async with within(10):
        with pytest.raises(psycopg.OperationalError) as caught:
            await side.act(b"sleep")
    assert pool.is_transient(caught.value)
    assert side.statement.broken
    with pytest.raises(psycopg.OperationalError):
        await side.act(b"hello")


async def test_the_end_of_an_idle_connection_is_noticed(side: Side, admin: pool.Connection) -> None:
    await killed(admin, side)
    await eventually(side.ended)
    assert side.inputs[-1] is True
    with pytest.raises(psycopg.OperationalError):
        await side.act(b"hello")


async def test_notifications_reach_an_idle_connection_also_after_the_driver_had_it(side: Side, admin: pool.Connection) -> None:
    with side.statement.aside():
        await side.connection.execute("LISTEN anything")
    assert await side.act(b"hello") == [(b"hello", "done")]
    await admin.execute("NOTIFY anything, 'told'")

    async def notified() -> psycopg.pq.PGnotify | None:  # the first input may be something else
        return side.connection.pgconn.notifies() if side.inputs else None

    assert (await eventually(notified, "the notification")).extra == b"told"


async def test_a_cancelled_statement_is_ended_at_the_server(side: Side, admin: pool.Connection) -> None:
    acting = asyncio.create_task(side.act(b"sleep"))
    await eventually(lambda: sleeping(admin, side))
    acting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await acting

    async def ended() -> bool:
        return not await sleeping(admin, side)

    await eventually(ended)


async def test_an_error_without_a_state_is_the_end_of_the_connection(side: Side) -> None:
    result = side.connection.pgconn.make_empty_result(ExecStatus.FATAL_ERROR)
    assert pool.is_transient(_error_of(result))
