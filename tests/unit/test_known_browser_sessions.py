"""What a process remembers of sessions: without a query, and no longer than their ends are told."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

import pytest
import pytest_asyncio

from api.http.conventions import browser_sessions, look_ups
from api.http.conventions.browser_sessions import KnownSessions
from application.engine.ports.browser_sessions import BrowserSession, SignedBy
from domain.errors import Unauthenticated, Unavailable
from tests.integration.system_kit import eventually, new_id
from tests.kit.memory import ManualClock, MemoryBrowserSessions

BY = SignedBy(new_id(), new_id(), "k" * 64)
TOKEN = b"a token"
DIGEST = sha256(TOKEN).hexdigest()


class Store(MemoryBrowserSessions):
    """Counts, and does something in the middle of a look-up."""

    def __init__(self) -> None:
        super().__init__(ManualClock())
        self.asked = 0
        self.meanwhile: Callable[[], Any] | None = None
        self.away = False

    async def find(self, token_sha256s: Sequence[str]) -> Mapping[str, BrowserSession]:
        self.asked += 1
        if self.away:
            raise Unavailable("away")
        found = await super().find(token_sha256s)
        if self.meanwhile is not None:
            await self.meanwhile()
        return found


@pytest.fixture
def store() -> Store:
    return Store()


@pytest_asyncio.fixture
async def known(store: Store, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KnownSessions]:
    monkeypatch.setattr(look_ups, "PACE_S", 0.0)
    await store.begin(DIGEST, new_id(), BY, life_s=60, most=9)
    sessions = KnownSessions(store, store)
    yield sessions
    await sessions.close()


async def test_a_known_session_costs_no_query_and_ends_when_its_end_is_told(store: Store, known: KnownSessions) -> None:
    for _ in range(3):
        session, digest = await known.session(TOKEN)
        assert (session.by, digest, store.asked) == (BY, DIGEST, 1)
    await store.end(BY.tenant_id, session.session_id)
    with pytest.raises(Unauthenticated):
        await known.session(TOKEN)
    assert store.asked == 2


async def test_an_end_that_is_not_told_counts_after_a_moment(
    store: Store, known: KnownSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.told = False
    session, _ = await known.session(TOKEN)
    await known.session(TOKEN)
    assert store.asked == 1, "within the moment"
    await store.end(BY.tenant_id, session.session_id)
    monkeypatch.setattr(browser_sessions, "FRESH_S", 0.0)
    with pytest.raises(Unauthenticated):
        await known.session(TOKEN)


async def test_an_end_in_the_middle_of_a_look_up_counts(store: Store, known: KnownSessions) -> None:
    async def end() -> None:
        for session in list(store._sessions.values()):
            await store.end(BY.tenant_id, session.session_id)

    store.meanwhile = end
    with pytest.raises(Unauthenticated):
        await known.session(TOKEN)


async def test_after_a_gap_nothing_is_taken_for_known_and_what_is_held_is_looked_up(
    store: Store, known: KnownSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []
    session, _ = await known.session(TOKEN)
    other = sha256(b"other").hexdigest()
    await store.begin(other, new_id(), BY, life_s=60, most=9)
    await known.session(b"other")
    release = known.hold(DIGEST, lambda: ended.append("held"))
    store.told = False  # the gap
    await store.end(BY.tenant_id, session.session_id)
    store.away, asked = True, store.asked
    store.lose()

    async def tried() -> bool:
        return store.asked > asked

    await eventually(tried, "a look-up while the store is away")
    assert ended == []
    monkeypatch.setattr(browser_sessions, "FRESH_S", 0.0)
    with pytest.raises(Unavailable):
        await known.session(TOKEN)
    store.away = False

    async def told() -> bool:
        return ended == ["held"]

    await eventually(told, "the end of what is held")
    asked = store.asked
    await known.session(b"other")
    assert store.asked == asked + 1
    release()


async def test_what_is_held_ends_in_time(store: Store, known: KnownSessions) -> None:
    ended = asyncio.Event()
    digest = sha256(b"short").hexdigest()
    await store.begin(digest, new_id(), BY, life_s=0.05, most=9)
    await known.session(b"short")
    release = known.hold(digest, ended.set)
    await ended.wait()
    store._clock.advance(1)  # type: ignore[attr-defined]
    with pytest.raises(Unauthenticated):
        await known.session(b"short")
    release()
    assert not known._holders and not known._expiries and not known._known and not known._digests


async def test_who_holds_a_session_that_has_ended_is_told_and_who_has_let_go_is_not(store: Store, known: KnownSessions) -> None:
    session, _ = await known.session(TOKEN)
    quiet: list[int] = []
    known.hold(DIGEST, lambda: quiet.append(1))()
    await store.end(BY.tenant_id, session.session_id)
    told = asyncio.Event()
    release = known.hold(DIGEST, told.set)
    await told.wait()
    release()
    assert quiet == []


async def test_memory_is_bounded_but_not_for_what_is_held(
    store: Store, known: KnownSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browser_sessions, "MOST_KNOWN", 2)
    monkeypatch.setattr(browser_sessions, "MOST_ENDED", 2)
    await known.session(TOKEN)
    release = known.hold(DIGEST, lambda: None)
    for number in range(4):
        await store.begin(sha256(b"%d" % number).hexdigest(), new_id(), BY, life_s=60, most=9)
        await known.session(b"%d" % number)
        known.ended(new_id())
    assert DIGEST in known._known and len(known._known) == len(known._digests) == 2 == len(known._ended)
    release()
