"""Rows of events by number, causes and effects, over the engine in memory."""

import json
from collections.abc import Sequence
from uuid import UUID

import pytest
from pydantic_core import to_json

from application.engine.ports.log import NewEvent, StreamAppend, one_command
from application.engine.reading.history_keeper import HistoryKeeper
from application.looking_back import causes, rows
from application.looking_back.causes import Causation
from application.looking_back.rows import EventRow, EventRows, RowsWanted
from domain.errors import NotFound
from domain.kernel import RecordedEvent
from tests.kit.engine import Engine, PlayedWorker
from tests.kit.memory import MemoryEventFeed, MemoryHistories, MemoryLog
from tests.kit.waiting import TENANT, new_id

OTHER = UUID(int=TENANT.int + 1)


class Looking:
    """A log that tests write without rules, and what looks back at it."""

    def __init__(self, engine: Engine | None = None) -> None:
        self.log = engine.log if engine else MemoryLog()
        self.feed, self.histories = MemoryEventFeed(self.log), HistoryKeeper(MemoryHistories(self.log))
        self.rows = EventRows(self.feed, self.histories)
        self.causation = Causation(self.feed, self.rows, TENANT)

    def add(
        self, *topics: str, stream: UUID, root: UUID | None = None, cause: str = "", data: object = None, tenant: UUID = TENANT
    ) -> int:
        """Appends events of one command, and returns the position of the last one."""
        command, version = new_id(), len(self.log.streams.get(stream, ()))
        said = {"actor": "key:1", "correlation_id": root or stream, "causation_id": cause or str(command), "command_id": command}
        events = tuple(NewEvent(topic, 1, to_json(data or {})) for topic in topics)
        append = StreamAppend(stream, root or stream, version, events)
        return self.log.add(one_command(tenant, command, (append,), to_json(said).decode())).last_position

    async def row(self, topic: str, data: object) -> EventRow:
        stream = new_id()
        position = self.add(topic, stream=stream, data=data)
        events = await self.feed.rows(TENANT, stream, after=position - 1, limit=1)
        return (await self.rows.of(TENANT, events))[0]

    async def chain(self, position: int, limit: int = 50) -> list[tuple[int, str]]:
        return [(link.row.position, link.by) for link in (await self.causation.chain(position, limit)).links]

    async def effects(self, position: int, after: int | None = None, limit: int = 50) -> tuple[list[tuple[int, str]], int | None]:
        found = await self.causation.effects(position, after, limit)
        return [(effect.row.position, effect.by) for effect in found.effects], found.reached


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"error": {"type": "ValueError", "message": "  no such city\nand more"}}, "ValueError:   no such city"),
        ({"error": {"message": ""}}, "error:"),
        ({"sender": "a", "recipient": "b", "message": "not this"}, "a → b"),
        ({"person": {"reason": "it was done by hand"}, "reason": "person"}, "it was done by hand"),
        ({"reason": "", "message": "half"}, "half"),
        ({"reason": "x" * 300}, "x" * 199 + "…"),
        ({"reason": 1, "name": "city"}, "city"),
        ({"step": "one"}, None),
        (["no", "object"], None),
    ],
)
async def test_a_row_says_in_a_line_what_happened(data: object, text: str | None) -> None:
    assert (await Looking().row("thing.happened", data)).text == text


async def test_a_row_has_the_fields_that_its_event_says_and_no_wrong_ones() -> None:
    looking = Looking()
    row = await looking.row(
        "thing.happened", {"step": "one", "part": 2, "key": "k#1", "tool": "t", "agent": "a", "attempt": 3, "other": 1}
    )
    assert row[6:12] == ("one", 2, "k#1", "t", "a", 3) and row.actor == "key:1" and not row.cut
    assert (await looking.row("thing.happened", {"step": 1, "part": True, "key": None, "attempt": "2"}))[6:12] == (None,) * 6
    assert (await looking.row("run.queued", {"key": "of the run"})).call is None
    large = await looking.row("thing.happened", {"step": "one", "reason": "ö" * 3_000})
    assert large.cut and large.step == "one" and large.text == "ö" * 199 + "…"


async def test_what_is_inside_of_work_names_its_step_and_its_call() -> None:
    engine = Engine()
    await engine.set_up()
    worker = PlayedWorker(engine)
    await worker.register("writer", tools_=["search"])
    looking, run_id = Looking(engine), await engine.start("writer")
    async with engine.running():
        claim = await worker.next("writer")
        await claim.call("look", "search", city="Oslo")
        await (await worker.next("search", "tool")).complete({"found": 1})
        await claim.step("wrote", "text")
        await claim.fail("permanent", "broken")
        await engine.settled()
    window = await looking.rows.window(RowsWanted(TENANT, run_id), 0, 100)
    assert window.total == len(window.rows) == len(engine.topics(run_id)) and window.first == 0
    said = {row.type: row for row in window.rows}
    [step] = {row.step for row in window.rows if row.type.startswith(("agent_run.", "invocation."))}
    assert step == said["run.step_scheduled"].step
    assert said["invocation.attempt_started"][8:10] == ("look", "search")
    assert said["agent_run.step_recorded"].call == "wrote" and said["run.failed"].text == "TestError: broken"
    # back to the request, and forward again: each cause has its effect
    chain = await looking.causation.chain(said["run.failed"].position, 50)
    assert [(link.row.type, link.by) for link in chain.links] == [
        ("run.failed", "event"), ("agent_run.failed", "work"), ("agent_run.requested", "event"), ("run.step_scheduled", "event"),
        ("run.started", "request"),
    ]  # fmt: skip
    assert chain.next is None and chain.origin == chain.links[-1]
    assert chain.origin.request is not None and chain.links[0].request is None
    for effect, cause in zip(chain.links, chain.links[1:], strict=False):
        found, reached = await looking.effects(cause.row.position)
        assert (effect.row.position, effect.by) in found and reached is None


