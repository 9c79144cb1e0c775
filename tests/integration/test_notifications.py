"""The one connection on which a process listens: channels come and go, a loss concerns all of them."""

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest
import pytest_asyncio

from adapters.postgres import pool
from adapters.postgres.listener import ChannelListener, Notifications, listening
from application.engine.background import TaskEnded
from tests.integration.parts_kit import ended_before_reading, say_something
from tests.integration.system_kit import System, eventually
from tests.pace import in_time

NEVER_S = 3600.0
LISTENERS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'tidelog-listener' AND datname = current_database()"


class Told(ChannelListener):
    """Keeps what it is told."""

    def __init__(self, source: Notifications, channel: str) -> None:
        super().__init__(source, channel)
        self.payloads: list[str] = []
        self.checks = self.losses = 0

    def on_notification(self, payload: str) -> None:
        super().on_notification(payload)
        self.payloads.append(payload)

    async def check(self, connection: pool.Connection) -> None:
        self.checks += 1
        self.connection = connection

    def on_loss(self) -> None:
        self.losses += 1


@pytest_asyncio.fixture
async def other(database_url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    """A connection of another process."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest_asyncio.fixture
async def notifications(database_url: str) -> AsyncIterator[Notifications]:
    own = Notifications(database_url, check_s=NEVER_S)
    await own.start()
    yield own
    await own.close()


async def begun(notifications: Notifications, channel: str) -> Told:
    listener = Told(notifications, channel)
    await listener.start()
    await in_time(listener.listening.wait(), 10)
    await in_time(listener.wait(NEVER_S), 10)  # notifications may have been missed before
    return listener


async def tell(other: psycopg.AsyncConnection, channel: str, payload: str) -> None:
    await other.execute("SELECT pg_notify(%s, %s)", [channel, payload])


async def test_each_listener_hears_its_channel_and_all_have_one_connection(
    notifications: Notifications, other: psycopg.AsyncConnection
) -> None:
    one, two = await begun(notifications, "one"), await begun(notifications, "two")
    again = await begun(notifications, "one")
    for channel, payload in (("one", "a"), ("three", "b"), ("two", "c"), ("one", "d")):
        await tell(other, channel, payload)
    await in_time(two.wait(NEVER_S), 10)

    async def heard() -> bool:
        return one.payloads == again.payloads == ["a", "d"] and two.payloads == ["c"]

    await eventually(heard)
    assert len(await (await other.execute(LISTENERS)).fetchall()) == 1


async def test_listeners_come_and_go(notifications: Notifications, other: psycopg.AsyncConnection) -> None:
    one, same = await begun(notifications, "one"), await begun(notifications, "one")
    await same.close()
    assert not same.listening.is_set() and one.listening.is_set()
    two = await begun(notifications, "two")
    await tell(other, "one", "a")
    await in_time(one.wait(NEVER_S), 10)
    await one.close()
    three = await begun(notifications, "three")  # UNLISTEN came before
    checks = two.checks
    await tell(other, "one", "b")
    await tell(other, "three", "c")
    await in_time(three.wait(NEVER_S), 10)
    assert (one.payloads, same.payloads, three.payloads) == (["a"], [], ["c"])
    assert two.checks == checks and two.losses == 0, "nothing wakes it"


async def test_a_lost_connection_is_made_again_for_all(notifications: Notifications, other: psycopg.AsyncConnection) -> None:
    listeners = [await begun(notifications, channel) for channel in ("one", "two")]
    [(pid,)] = await (await other.execute(LISTENERS)).fetchall()
    await other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    for listener in listeners:
        await in_time(listener.wait(NEVER_S), 20)
        assert listener.losses == 1, "woken by the new connection, for what was missed"
        await in_time(listener.listening.wait(), 20)
        await tell(other, listener.channel, "again")
        await in_time(listener.wait(NEVER_S), 10)
        assert listener.payloads == ["again"]


async def test_an_end_that_comes_as_an_error_of_the_socket_is_noticed_at_once(notifications: Notifications) -> None:
    listener = await begun(notifications, "here")
    with ended_before_reading(listener.connection):
        say_something(listener.connection)
    await eventually(lambda: lost(listener))


async def lost(listener: Told) -> bool:
    return listener.losses == 1


async def test_a_listener_that_fails_costs_the_others_a_new_connection_and_nothing_more(
    notifications: Notifications, other: psycopg.AsyncConnection, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken(ChannelListener):
        def on_notification(self, payload: str) -> None:
            raise ValueError(payload)

    one, broken = await begun(notifications, "one"), Broken(notifications, "broken")
    await broken.start()
    await in_time(broken.listening.wait(), 10)
    await tell(other, "broken", "no number")
    await in_time(one.wait(NEVER_S), 20)
    assert one.losses == 1 and "listener_failed" in capsys.readouterr().out
    await in_time(one.listening.wait(), 20)
    await tell(other, "one", "a")
    await in_time(one.wait(NEVER_S), 10)
    assert one.payloads == ["a"]


async def test_an_idle_connection_is_checked(database_url: str) -> None:
    notifications = Notifications(database_url, check_s=0.05)
    await notifications.start()
    try:
        listener = Told(notifications, "one")
        await listener.start()

        async def checked() -> bool:
            return listener.checks >= 3

        await eventually(checked)
    finally:
        await notifications.close()


async def test_without_listeners_there_is_no_connection(notifications: Notifications, other: psycopg.AsyncConnection) -> None:
    await asyncio.sleep(0.05)
    assert await (await other.execute(LISTENERS)).fetchall() == []
    async with listening(notifications, "one") as listener:
        await in_time(listener.listening.wait(), 10)
        await tell(other, "one", "")
        await in_time(listener.wait(NEVER_S), 10)


async def test_the_loss_of_its_task_is_noticed(database_url: str) -> None:
    notifications = Notifications(database_url)
    listener = ChannelListener(notifications, "one")
    await notifications.start()
    await listener.start()
    await in_time(listener.listening.wait(), 10)
    [task] = [task for task in asyncio.all_tasks() if task.get_name() == "notifications"]
    task.cancel()
    for failed in (notifications.failed, listener.failed):
        with pytest.raises(TaskEnded):
            await in_time(failed(), 10)
    await notifications.close()


async def test_a_process_of_all_roles_listens_on_one_connection(system: System) -> None:
    await eventually(lambda: system.sql(LISTENERS), "a connection")  # nothing in the set-up waits for one
    await system.settled()
    assert len(await system.sql(LISTENERS)) == 1
