"""What a key sees that is narrowed to projects: events, pages of them, streams; over the log in memory."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any
from uuid import UUID

import pytest

from application import narrowing
from application.engine.ports.log import NewEvent, StreamAppend, one_command
from application.engine.reading import event_pages
from application.engine.reading.channels import Batch, Filter
from application.engine.reading.event_pages import EventPage, read_event_page
from application.engine.reading.histories import Cursor
from application.engine.reading.history_keeper import HistoryKeeper
from application.find_ids import Named
from application.narrowing import Narrowed, ProjectsOfRoots, only_seen
from domain.kernel import Event, RecordedEvent
from domain.projects import ProjectCreated, ProjectRemoved
from domain.registry import REGISTRY
from domain.runs import RunCancelled, RunStarted, sequential
from domain.tenants import TenantCreated
from tests.kit.memory import ManualClock, MemoryEventFeed, MemoryHistories, MemoryLog
from tests.kit.waiting import TENANT, new_id

OTHER = UUID(int=TENANT.int + 1)
MINE, THEIRS = new_id(), new_id()


class CountedFeed(MemoryEventFeed):
    asked = 0

    async def read_roots(
        self, roots: Sequence[tuple[UUID, UUID, int]], *, limit: int, tenant_id: UUID | None = None
    ) -> list[RecordedEvent]:
        self.asked += 1
        return await super().read_roots(roots, limit=limit, tenant_id=tenant_id)


class Told:
    """A log with a tenant, its projects, and a run in each."""

    def __init__(self) -> None:
        self.log = MemoryLog(ManualClock())
        self.feed = CountedFeed(self.log)
        self.histories = HistoryKeeper(MemoryHistories(self.log))
        self.of_roots = ProjectsOfRoots(self.feed, REGISTRY, self.histories)
        self.seen = Narrowed(TENANT, {MINE}, self.of_roots, self.feed)
        self.versions: dict[UUID, int] = {}
        self.add(TENANT, TenantCreated(name="t"))
        self.add(MINE, ProjectCreated(name="mine"))
        self.add(THEIRS, ProjectCreated(name="theirs"))
        self.runs = [self.run(MINE), self.run(THEIRS)]

    def add(self, root: UUID, *events: Event | NewEvent, stream: UUID | None = None, tenant: UUID = TENANT) -> None:
        stream = stream or root
        new = tuple(e if isinstance(e, NewEvent) else NewEvent(e.TOPIC, e.VERSION, REGISTRY.encode(e)) for e in events)
        version = self.versions.get(stream, 0)
        self.log.add(one_command(tenant, new_id(), (StreamAppend(stream, root, version, new),), "{}"))
        self.versions[stream] = version + len(new)

    def run(self, project: UUID, tenant: UUID = TENANT) -> UUID:
        run_id = new_id()
        self.add(run_id, RunStarted(project_id=project, plan=sequential(("a",))), tenant=tenant)
        return run_id

    async def events(self, after: int = 0) -> list[RecordedEvent]:
        return await self.feed.read_tenant(TENANT, after=after, limit=1_000)

    async def only(self, after: int = 0) -> list[int]:
        return [event.position for event in await self.seen.only(await self.events(after))]

    async def page(self, limit: int, after: int = 0) -> tuple[list[int], int, bool]:
        page: EventPage = await read_event_page(
            self.feed, self.histories, Filter(TENANT), Cursor(after), limit=limit, as_of=None, sees=self.seen.only
        )
        return [event.position for event in page.events], page.position, page.more


@pytest.fixture
def told() -> Told:
    return Told()


async def test_a_run_is_seen_with_all_inside_and_a_project_itself(told: Told) -> None:
    assert await told.only() == [2, 4]
    told.add(told.runs[0], RunCancelled(), stream=new_id())
    told.add(told.runs[1], RunCancelled(), stream=new_id())
    told.add(MINE, ProjectRemoved(name="mine"))
    assert await told.only(after=5) == [6, 8]
    assert [await told.seen.has(root) for root in (MINE, THEIRS, *told.runs, TENANT, new_id())] == [
        True, False, True, False, False, False,
    ]  # fmt: skip


async def test_a_root_is_asked_about_once_and_its_first_event_costs_nothing(told: Told) -> None:
    await told.only()
    assert told.feed.asked == 0
    again = Told()
    again.add(again.runs[0], RunCancelled(), stream=new_id())
    assert await again.only(after=5) == [6] and again.feed.asked == 1
    assert await again.only(after=5) == [6] and again.feed.asked == 1


async def test_a_root_without_events_is_not_remembered(told: Told) -> None:
    run_id = new_id()
    assert not await told.seen.has(run_id)
    told.add(run_id, RunStarted(project_id=MINE, plan=sequential(("a",))))
    assert await told.seen.has(run_id)


async def test_the_same_root_of_another_tenant_is_another_root(told: Told) -> None:
    run_id = told.run(MINE, tenant=OTHER)
    assert not await told.seen.has(run_id)
    assert (await told.of_roots.of(OTHER, [run_id])) == {run_id: MINE}
    assert not await told.seen.has(run_id)


async def test_what_is_known_is_bounded_and_forgetting_costs_a_query_and_no_event(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(narrowing, "MOST_KNOWN", 3)
    monkeypatch.setattr(narrowing, "AT_ONCE", 2)
    runs = [told.run(MINE) for _ in range(7)]
    assert await told.of_roots.of(TENANT, runs) == dict.fromkeys(runs, MINE) and told.feed.asked == 4
    assert await told.of_roots.of(TENANT, runs[-3:]) == dict.fromkeys(runs[-3:], MINE) and told.feed.asked == 4
    assert await told.of_roots.of(TENANT, [*runs[-3:], runs[0]]) == dict.fromkeys([*runs[-3:], runs[0]], MINE)
    assert await told.only() == [2, 4, *range(6, 13)]


async def test_in_a_new_history_all_is_asked_anew(told: Told) -> None:
    await told.seen.has(told.runs[0])
    told.histories.changes += 1
    assert await told.seen.has(told.runs[0]) and told.feed.asked == 2


async def test_a_start_that_this_release_cannot_read_is_nobodys(told: Told) -> None:
    for number, event in enumerate((NewEvent(RunStarted.TOPIC, 99, b"{}"), NewEvent(RunStarted.TOPIC, RunStarted.VERSION, b"{}"))):
        told.add(new_id(), event)
        assert await told.only(after=5 + number) == []


async def test_of_what_an_id_names_only_ones_own_is_told(told: Told) -> None:
    found = [Named("a", "run", told.runs[0], 4), Named("b", "run", told.runs[1], 5), Named("c", "event", None, 2)]
    assert await told.seen.named(found) == [found[0], found[2]]
    assert await told.seen.named([]) == []


async def test_a_page_of_events_is_filled_with_ones_own(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_pages, "MOST_READS", 20)
    for number in range(8):
        told.run(MINE if number % 4 == 3 else THEIRS)  # 9 and 13 are the key's own
    for at_once in (1, 2, 3, 500):
        monkeypatch.setattr(event_pages, "AT_ONCE", at_once)
        assert await told.page(2) == ([2, 4], 4, True)
        assert await told.page(3) == ([2, 4, 9], 9, True)
        assert (await told.page(4))[:2] == ([2, 4, 9, 13], 13)
        assert await told.page(10, after=13) == ([], 13, False)
    monkeypatch.setattr(event_pages, "AT_ONCE", 3)
    monkeypatch.setattr(event_pages, "MOST_READS", 2)
    assert await told.page(10) == ([2, 4], 6, True), "it has looked at six"
    assert await told.page(10, after=6) == ([9], 12, True)


async def test_a_stream_has_ones_own_events_and_a_word_after_a_silence(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(narrowing.time, "monotonic", lambda: now)
    events = await told.events()

    async def source() -> AsyncGenerator[Batch, None]:
        nonlocal now
        for at, batch in (
            (1.0, events[:2]),
            (2.0, events[2:3]),
            (9.0, [events[4]]),
            (10.0, []),
            (20.0, [events[4]]),
            (21.0, events[3:]),
        ):
            now = at
            yield Batch(batch)

    came: list[Any] = [(now, [event.position for event in batch]) async for batch in only_seen(source(), told.seen.only, 8.0)]
    assert came == [(1.0, [2]), (9.0, []), (10.0, []), (20.0, []), (21.0, [4])]