async def test_any_window_of_a_long_run_is_found_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "EVERY", 10)
    monkeypatch.setattr(rows, "COUNTED_AT_ONCE", 40)
    looking, run, beside = Looking(), new_id(), new_id()
    own: list[int] = []
    for number in range(97):
        looking.add("beside.happened", stream=beside)
        own.append(looking.add("even" if number % 2 == 0 else "odd", stream=run))
    every = RowsWanted(TENANT, run)

    async def window(
        wanted: RowsWanted, first: int, limit: int, around: int | None = None
    ) -> tuple[Sequence[int], int, int, int | None]:
        found = await looking.rows.window(wanted, first, limit, around)
        return [row.position for row in found.rows], found.first, found.total, found.at

    for first, limit in ((0, 5), (9, 2), (10, 10), (11, 30), (90, 100), (96, 1), (0, 100)):
        assert await window(every, first, limit) == (own[first : first + limit], first, 97, None)
    assert await window(every, 97, 5) == ([], 97, 97, None)
    assert await window(every, 0, 6, around=own[50]) == (own[47:53], 47, 97, 50)
    assert await window(every, 0, 6, around=own[1]) == (own[:6], 0, 97, 1)
    # what comes later is counted on from there
    own += [looking.add("even", stream=run) for _ in range(25)]
    assert await window(every, 115, 20) == (own[115:], 115, 122, None)
    # among some types, and as of a position
    odd = [position for number, position in enumerate(own[:97]) if number % 2]
    assert await window(RowsWanted(TENANT, run, frozenset({"odd"})), 20, 15) == (odd[20:35], 20, 48, None)
    assert await window(RowsWanted(TENANT, run, until=own[44]), 40, 10) == (own[40:45], 40, 45, None)
    assert await window(RowsWanted(TENANT, run, until=own[44]), 0, 4, around=own[80]) == (own[43:45], 43, 45, 45)
    assert await window(RowsWanted(OTHER, run), 0, 10) == ([], 0, 0, None)
    assert not await looking.rows.has(TENANT, run) and not await looking.rows.has(OTHER, run)
    started = new_id()
    looking.add("run.started", stream=started)
    assert await looking.rows.has(TENANT, started) and not await looking.rows.has(OTHER, started)


async def test_marks_of_another_history_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "EVERY", 2)
    looking, run = Looking(), new_id()
    for _ in range(6):
        looking.add("first", stream=run)
    assert (await looking.rows.window(RowsWanted(TENANT, run), 0, 9)).total == 6
    looking.log.cut(1)
    looking.histories.changes += 1
    looking.add("other", stream=new_id())
    looking.add("second", stream=run)
    window = await looking.rows.window(RowsWanted(TENANT, run), 0, 9)
    assert [row.type for row in window.rows] == ["first", "second"] and window.total == 2


async def test_marks_are_kept_of_the_runs_that_were_asked_for_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MOST_RUNS", 2)
    looking = Looking()
    runs = [new_id() for _ in range(3)]
    for run in runs:
        looking.add("thing.happened", stream=run)
        assert (await looking.rows.window(RowsWanted(TENANT, run), 0, 9)).total == 1
    assert [key[1] for key in looking.rows.numbers._marks] == runs[1:]


async def test_a_chain_goes_through_other_runs_to_its_request() -> None:
    looking, one, two, work = Looking(), new_id(), new_id(), new_id()
    began = looking.add("run.started", "run.step_scheduled", stream=one)
    asked = looking.add("agent_run.requested", stream=work, root=one, cause=f"{one}:2")
    reported = looking.add("agent_run.step_recorded", stream=work, root=one)
    child = looking.add("run.started", stream=two, cause=f"{work}:1")
    said = looking.add("message.sent", stream=new_id(), root=one, data={"sender_id": str(work)})
    cancelled = looking.add("run.cancelled", stream=two)
    assert await looking.chain(child) == [(child, "event"), (asked, "event"), (began, "event"), (began - 1, "request")]
    assert await looking.chain(reported) == [(reported, "work"), (asked, "event"), (began, "event"), (began - 1, "request")]
    assert (await looking.chain(said))[:2] == [(said, "work"), (asked, "event")]
    assert await looking.chain(cancelled) == [(cancelled, "request")]
    assert await looking.effects(began - 1) == ([(began, "event")], None)
    assert await looking.effects(asked) == ([(reported, "work"), (child, "event"), (said, "work")], None)
    assert await looking.effects(asked, after=reported, limit=1) == ([(child, "event")], child)
    # page by page
    short = await looking.causation.chain(child, 2)
    assert [link.row.position for link in short.links] == [child, asked] and short.next == began


