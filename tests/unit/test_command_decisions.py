"""The command loop over a log in memory: its reads, its second look, and its answers."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from application.catalog import CATALOG
from application.engine.catalog import Catalog
from application.engine.commands.loop import MAX_CONFLICTS, CommandLoop
from application.engine.commands.request import CommandRequest
from application.engine.commands.routes import Route
from application.engine.ports.log import AppendRequest, NewEvent, StreamAppend, one_command
from domain import context, projects, runs
from domain.context import ContextValueSet
from domain.errors import (
    AlreadyExists,
    InvalidCommand,
    InvalidState,
    NotFound,
    PayloadTooLarge,
    Unavailable,
    VersionConflict,
)
from domain.event_registry import EventRegistry
from domain.kernel import Command, Decider, Event, Metadata
from domain.values import MAX_STORED_DEPTH
from tests.kit.commands import CountingStore, create, elsewhere, foreign, put, start
from tests.kit.memory import MemoryEventStore, MemoryLog
from tests.kit.waiting import TENANT, new_id, request_of

OTHER_TENANT = new_id()


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def store(log: MemoryLog) -> CountingStore:
    return CountingStore(log)


@pytest.fixture
def loop(store: CountingStore) -> CommandLoop:
    return CommandLoop(store, CATALOG)


# --- what is recorded, and answered ---------------------------------------------------------------------------------------


async def test_an_outcome_says_where_everything_is(loop: CommandLoop, log: MemoryLog) -> None:
    command = create()
    outcome = await loop.execute(request_of(), command)
    [event] = log.events
    assert (outcome.position, outcome.versions, outcome.duplicate, outcome.recorded) == (1, {command.project_id: 1}, False, ())
    assert [type(e) for e in outcome.events] == [projects.ProjectCreated] and outcome.recorded_at == event.recorded_at
    assert (event.stream_id, event.root_id, event.topic, event.schema_version) == (
        command.project_id, command.project_id, "project.created", 1,
    )  # fmt: skip


async def test_who_and_why_stands_on_every_event(loop: CommandLoop, log: MemoryLog) -> None:
    request = CommandRequest(TENANT, "key:1", new_id(), new_id(), "because", traceparent="00-1-2-03")
    await loop.execute(request, start(new_id()))
    *own, follow_up = log.events
    assert len(own) == 2 and Metadata.model_validate_json(follow_up.metadata).actor == "saga:run_lifecycle"
    for event in own:
        assert event.tenant_id == TENANT
        assert Metadata.model_validate_json(event.metadata) == Metadata(
            actor="key:1",
            correlation_id=request.correlation_id,
            causation_id="because",
            command_id=request.command_id,
            traceparent="00-1-2-03",
        )


async def test_commands_of_one_execution_are_one_append(loop: CommandLoop, store: CountingStore) -> None:
    one, other = create(), start(new_id())
    outcome = await loop.execute(request_of(), one, other)
    assert (store.appends, outcome.position) == (1, 4), "with the agent run that follows"
    assert outcome.versions == {one.project_id: 1, other.run_id: 2}
    assert [event.TOPIC for event in outcome.events] == ["project.created", "run.started", "run.step_scheduled"]


async def test_one_refused_command_refuses_all(loop: CommandLoop, log: MemoryLog) -> None:
    with pytest.raises(NotFound):
        await loop.execute(request_of(), create(), runs.CancelRun(run_id=new_id()))
    assert log.events == []


async def test_the_position_of_each_stream_is_its_own(loop: CommandLoop, store: CountingStore) -> None:
    one, other = new_id(), new_id()
    await loop.execute(request_of(), put(one), put(other))
    for stream, position in ((one, 1), (other, 2)):
        assert (await loop.load(context.DECIDER, TENANT, stream, fresh=False)).position == position
    outcome = await loop.execute(
        request_of(), create(), runs.StartRun(run_id=new_id(), project_id=one, plan=runs.sequential(("a",)))
    )
    assert outcome.position == 6, "with the agent run that follows"


async def test_nothing_to_do_is_answered_with_what_is_there(loop: CommandLoop, store: CountingStore, log: MemoryLog) -> None:
    command = create()
    await loop.execute(request_of(), command)
    await loop.execute(request_of(), create())
    outcome = await loop.execute(request_of(), command)
    assert (outcome.position, outcome.versions, outcome.events, outcome.recorded_at) == (1, {command.project_id: 1}, (), None)
    assert not outcome.duplicate and log.head == 2


async def test_of_several_streams_with_nothing_to_do_the_later_position_counts(loop: CommandLoop) -> None:
    one, other = create(), create()
    await loop.execute(request_of(), one)
    await loop.execute(request_of(), other)
    assert (await loop.execute(request_of(), one, other)).position == (await loop.execute(request_of(), other, one)).position == 2


# --- the cache ------------------------------------------------------------------------------------------------------------


async def test_a_known_stream_is_not_read(loop: CommandLoop, store: CountingStore) -> None:
    stream = new_id()
    for value in range(5):
        await loop.execute(request_of(), put(stream, value))
    assert store.reads == [(stream, 0)], "only before the first one, to see that it is not there"
    assert store.appends == 5


async def test_a_command_that_creates_does_not_look_first(loop: CommandLoop, store: CountingStore) -> None:
    await loop.execute(request_of(), create())
    assert store.reads == []


async def test_a_stream_that_another_process_created_is_looked_at_after_the_conflict(
    loop: CommandLoop, store: CountingStore, log: MemoryLog
) -> None:
    command = create(name="theirs")
    await elsewhere(log).execute(request_of(), command)
    assert (await loop.execute(request_of(), command)).events == ()
    with pytest.raises(AlreadyExists):
        await loop.execute(request_of(), create(command.project_id, "ours"))
    assert log.head == 1


async def test_a_refusal_on_old_knowledge_is_looked_at_again(loop: CommandLoop, log: MemoryLog) -> None:
    """A command that the cached state refuses may be right by now: the log decides."""
    stream = new_id()
    await loop.execute(request_of(), put(stream, 1))
    await elsewhere(log).execute(request_of(), put(stream, 2))
    outcome = await loop.execute(request_of(), put(stream, 3, expect=2))
    assert outcome.versions == {stream: 3}


async def test_a_refusal_on_fresh_knowledge_is_final_and_costs_one_read(loop: CommandLoop, store: CountingStore) -> None:
    stream = new_id()
    await loop.execute(request_of(), put(stream, 1))
    store.reads.clear()
    with pytest.raises(InvalidState):
        await loop.execute(request_of(), put(stream, 3, expect=7))
    assert store.reads == [(stream, 1)] and store.appends == 1


async def test_that_nothing_is_to_be_done_is_looked_at_again(loop: CommandLoop, log: MemoryLog) -> None:
    """Other commands since then may have given the command something to do."""
    catalog = toggles()
    here, there = CommandLoop(MemoryEventStore(log), catalog), CommandLoop(MemoryEventStore(log), catalog)
    stream = new_id()
    await here.execute(request_of(), Toggle(stream_id=stream, on=True))
    await there.execute(request_of(), Toggle(stream_id=stream, on=False))
    assert (await here.execute(request_of(), Toggle(stream_id=stream, on=True))).versions == {stream: 3}


async def test_states_that_are_known_are_forgotten_when_the_log_has_a_new_history(loop: CommandLoop, log: MemoryLog) -> None:
    stream = new_id()
    await loop.execute(request_of(), put(stream, 1))
    await loop.execute(request_of(), put(stream, 2))
    log.cut(1)
    loop.forget()
    assert (await loop.load(context.DECIDER, TENANT, stream, fresh=False)).version == 1
    assert (await loop.execute(request_of(), put(stream, 3))).versions == {stream: 2}


async def test_a_load_reads_only_what_is_newer(loop: CommandLoop, store: CountingStore, log: MemoryLog) -> None:
    stream = new_id()
    await loop.execute(request_of(), put(stream, 1))
    store.reads.clear()
    assert (await loop.load(context.DECIDER, TENANT, stream, fresh=False)).version == 1 and store.reads == []
    await elsewhere(log).execute(request_of(), put(stream, 2))
    assert (await loop.load(context.DECIDER, TENANT, stream, fresh=False)).version == 1
    loaded = await loop.load(context.DECIDER, TENANT, stream)
    assert (loaded.version, loaded.position, loaded.state.entries["n"].value) == (2, 2, 2)
    assert store.reads == [(stream, 1)]


async def test_an_unknown_stream_is_read_even_where_old_knowledge_would_do(loop: CommandLoop, log: MemoryLog) -> None:
    stream = new_id()
    await elsewhere(log).execute(request_of(), put(stream, 1))
    assert (await loop.load(context.DECIDER, TENANT, stream, fresh=False)).version == 1


async def test_a_stream_without_events_is_no_stream(loop: CommandLoop) -> None:
    loaded = await loop.load(context.DECIDER, TENANT, new_id())
    assert (loaded.version, loaded.position, loaded.slice, loaded.state) == (0, 0, "", context.DECIDER.initial())


# --- conflicts ------------------------------------------------------------------------------------------------------------


async def test_a_conflict_is_decided_again_on_the_newer_state(loop: CommandLoop, store: CountingStore, log: MemoryLog) -> None:
    stream = new_id()
    await loop.execute(request_of(), put(stream, 1))
    await elsewhere(log).execute(request_of(), put(stream, 2))
    assert (await loop.execute(request_of(), put(stream, 3))).versions == {stream: 3}
    assert store.appends == 3, "one of them in vain"


async def test_only_the_stream_of_the_conflict_is_read_again(loop: CommandLoop, store: CountingStore, log: MemoryLog) -> None:
    one, other = new_id(), new_id()
    await loop.execute(request_of(), put(one), put(other))
    await elsewhere(log).execute(request_of(), put(other, 2))
    store.reads.clear()
    await loop.execute(request_of(), put(one, 3), put(other, 3))
    assert store.reads == [(other, 1)]


@pytest.mark.parametrize(("conflicts", "passes"), [(1, True), (MAX_CONFLICTS, True), (MAX_CONFLICTS + 1, False)])
async def test_conflicts_are_bounded(loop: CommandLoop, store: CountingStore, log: MemoryLog, conflicts: int, passes: bool) -> None:
    stream, left = new_id(), conflicts
    await loop.execute(request_of(), put(stream, 0))

    def somebody_is_quicker(request: AppendRequest) -> None:
        nonlocal left
        if left:
            left -= 1
            encoded = CATALOG.registry.encode(
                ContextValueSet(run_id=stream, agent_run_id=stream, name="n", value=9, value_version=log.head + 1)
            )
            append = StreamAppend(stream, stream, log.head, (NewEvent(ContextValueSet.TOPIC, 1, encoded),))
            log.add(one_command(TENANT, new_id(), (append,), request.commands[0].metadata))

    store.before_append = somebody_is_quicker
    if passes:
        assert (await loop.execute(request_of(), put(stream, 1))).versions == {stream: conflicts + 2}
    else:
        with pytest.raises(VersionConflict):
            await loop.execute(request_of(), put(stream, 1))
        assert store.appends == 2 + MAX_CONFLICTS


async def test_a_hundred_at_once_all_get_through_in_some_order(loop: CommandLoop, log: MemoryLog) -> None:
    stream = new_id()
    pair = (loop, elsewhere(log))
    for batch in range(10):
        await asyncio.gather(*(pair[n % 2].execute(request_of(), put(stream, batch * 10 + n)) for n in range(5)))
    versions = [event.version for event in log.streams[stream]]
    assert versions == list(range(1, 51))
    values = [CATALOG.registry.decoded(event).value_version for event in log.events]  # type: ignore[attr-defined]
    assert values == versions, "each was decided on the state that it was appended to"


async def test_another_tenants_stream_cannot_be_written(loop: CommandLoop, log: MemoryLog) -> None:
    command = create()
    await loop.execute(request_of(), command)
    assert (await loop.load(projects.DECIDER, OTHER_TENANT, command.project_id)).version == 0
    with pytest.raises(AlreadyExists):
        await loop.execute(request_of(OTHER_TENANT), create(command.project_id))
    assert await loop.history(OTHER_TENANT, command.project_id) == [] != await loop.history(TENANT, command.project_id)
    assert log.head == 1


async def test_an_outage_passes_through(loop: CommandLoop, log: MemoryLog) -> None:
    log.away = True
    with pytest.raises(Unavailable):
        await loop.execute(request_of(), create())
    with pytest.raises(Unavailable):
        await loop.load(projects.DECIDER, TENANT, new_id())
    log.away = False
    await loop.execute(request_of(), create())


# --- bounds ---------------------------------------------------------------------------------------------------------------


async def test_an_event_over_the_limit_is_refused_before_the_append(log: MemoryLog) -> None:
    store = CountingStore(log)
    loop, stream = CommandLoop(store, CATALOG, max_event_bytes=1_000), new_id()
    await loop.execute(request_of(), put(stream, ""))
    empty = len(log.events[0].state)
    await loop.execute(request_of(), put(stream, "x" * (1_000 - empty)))
    assert len(log.events[1].state) == 1_000
    with pytest.raises(PayloadTooLarge, match="1,001 bytes"):
        await loop.execute(request_of(), put(stream, "x" * (1_001 - empty)))
    assert store.appends == 2


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


async def test_a_value_that_is_too_deep_is_refused_unless_it_came_through_a_door(loop: CommandLoop, log: MemoryLog) -> None:
    stream = new_id()
    await loop.execute(request_of(), put(stream, nested(MAX_STORED_DEPTH - 1)))
    deep = put(stream, nested(MAX_STORED_DEPTH + 1))
    with pytest.raises(InvalidCommand, match="levels deep"):
        await loop.execute(request_of(), deep)
    checked = CommandRequest(TENANT, "saga:x", new_id(), new_id(), "x", checked=True)
    await loop.execute(checked, deep)
    assert log.head == 2


async def test_a_value_that_is_no_json_is_refused(loop: CommandLoop, log: MemoryLog) -> None:
    with pytest.raises(InvalidCommand, match="written as JSON"):
        await loop.execute(request_of(), put(new_id(), "\ud800"))
    assert log.head == 0


# --- ids ------------------------------------------------------------------------------------------------------------------


async def test_an_id_names_one_thing_of_one_kind(loop: CommandLoop, log: MemoryLog) -> None:
    taken = new_id()
    await loop.execute(request_of(), create(taken))
    for process in (loop, elsewhere(log)):
        assert (await process.load(runs.DECIDER, TENANT, taken)).version == 0
        with pytest.raises(AlreadyExists, match="taken by something else, of projects"):
            await process.execute(request_of(), start(taken))
        with pytest.raises(NotFound):
            await process.execute(request_of(), runs.CancelRun(run_id=taken))
        loaded = await process.load(projects.DECIDER, TENANT, taken, fresh=False)
        assert loaded.version == 1 and loaded.state.created is not None, "its own rules still know it"
    assert log.head == 1


async def test_the_stream_of_somebody_who_only_uses_the_log(loop: CommandLoop, log: MemoryLog) -> None:
    """No rules fold such a stream. It holds no event of ours and can hold none."""
    theirs = new_id()
    await foreign(log, theirs, "order.placed", "order.paid")
    loaded = await loop.load(projects.DECIDER, TENANT, theirs)
    assert (loaded.version, loaded.state) == (0, projects.DECIDER.initial())
    with pytest.raises(AlreadyExists, match="another program"):
        await loop.execute(request_of(), create(theirs))
    with pytest.raises(NotFound):
        await loop.execute(request_of(), runs.CancelRun(run_id=theirs))
    assert log.head == 2


# --- a catalog of one's own -----------------------------------------------------------------------------------------------


class Toggled(Event):
    TOPIC = "toggle.toggled"
    on: bool


class Toggle(Command):
    stream_id: UUID
    on: bool


def toggles() -> Catalog:
    """A product of one slice: a switch. A command for the present position does nothing."""

    def decide(on: bool, command: Toggle) -> list[Event]:
        return [] if command.on == on else [Toggled(on=command.on)]

    decider: Decider[bool] = Decider("toggles", bool, decide, lambda on, event: bool(event.on))
    route = Route(decider, lambda command: command.stream_id, lambda command, on: command.stream_id)
    return Catalog({Toggle: route}, EventRegistry({"toggles": (Toggled,)}, {}), {})


async def test_a_second_product_brings_its_own_tables(log: MemoryLog) -> None:
    loop, stream = CommandLoop(MemoryEventStore(log), toggles()), new_id()
    assert (await loop.execute(request_of(), Toggle(stream_id=stream, on=False))).versions == {stream: 0}
    assert (await loop.execute(request_of(), Toggle(stream_id=stream, on=True))).versions == {stream: 1}
    assert [event.topic for event in log.events] == ["toggle.toggled"]
    with pytest.raises(KeyError):
        await loop.execute(request_of(), create())
