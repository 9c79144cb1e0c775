"""Reactions in the append that causes them: their order, their bounds, all or nothing, and what is left to the saga manager."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import pytest

from application.engine.catalog import Catalog
from application.engine.commands import follow_ups, repeats
from application.engine.commands.hooks import DecidedCommand
from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandRequest
from application.engine.commands.routes import Route
from application.engine.ports.log import AppendRequest, NewEvent, StreamAppend, one_command
from application.engine.ports.queue import WorkItem
from application.engine.sagas.manager import react
from application.engine.sagas.reactions import Reaction, ReactionCause
from domain.errors import InvalidState, TidelogError, Unavailable
from domain.event_registry import EventRegistry
from domain.kernel import Command, Decider, Event, Metadata, RecordedEvent, derive_id
from tests.kit.commands import CountingStore
from tests.kit.memory import MemoryEventStore, MemoryLog
from tests.kit.waiting import TENANT, new_id, request_of


class Noted(Event):
    """Something happened in a stream. `then`: what the sagas answer, by name."""

    TOPIC = "thing.noted"
    text: str
    then: dict[str, list[dict[str, Any]]] = {}


class Note(Command):
    """Notes a text each time that it is decided: only the command id shows that it was recorded."""

    stream_id: UUID
    root_id: UUID
    text: str = "x"
    then: dict[str, list[dict[str, Any]]] = {}
    refused: bool = False
    once: bool = False
    """Nothing to do where the stream has the text already."""


def _decide(texts: tuple[str, ...], command: Note) -> list[Event]:
    if command.refused:
        raise InvalidState("not that")
    if command.once and command.text in texts:
        return []
    return [Noted(text=command.text, then=command.then)]


THINGS: Decider[tuple[str, ...]] = Decider("things", tuple, _decide, lambda texts, event: (*texts, event.text))
REGISTRY = EventRegistry({"things": (Noted,)}, {})
WORK = WorkItem(TENANT, "agent", "a", UUID(int=1), 1, UUID(int=1))


def _saga(name: str) -> Callable[[Noted, ReactionCause], list[Reaction]]:
    def handler(event: Noted, cause: ReactionCause) -> list[Reaction]:
        answer: list[Reaction] = []
        for each in event.then.get(name, ()):
            if each.get("work"):
                answer.append(WORK)
            elif each.get("broken"):
                raise ValueError("what is this?")
            elif each.get("large"):
                answer.append(Note(stream_id=cause.stream_id, root_id=cause.root_id, text="z" * 2_000))
            else:
                answer.append(Note.model_validate({"root_id": cause.root_id, "stream_id": cause.stream_id, **each}))
        return answer

    return handler


SAGAS = {name: {Noted: _saga(name)} for name in ("one", "two", "plug_in", "three")}
NUMBERS = {"one": 1, "two": 62, "three": 5}
ONE, TWO, THREE = (1 << NUMBERS[name] for name in ("one", "two", "three"))
ALL = ONE | TWO | THREE


def catalog(creates: bool = True) -> Catalog:
    route = Route(THINGS, lambda c: c.stream_id, lambda c, _: c.root_id, creates=creates)
    return Catalog({Note: route}, REGISTRY, SAGAS, NUMBERS)


CATALOG = catalog()


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def store(log: MemoryLog) -> CountingStore:
    return CountingStore(log)


@pytest.fixture
def loop(store: CountingStore) -> CommandLoop:
    return CommandLoop(store, CATALOG)


def note(stream: UUID, text: str = "x", root: UUID | None = None, **fields: Any) -> Note:
    return Note(stream_id=stream, root_id=root or stream, text=text, **fields)


def to(stream: UUID, text: str = "y", **fields: Any) -> dict[str, Any]:
    return {"stream_id": str(stream), "text": text, **fields}


def texts(log: MemoryLog) -> list[str]:
    return [REGISTRY.decoded(event).text for event in log.events]


def masks(log: MemoryLog) -> list[int]:
    return [event.settled for event in log.events]


def left(event: RecordedEvent) -> list[UUID]:
    """Command ids of the reactions that the saga manager gives."""
    return [request.command_id for request, _ in react(event, CATALOG)]


# --- what goes along ------------------------------------------------------------------------------------------------------


async def test_what_follows_is_in_the_same_append_breadth_first(loop: CommandLoop, store: CountingStore, log: MemoryLog) -> None:
    root, a, b, c, d = (new_id() for _ in range(5))
    then = {
        "one": [to(a, "a", then={"one": [to(c, "c")]}), to(b, "b", then={"three": [to(d, "d")]})],
        "two": [to(a, "a2")],
        "three": [to(root, "back")],
    }
    outcome = await loop.execute(request_of(), note(root, "start", then=then))
    assert store.appends == 1
    assert texts(log) == ["start", "a", "b", "a2", "back", "c", "d"]
    assert (outcome.position, outcome.versions, len(outcome.events)) == (7, {root: 1}, 1), "version and events: its own"
    assert set(masks(log)) == {ALL}
    assert [event.version for event in log.streams[a]] == [1, 2] and [event.version for event in log.streams[root]] == [1, 2]
    assert {event.root_id for event in log.events} == {root}
    for stream, position in ((root, 5), (a, 4), (d, 7)):
        loaded = await loop.load(THINGS, TENANT, stream, fresh=False)
        assert (loaded.version, loaded.position) == (log.streams[stream][-1].version, position)
    assert store.reads == []


async def test_a_follow_up_is_a_command_of_its_own_with_the_id_that_the_manager_gives(loop: CommandLoop, log: MemoryLog) -> None:
    root, a = new_id(), new_id()
    request = CommandRequest(TENANT, "key:1", new_id(), new_id(), "because", traceparent="00-1-2-03")
    await loop.execute(request, note(root, then={"one": [to(a), to(a, "z")]}))
    stripped = log.events[0]._replace(settled=0)
    expected = [derive_id(root, f"one:1:{index}") for index in (0, 1)]
    assert left(stripped) == expected and left(log.events[0]) == []
    for event, command_id in zip(log.events[1:], expected, strict=True):
        assert Metadata.model_validate_json(event.metadata) == Metadata(
            actor="saga:one",
            correlation_id=request.correlation_id,
            causation_id=f"{root}:1",
            command_id=command_id,
            traceparent="00-1-2-03",
        )
        assert log.commands[TENANT, command_id].event_count == 1


async def test_a_follow_up_that_decides_nothing_is_recorded_and_its_stream_is_a_condition(
    loop: CommandLoop, store: CountingStore, log: MemoryLog
) -> None:
    root, a = new_id(), new_id()
    await loop.execute(request_of(), note(a, "y", root))
    requests: list[AppendRequest] = []
    store.before_append = requests.append
    await loop.execute(request_of(), note(root, then={"one": [to(a, "y", once=True)]}))
    [request] = requests
    assert [(head.stream_id, head.expected_version) for head in request.streams] == [(root, 0), (a, 1)]
    known = log.commands[TENANT, derive_id(root, "one:1:0")]
    assert (known.event_count, masks(log)[1]) == (0, ALL)


async def test_nothing_is_decided_on_a_state_that_is_only_believed(loop: CommandLoop, log: MemoryLog) -> None:
    """This process believes that the stream has no such text. The log knows better, and the follow-up is decided anew."""
    root, a = new_id(), new_id()
    await loop.execute(request_of(), note(a, "old", root))
    await CommandLoop(MemoryEventStore(log), CATALOG).execute(request_of(), note(a, "y", root))
    await loop.execute(request_of(), note(root, then={"one": [to(a, "y", once=True)]}))
    assert texts(log) == ["old", "y", "x"] and log.commands[TENANT, derive_id(root, "one:1:0")].event_count == 0


async def test_a_refusal_on_old_knowledge_is_looked_at_again(log: MemoryLog) -> None:
    class Full(Command):
        stream_id: UUID
        root_id: UUID
        text: str = "x"

    def decide(seen: tuple[str, ...], command: Command) -> list[Event]:
        if isinstance(command, Full) and "open" not in seen:
            raise InvalidState("closed")
        return [Noted(text=command.text)]  # type: ignore[attr-defined]

    decider: Decider[tuple[str, ...]] = Decider("things", tuple, decide, lambda seen, event: (*seen, event.text))

    def follow(event: Noted, cause: ReactionCause) -> list[Reaction]:
        return [Full(stream_id=gate, root_id=cause.root_id)] if event.text == "go" else []

    route = Route(decider, lambda c: c.stream_id, lambda c, _: c.root_id)
    both = Catalog({Note: route, Full: route}, REGISTRY, {"gate": {Noted: follow}}, {"gate": 3})
    gate, root = new_id(), new_id()
    here, there = CommandLoop(MemoryEventStore(log), both), CommandLoop(MemoryEventStore(log), both)
    await here.execute(request_of(), note(gate, "shut", root))
    await there.execute(request_of(), note(gate, "open", root))
    await here.execute(request_of(), note(root, "go"))
    assert texts(log) == ["shut", "open", "go", "x"] and log.events[2].settled == 1 << 3


# --- all or nothing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        {"refused": True},
        {"large": True},
        {"root_id": str(UUID(int=77)), "stream_id": str(UUID(int=78))},
        {"broken": True},
    ],
    ids=["refused", "too large", "another root", "a saga that breaks"],
)
async def test_of_an_answer_that_cannot_be_given_as_a_whole_nothing_is_appended(store: CountingStore, bad: dict[str, Any]) -> None:
    loop, log = CommandLoop(store, CATALOG, max_event_bytes=1_000), store.log
    root, a = new_id(), new_id()
    then = {"one": [to(a, "ok")], "two": [to(a, "half"), bad], "three": [to(a)]}
    outcome = await loop.execute(request_of(), note(root, then=then))
    assert texts(log) == ["x", "ok"], "what sagas before answered goes along; the saga itself and those after it are left"
    assert (outcome.position, masks(log)[0], store.appends) == (2, ONE, 1)
    assert (await loop.load(THINGS, TENANT, a, fresh=False)).state == ("ok",)
    if not bad.get("broken"):
        assert left(log.events[0]) == [derive_id(root, name) for name in ("two:1:0", "two:1:1", "three:1:0")]


async def test_a_stream_that_cannot_be_loaded_leaves_the_answer_to_the_manager(log: MemoryLog) -> None:
    class Away(CountingStore):
        async def read_stream(self, tenant_id: UUID, stream_id: UUID, **bounds: Any) -> list[RecordedEvent]:
            self.reads.append((stream_id, 0))
            if stream_id in (a, b):
                raise Unavailable("the database is away")
            return []

    root, a, b = new_id(), new_id(), new_id()
    store = Away(log)
    loop = CommandLoop(store, catalog(creates=False))
    await loop.execute(request_of(), note(root, then={"one": [to(root), to(a)]}), note(root, "z", then={"one": [to(b)]}))
    assert texts(log) == ["x", "z"] and masks(log) == [0, 0]
    assert store.reads == [(root, 0), (a, 0)], "the database is asked once"


async def test_a_stream_that_cannot_be_read_leaves_the_answer_to_the_manager(loop: CommandLoop, log: MemoryLog) -> None:
    root, a = new_id(), new_id()
    log.add(one_command(TENANT, new_id(), (StreamAppend(a, root, 0, (NewEvent("thing.noted", 9, b"{}"),)),), "{}"))
    await loop.execute(request_of(), note(root, then={"one": [to(a)], "two": [to(root, "no")]}))
    assert [event.settled for event in log.streams[root]] == [0]


async def test_work_goes_to_the_queue_later_and_does_not_hold_the_others_up(loop: CommandLoop, log: MemoryLog) -> None:
    root = new_id()
    await loop.execute(request_of(), note(root, then={"one": [to(root, "a"), {"work": True}], "three": [to(root, "b")]}))
    assert texts(log) == ["x", "b"] and masks(log) == [TWO | THREE, ALL]
    assert len(react(log.events[0], CATALOG)) == 2, "the answer that holds work, as a whole"


async def test_a_saga_without_a_number_is_never_settled(loop: CommandLoop, log: MemoryLog) -> None:
    root = new_id()
    await loop.execute(request_of(), note(root, then={"plug_in": [to(root, "p")], "three": [to(root, "b")]}))
    assert texts(log) == ["x", "b"] and masks(log) == [ALL, ALL]
    assert left(log.events[0]) == [derive_id(root, "plug_in:1:0")]


async def test_the_numbers_of_sagas_are_their_own() -> None:
    for numbers in ({"one": 1, "two": 1}, {"one": 0}, {"one": 63}):
        with pytest.raises(ValueError, match="a number of its own"):
            Catalog({}, REGISTRY, SAGAS, numbers)


async def test_switched_off_everything_is_left_to_the_manager(store: CountingStore, log: MemoryLog) -> None:
    root = new_id()
    await CommandLoop(store, CATALOG, reactions=False).execute(request_of(), note(root, then={"one": [to(root)]}))
    assert masks(log) == [0] and left(log.events[0]) == [derive_id(root, "one:1:0")]


# --- bounds ---------------------------------------------------------------------------------------------------------------


async def test_follow_ups_of_an_append_are_bounded(loop: CommandLoop, log: MemoryLog) -> None:
    root, most = new_id(), follow_ups.MAX_FOLLOW_UPS
    fits = [to(root, f"{n}") for n in range(most)]
    await loop.execute(request_of(), note(root, then={"one": fits}))
    assert log.head == 1 + most and masks(log)[0] == ALL
    other = new_id()
    await loop.execute(request_of(), note(other, then={"one": fits[:2], "two": [to(other, f"{n}") for n in range(most - 1)]}))
    assert [event.settled for event in log.streams[other]] == [ONE]


async def test_a_chain_without_end_is_cut_at_the_bound(loop: CommandLoop, log: MemoryLog) -> None:
    def endless(event: Noted, cause: ReactionCause) -> list[Reaction]:
        return [note(cause.stream_id, root=cause.root_id)]

    chain = Catalog(CATALOG.routes, REGISTRY, {"chain": {Noted: endless}}, {"chain": 1})
    await CommandLoop(MemoryEventStore(log), chain).execute(request_of(), note(new_id()))
    assert log.head == 1 + follow_ups.MAX_FOLLOW_UPS
    assert masks(log) == [2] * follow_ups.MAX_FOLLOW_UPS + [0], "the manager goes on from the last event"


async def test_bytes_of_follow_ups_are_bounded(log: MemoryLog) -> None:
    text = "z" * (follow_ups.MAX_FOLLOW_UP_BYTES // 4)

    def follow(event: Noted, cause: ReactionCause) -> list[Reaction]:
        return [note(cause.stream_id, text, cause.root_id)] * int(event.text) if event.text in ("3", "4") else []

    loop = CommandLoop(MemoryEventStore(log), Catalog(CATALOG.routes, REGISTRY, {"large": {Noted: follow}}, {"large": 1}))
    three, four = new_id(), new_id()
    for stream, count in ((three, "3"), (four, "4")):
        await loop.execute(request_of(), note(stream, count))
    assert [len(log.streams[three]), len(log.streams[four])] == [4, 1]
    assert [log.streams[three][0].settled, log.streams[four][0].settled] == [2, 0]


# --- what the log says ----------------------------------------------------------------------------------------------------


async def test_a_follow_up_that_was_recorded_before_is_taken_out(loop: CommandLoop, store: CountingStore, log: MemoryLog) -> None:
    root, a = new_id(), new_id()
    recorded = derive_id(root, "two:1:0")
    await CommandLoop(MemoryEventStore(log), CATALOG).execute(
        CommandRequest(TENANT, "saga:two", recorded, new_id(), "x"), note(a, "before", root)
    )
    outcome = await loop.execute(request_of(), note(root, then={"one": [to(a, "a")], "two": [to(a, "b")], "three": [to(a, "c")]}))
    assert not outcome.duplicate and store.appends == 3, "the first one in vain; the second one met the stream's version"
    assert texts(log) == ["before", "x", "a"] and masks(log)[1] == ONE, "the manager gives the rest, and learns that it is there"


async def test_a_repeat_of_the_command_gets_its_first_answer_and_adds_nothing(loop: CommandLoop, log: MemoryLog) -> None:
    root, a, request = new_id(), new_id(), request_of()
    first = await loop.execute(request, note(root, then={"one": [to(a)]}))
    for process in (loop, CommandLoop(MemoryEventStore(log), CATALOG)):
        again = await process.execute(request, note(root, then={"one": [to(a)]}))
        assert (again.duplicate, again.versions, again.position) == (True, first.versions, 2)
        assert [event.stream_id for event in again.recorded] == [root]
    assert log.head == 2


async def test_a_repeat_tells_the_position_of_what_followed_in_the_append_and_not_of_later(
    loop: CommandLoop, log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeats, "PAGE", 16)
    root, later, request, bare = new_id(), new_id(), request_of(), request_of()
    many = {"one": [to(root, f"{n}", then={"two": [to(root, "z")]}) for n in range(30)]}
    outcomes = await asyncio.gather(
        loop.execute(request, note(root, then=many)), loop.execute(request_of(), note(root, then={"one": [to(root)]}))
    )
    assert [outcome.position for outcome in outcomes] == [61, 63]
    await loop.execute(bare, note(later, then={"one": [to(later)], "plug_in": [to(later, "p")]}))
    [(reaction, command)] = react(log.events[63], CATALOG)
    assert isinstance(command, Note)
    await loop.execute(reaction, command)
    assert texts(log)[63:] == ["x", "y", "p"]
    assert (await loop.execute(request, note(root))).position == 61
    assert (await loop.execute(bare, note(later))).position == 65, "what the manager added was not in the append"


async def test_a_conflict_on_a_follow_ups_stream_decides_all_anew(loop: CommandLoop, store: CountingStore, log: MemoryLog) -> None:
    root, a = new_id(), new_id()
    await loop.execute(request_of(), note(a, "old", root))
    await CommandLoop(MemoryEventStore(log), CATALOG).execute(request_of(), note(a, "theirs", root))
    await loop.execute(request_of(), note(root, then={"one": [to(a)]}))
    assert texts(log) == ["old", "theirs", "x", "y"] and store.appends == 3
    assert store.reads == [(a, 1)]


async def test_a_command_is_not_refused_for_conflicts_on_streams_of_its_follow_ups(
    loop: CommandLoop, store: CountingStore, log: MemoryLog
) -> None:
    root, a = new_id(), new_id()
    await loop.execute(request_of(), note(a, "old", root))

    def somebody_is_always_quicker(request: AppendRequest) -> None:
        if any(head.stream_id == a for head in request.streams):
            append = StreamAppend(a, root, log.streams[a][-1].version, (NewEvent(Noted.TOPIC, 1, b'{"text": "t"}'),))
            log.add(one_command(TENANT, new_id(), (append,), "{}"))

    store.before_append = somebody_is_always_quicker
    await loop.execute(request_of(), note(root, then={"one": [to(a)]}))
    assert [event.settled for event in log.streams[root]] == [0]


async def test_what_the_log_refuses_a_follow_up_for_does_not_reach_the_command(
    loop: CommandLoop, store: CountingStore, log: MemoryLog
) -> None:
    """The stream is of another tenant, which only the log can tell."""
    root, theirs = new_id(), new_id()
    await loop.execute(request_of(new_id()), note(theirs))
    await loop.execute(request_of(), note(root, then={"one": [to(theirs)]}))
    assert [event.settled for event in log.streams[root]] == [0] and len(log.streams[theirs]) == 1
    with pytest.raises(TidelogError, match="taken by something else"):
        await loop.execute(request_of(), note(theirs, then={"one": [to(root)]}))


async def test_calls_that_went_together_in_vain_go_each_with_its_own_follow_ups(log: MemoryLog) -> None:
    store = MemoryEventStore(log, max_event_bytes=1_000)
    loop, root = CommandLoop(store, CATALOG), new_id()
    *_, refused, last = await asyncio.gather(
        loop.execute(request_of(), note(root, "a")),
        loop.execute(request_of(), note(root, "b", then={"one": [to(root, "c")]})),
        loop.execute(request_of(), note(root, "z" * 2_000)),
        loop.execute(request_of(), note(root, "d", then={"one": [to(root, "e")]})),
        return_exceptions=True,
    )
    assert isinstance(refused, TidelogError) and not isinstance(last, BaseException)
    assert texts(log) == ["a", "b", "c", "d", "e"] and masks(log) == [ALL] * 5


async def test_a_command_may_come_to_a_stream_that_is_in_the_execution_already(loop: CommandLoop, log: MemoryLog) -> None:
    root = new_id()
    outcome = await loop.execute(request_of(), note(root, "a"), note(root, "b"), note(root, "a", once=True))
    assert (outcome.versions, outcome.position, texts(log)) == ({root: 2}, 2, ["a", "b"])
    assert [event.version for event in log.events] == [1, 2]


# --- hooks ----------------------------------------------------------------------------------------------------------------


class Onlooker:
    def __init__(self) -> None:
        self.notes: list[tuple[str, str, Any]] = []
        self.adds: dict[str, list[Command]] = {}
        self.adds_at_the_end: dict[str, list[Command]] = {}
        self.refuses: set[str] = set()

    def before_decide(self, request: CommandRequest, command: Note, stream_id: UUID) -> Sequence[Command] | None:  # type: ignore[override]
        self.notes.append(("before_decide", request.actor, command.text))
        if command.text in self.refuses:
            raise InvalidState("the hook refuses")
        return self.adds.get(command.text)

    def before_append(self, request: CommandRequest, decided: Sequence[DecidedCommand]) -> Sequence[Command] | None:
        told = [command.text for command, _, _ in decided]  # type: ignore[attr-defined]
        assert all(b'"text":"' in event.state for _, _, events in decided for event in events)
        self.notes.append(("before_append", request.actor, told))
        return self.adds_at_the_end.get(told[0])

    def after_commit(self, request: CommandRequest, commands: Sequence[Note], first_position: int, last_position: int) -> None:  # type: ignore[override]
        self.notes.append(("after_commit", request.actor, ([command.text for command in commands], first_position, last_position)))


async def test_hooks_look_on_at_follow_ups_with_the_request_of_the_follow_up(store: CountingStore, log: MemoryLog) -> None:
    hook, root, a = Onlooker(), new_id(), new_id()
    loop = CommandLoop(store, CATALOG, hooks=[hook])  # type: ignore[list-item]
    await loop.execute(request_of(), note(root, then={"one": [to(a)]}))
    assert hook.notes == [
        ("before_decide", "test", "x"), ("before_append", "test", ["x"]),
        ("before_decide", "saga:one", "y"), ("before_append", "saga:one", ["y"]),
        ("after_commit", "test", (["x"], 1, 1)), ("after_commit", "saga:one", (["y"], 2, 2)),
    ]  # fmt: skip


async def test_commands_that_hooks_add_are_recorded_under_the_id_of_the_command(store: CountingStore, log: MemoryLog) -> None:
    hook, root, a, budget = Onlooker(), new_id(), new_id(), new_id()
    loop = CommandLoop(store, CATALOG, hooks=[hook])  # type: ignore[list-item]
    hook.adds = {"y": [note(budget, "reserve")]}
    hook.adds_at_the_end = {"x": [note(budget, "audit")], "y": [note(budget, "audit too")]}
    outcome = await loop.execute(request_of(), note(root, then={"one": [to(a)]}))
    assert texts(log) == ["x", "audit", "y", "reserve", "audit too"]
    assert outcome.versions == {root: 1, budget: 1} and len(outcome.events) == 2
    ids = [Metadata.model_validate_json(event.metadata).command_id for event in log.events]
    assert ids[0] == ids[1] and ids[2:] == [derive_id(root, "one:1:0")] * 3
    assert log.commands[TENANT, ids[2]].event_count == 3
    assert ("before_decide", "saga:one", "reserve") in hook.notes, "hooks are asked about what a hook adds"
    assert hook.notes[-1] == ("after_commit", "saga:one", (["y", "reserve", "audit too"], 3, 5))


async def test_the_refusal_of_a_follow_up_by_a_hook_leaves_it_to_the_manager(store: CountingStore, log: MemoryLog) -> None:
    hook, root = Onlooker(), new_id()
    loop = CommandLoop(store, CATALOG, hooks=[hook])  # type: ignore[list-item]
    hook.refuses = {"y"}
    await loop.execute(request_of(), note(root, then={"one": [to(root)]}))
    assert texts(log) == ["x"] and masks(log) == [0]


async def test_a_hook_that_adds_without_end_is_a_defect(store: CountingStore, log: MemoryLog) -> None:
    hook, root = Onlooker(), new_id()
    hook.adds = {"x": [note(root)]}
    with pytest.raises(RuntimeError, match="hooks added"):
        await CommandLoop(store, CATALOG, hooks=[hook]).execute(request_of(), note(root))  # type: ignore[list-item]
    assert log.head == 0