async def test_what_is_not_there_and_what_is_not_seen_is_an_unknown_cause() -> None:
    looking, one, foreign, hidden = Looking(), new_id(), new_id(), new_id()
    theirs = looking.add("run.started", stream=foreign, tenant=OTHER)
    secret = looking.add("run.started", stream=hidden)
    of_theirs = looking.add("run.started", stream=one, cause=f"{foreign}:1")
    of_nothing = looking.add("run.started", stream=new_id(), cause=f"{new_id()}:7")
    of_secret = looking.add("run.started", stream=new_id(), cause=f"{hidden}:1")
    session = looking.add("agent_run.resumed", stream=new_id(), cause="session:5")

    async def sees(events: Sequence[RecordedEvent]) -> Sequence[RecordedEvent]:
        return [event for event in events if event.root_id != hidden]

    assert await looking.chain(of_theirs) == [(of_theirs, "unknown")]
    assert await looking.chain(of_nothing) == [(of_nothing, "unknown")]
    assert await looking.chain(of_secret) == [(of_secret, "event"), (secret, "request")]
    assert await looking.chain(session) == [(session, "request")]
    narrowed = Causation(looking.feed, looking.rows, TENANT, sees)
    assert [link.by for link in (await narrowed.chain(of_secret, 9)).links] == ["unknown"]
    for position in (theirs, secret, 0, 10_000):
        with pytest.raises(NotFound, match="no event at position"):
            await narrowed.chain(position, 9)
        with pytest.raises(NotFound):
            await narrowed.effects(position, None, 9)
    looking.add("run.started", stream=new_id(), cause=f"{one}:1")
    kept = looking.add("run.started", stream=new_id(), cause=f"{one}:1")
    assert len((await looking.causation.effects(of_theirs, None, 9)).effects) == 2

    async def only_last(events: Sequence[RecordedEvent]) -> Sequence[RecordedEvent]:
        return [event for event in events if event.position in (of_theirs, kept)]

    few = await Causation(looking.feed, looking.rows, TENANT, only_last).effects(of_theirs, None, 9)
    assert [effect.row.position for effect in few.effects] == [kept]


async def test_a_chain_that_bites_its_tail_ends() -> None:
    looking, one, two = Looking(), new_id(), new_id()
    first = looking.add("run.started", stream=one, cause=f"{two}:1")
    second = looking.add("run.started", stream=two, cause=f"{one}:1")
    assert await looking.chain(first) == [(first, "event"), (second, "event")]
    assert (await looking.causation.chain(first, 50)).next is None


async def test_a_page_of_effects_looks_at_a_bounded_number_of_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(causes, "LOOKED_AT", 5)
    monkeypatch.setattr(causes, "LOOKED_BESIDE", 3)
    monkeypatch.setattr(causes, "BESIDE", 12)
    looking, one, two = Looking(), new_id(), new_id()
    cause = looking.add("run.started", stream=one)
    wanted: list[int] = []
    for number in range(24):
        looking.add("thing.happened", stream=two)
        looking.add("thing.happened", stream=one, cause=f"{two}:1")
        if number % 3 == 0:
            wanted.append(looking.add("thing.happened", stream=one, cause=f"{one}:1"))
        if number == 4:
            wanted.append(looking.add("run.started", stream=new_id(), cause=f"{one}:1"))
    found: list[int] = []
    after: int | None = None
    pages = 0
    while True:
        page, after = await looking.effects(cause, after, limit=2)
        found += [position for position, _ in page]
        pages += 1
        if after is None:
            break
    assert found == [position for position in wanted if position in found] and len(found) == len({*found})
    assert {*wanted} - {*found} <= {position for position in wanted if position > cause + 12} and pages > 5
    assert all(position in found for position in wanted if looking.log.events[position - 1].root_id == one)


async def test_events_of_programs_that_only_use_the_log_have_rows_and_no_cause() -> None:
    looking, stream = Looking(), new_id()
    for metadata, state in (("{}", b"\xff\x00"), ("not json", b'{"step": "one", '), ("[1]", b"1"), ('{"actor": 5}', b"{}")):
        append = StreamAppend(stream, stream, len(looking.log.streams.get(stream, ())), (NewEvent("a", 1, state),))
        looking.log.add(one_command(TENANT, new_id(), (append,), metadata))
    found = (await looking.rows.window(RowsWanted(TENANT, stream), 0, 9)).rows
    assert [(row.actor, row.step) for row in found] == [(None, None), (None, "one"), (None, None), (None, None)]
    assert [link.by for link in (await looking.causation.chain(found[1].position, 9)).links] == ["unknown"]
    assert json.loads(looking.log.events[0].metadata) == {}
