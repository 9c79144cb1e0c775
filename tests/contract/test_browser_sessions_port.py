"""What the ports `BrowserSessions` and `SessionEndings` promise; in memory and on PostgreSQL."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest

from adapters.postgres.browser_sessions import PostgresBrowserSessions, PostgresSessionEndings
from adapters.postgres.database import PostgresDatabase
from adapters.postgres.listener import Notifications
from adapters.postgres.pool import Pool
from application.engine.ports.browser_sessions import BrowserSessions, SessionEndings, SignedBy
from tests.integration.system_kit import eventually, new_id
from tests.kit.memory import ManualClock, MemoryBrowserSessions

BY = SignedBy(new_id(), new_id(), "k" * 64)
OTHER = SignedBy(new_id(), new_id(), "o" * 64)


class MemorySide:
    def __init__(self) -> None:
        self._clock = ManualClock()
        self.sessions: BrowserSessions = (memory := MemoryBrowserSessions(self._clock))
        self._memory = memory

    async def passes(self, seconds: float) -> None:
        self._clock.advance(seconds)

    @asynccontextmanager
    async def endings(self) -> AsyncIterator[SessionEndings]:
        yield self._memory


class PostgresSide:
    def __init__(self, pool: Pool, database_url: str) -> None:
        self._pool, self._url = pool, database_url
        self.sessions: BrowserSessions = PostgresBrowserSessions(PostgresDatabase(pool))

    async def passes(self, seconds: float) -> None:
        async with self._pool.connection() as connection:
            for table in (b"browser_session", b"sign_in_link"):
                moved = b"UPDATE %s SET ends_at = ends_at - make_interval(secs => %%s)" % table
                await connection.execute(moved, [seconds])

    @asynccontextmanager
    async def endings(self) -> AsyncIterator[SessionEndings]:
        notifications = Notifications(self._url)
        await notifications.start()
        own = PostgresSessionEndings(notifications)
        yield own
        await own.close()
        await notifications.close()


Side = MemorySide | PostgresSide


@pytest.fixture(params=["memory", "postgres"])
def side(request: pytest.FixtureRequest) -> Side:
    if request.param == "memory":
        return MemorySide()
    return PostgresSide(request.getfixturevalue("pool"), request.getfixturevalue("database_url"))


async def test_a_session_is_found_until_it_ends(side: Side) -> None:
    session_id = new_id()
    made = await side.sessions.begin("a", session_id, BY, life_s=60, most=3)
    assert (made.session_id, made.by, made.left_s) == (session_id, BY, 60)
    assert (made.ends_at - made.made_at).total_seconds() == 60
    found = await side.sessions.find(["a", "b"])
    assert found.keys() == {"a"} and found["a"][:4] == made[:4] and 50 < found["a"].left_s <= 60
    await side.sessions.end(OTHER.tenant_id, session_id)
    assert await side.sessions.find(["a"]), "of another tenant"
    await side.passes(60)
    assert await side.sessions.find(["a"]) == {}
    assert (await side.sessions.expire(), await side.sessions.expire()) == (1, 0)


async def test_the_newest_sessions_and_links_of_a_key_stay(side: Side) -> None:
    await side.sessions.begin("other", new_id(), OTHER, life_s=60, most=2)
    await side.sessions.make_link("of other", OTHER, life_s=60, most=2)
    for token in ("a", "b", "c", "d"):
        await side.sessions.begin(token, new_id(), BY, life_s=60, most=2)
        await side.sessions.make_link(f"link {token}", BY, life_s=60, most=2)
    assert (await side.sessions.find(["a", "b", "c", "d", "other"])).keys() == {"c", "d", "other"}
    links = [await side.sessions.take_link(f"link {token}") for token in "abcd"]
    assert links == [None, None, BY, BY] and await side.sessions.take_link("of other") == OTHER


async def test_a_link_is_taken_once_and_in_time(side: Side) -> None:
    ends_at = await side.sessions.make_link("a", BY, life_s=60, most=3)
    assert ends_at.tzinfo is not None
    assert [await side.sessions.take_link("a") for _ in range(2)] == [BY, None]
    await side.sessions.make_link("b", BY, life_s=60, most=3)
    await side.passes(60)
    assert await side.sessions.expire() == 1 and await side.sessions.take_link("b") is None
    await side.sessions.make_link("c", BY, life_s=60, most=3)
    await side.passes(60)
    assert await side.sessions.take_link("c") is None, "though it is still there"


async def test_each_end_before_its_time_is_told(side: Side) -> None:
    told: list[UUID] = []
    async with side.endings() as endings:
        other: list[UUID] = []
        await endings.listen(told.append, lambda: None)
        unlisten = await endings.listen(other.append, lambda: None)

        async def listens() -> bool:
            return endings.told

        await eventually(listens, "a process that listens")
        one, two, three = new_id(), new_id(), new_id()
        await side.sessions.begin("one", one, BY, life_s=60, most=2)
        await side.sessions.begin("two", two, BY, life_s=60, most=2)
        await side.sessions.begin("three", three, BY, life_s=60, most=2)
        await side.sessions.end(BY.tenant_id, new_id())
        await side.sessions.end(BY.tenant_id, three)

        async def heard() -> bool:
            return told == [one, three]

        await eventually(heard, "both ends")
        assert other == told
        unlisten()
        await side.sessions.end(BY.tenant_id, two)

        async def heard_again() -> bool:
            return told == [one, three, two]

        await eventually(heard_again, "the third end")
        assert other == [one, three]
