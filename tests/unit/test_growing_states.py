"""States that grow: what an event costs does not depend on how many came before. The tests count bytes and looks, not time."""

import asyncio
import gc
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from immutables import Map
from pydantic import TypeAdapter, ValidationError

from application.catalog import CATALOG
from application.engine.commands import snapshots as snapshots_module
from application.engine.commands import states
from application.engine.commands.snapshots import Snapshotter
from application.engine.commands.states import States
from application.engine.ports.log import NewEvent, StreamAppend, StreamEvent, StreamPlace, one_command
from domain import agent_runs, context, tenants
from domain.agent_runs import (
    AgentRun,
    AgentRunClaimed,
    AgentRunRequested,
    CallFinished,
    CallStarted,
    ClaimAgentRun,
    MailDelivered,
    MailReceived,
    RecordStep,
    StepRecorded,
)
from domain.kernel import Decider, Event, RecordedEvent
from domain.maps import PersistentMap
from domain.registry import REGISTRY
from tests.kit import fold
from tests.kit.memory import MemoryEventStore, MemoryLog, MemorySnapshots
from tests.kit.waiting import TENANT, new_id

RUN = UUID("01900000-0000-7000-8000-000000000001")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
FEW, MANY = 100, 20_000
ROOM = 16 * 1024
"""Bytes for the nodes on the way to one entry. A copy of a dictionary with `MANY` entries has half a million."""


def uuid(number: int) -> UUID:
    return UUID(int=RUN.int + number)


def context_of(size: int) -> list[Event]:
    return [
        context.ContextValueSet(run_id=RUN, agent_run_id=RUN, name=f"n{number}", value=number, value_version=1)
        for number in range(size)
    ]


CLAIMED: list[Event] = [
    AgentRunRequested(run_id=RUN, step="s", agent="a", agent_version=None),
    AgentRunClaimed(attempt=1, worker_id="w", dispatch=1),
]


def steps(size: int) -> list[Event]:
    return CLAIMED + [StepRecorded(attempt=1, key=f"k{number}", kind="step", result=number) for number in range(size)]


def calls(size: int) -> list[Event]:
    return CLAIMED + [
        CallStarted(attempt=1, key=f"k{number}", tool="t", invocation_id=uuid(number)) for number in range(size)
    ]  # fmt: skip


def mail(size: int) -> list[Event]:
    return CLAIMED + [MailDelivered(message_id=uuid(number), sender="s", sent_at=NOW) for number in range(size)]


def keys(size: int) -> list[Event]:
    return [tenants.ApiKeyIssued(key_id=uuid(number), label="l", sha256="0" * 64) for number in range(size)]


Case = tuple[Decider[Any], Callable[[int], list[Event]], Event]
CASES: dict[str, Case] = {
    "a value": (
        context.DECIDER,
        context_of,
        context.ContextValueSet(run_id=RUN, agent_run_id=RUN, name="n1", value=5, value_version=2),
    ),
    "a step": (agent_runs.DECIDER, steps, StepRecorded(attempt=1, key="new", kind="step", result=1)),
    "a call": (agent_runs.DECIDER, steps, CallStarted(attempt=1, key="new", tool="t", invocation_id=RUN)),
    "the end of a call": (agent_runs.DECIDER, calls, CallFinished(key="k7", invocation_id=uuid(7), succeeded=True)),
    "a claim": (agent_runs.DECIDER, calls, AgentRunClaimed(attempt=2, worker_id="w", dispatch=2)),
    "a message": (agent_runs.DECIDER, mail, MailDelivered(message_id=uuid(-1), sender="s", sent_at=NOW)),
    "a received message": (agent_runs.DECIDER, mail, MailReceived(attempt=1, key="r", message_id=uuid(7))),
    "a key": (tenants.DECIDER, keys, tenants.ApiKeyIssued(key_id=uuid(-1), label="l", sha256="0" * 64)),
    "a key that is revoked": (tenants.DECIDER, keys, tenants.ApiKeyRevoked(key_id=uuid(7))),
}


def bytes_taken(work: Callable[[], object]) -> int:
    """The most memory that the work had at once, beyond what there was before."""
    gc.collect()
    tracemalloc.start()
    try:
        kept = work()
        _, peak = tracemalloc.get_traced_memory()
        del kept
        return peak
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [FEW, MANY])
@pytest.mark.parametrize("name", CASES)
def test_an_event_copies_no_entries_of_before(name: str, size: int) -> None:
    decider, history, event = CASES[name]
    state = fold(decider, history(size))
    decider.evolve(state, event)
    assert bytes_taken(lambda: decider.evolve(state, event)) < ROOM


@pytest.mark.parametrize("command", [
    RecordStep(agent_run_id=RUN, attempt=1, key="new", result=1),
    ClaimAgentRun(agent_run_id=RUN, worker_id="w", dispatch=1),
], ids=lambda command: type(command).__name__)  # fmt: skip
def test_a_decision_copies_no_entries_of_before(command: Any) -> None:
    state: AgentRun = fold(agent_runs.DECIDER, steps(MANY))
    agent_runs.decide(state, command)
    assert bytes_taken(lambda: agent_runs.decide(state, command)) < ROOM


def test_a_state_of_before_stays_as_it_was() -> None:
    before: AgentRun = fold(agent_runs.DECIDER, calls(50))
    after = agent_runs.evolve(before, CallFinished(key="k7", invocation_id=uuid(7), succeeded=True))
    assert (before.journal["k7"].status, after.journal["k7"].status) == ("pending", "ok")
    assert len(before.pending) == 50 and len(after.pending) == 49


def test_many_events_at_once_leave_the_state_of_before_as_it_was() -> None:
    before: AgentRun = fold(agent_runs.DECIDER, [*calls(3), StepRecorded(attempt=1, key="s", kind="step", result=1)])
    known = repr(before)
    more = [CallFinished(key="k1", invocation_id=uuid(1), succeeded=True), *calls(6)[5:]]
    after = agent_runs.DECIDER.fold(before, more)
    assert repr(before) == known
    assert after == agent_runs.evolve(agent_runs.DECIDER.fold(before, more[:-1]), more[-1])
    assert [after.journal[f"k{number}"].status for number in range(6)] == ["pending", "ok", *["pending"] * 4]
    assert set(after.pending.values()) == {uuid(number) for number in (0, 2, 3, 4, 5)}
    assert (after.version, set(after.changed.values())) == (before.version + 4, {"s", *(f"k{number}" for number in range(6))})


@dataclass(frozen=True)
class Place:
    x: int
    y: Any = None


def stored() -> TypeAdapter[Any]:
    return TypeAdapter(PersistentMap[int, Place])


def test_a_stored_map_has_the_order_of_its_keys() -> None:
    """Hashes of texts differ from process to process, and with them the order of a map."""
    names = [f"n{number}" for number in range(100)]
    texts: TypeAdapter[Any] = TypeAdapter(PersistentMap[str, int])
    assert list(texts.dump_python(Map(dict.fromkeys(reversed(names), 1)))) == sorted(names)
    assert stored().dump_json(Map({10: Place(1), 9: Place(2, [None])})) == b'{"9":{"x":2,"y":[null]},"10":{"x":1,"y":null}}'


def test_a_map_is_read_back_with_its_types() -> None:
    read = stored().validate_json(b'{"9":{"x":2,"y":[1]},"10":{"x":1}}')
    assert type(read) is Map and read == Map({9: Place(2, [1]), 10: Place(1)})
    assert stored().validate_python({9: {"x": 1}}) == Map({9: Place(1)})
    for broken in (b"[]", b'{"a":{"x":1}}', b'{"1":{"x":"no"}}', b"null"):
        with pytest.raises(ValidationError):
            stored().validate_json(broken)


def test_the_schema_of_a_map_says_what_is_in_it() -> None:
    for mode in ("validation", "serialization"):
        schema = stored().json_schema(mode=mode)  # type: ignore[arg-type]
        assert schema["additionalProperties"] == {"$ref": "#/$defs/Place"}


class Pages(MemoryEventStore):
    """Notes how many events each read of a stream gave."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log)
        self.read: list[int] = []

    async def read_stream(self, *arguments: Any, **bounds: Any) -> list[RecordedEvent]:
        found = await super().read_stream(*arguments, **bounds)
        self.read.append(len(found))
        return found


async def filled(log: MemoryLog, stream: UUID, topic: str, number: int) -> None:
    state = REGISTRY.encode(context.ContextValueSet(run_id=RUN, agent_run_id=RUN, name="n", value=1, value_version=1))
    for version in range(number):
        append = StreamAppend(stream, RUN, version, (NewEvent(topic, 1, state),))
        await MemoryEventStore(log).append(one_command(TENANT, new_id(), (append,), "{}"))


@pytest.mark.parametrize(("number", "pages"), [(2, [2]), (3, [3, 0]), (7, [3, 3, 1])])
@pytest.mark.parametrize("topic", [context.ContextValueSet.TOPIC, "foreign.thing"])
async def test_a_long_stream_is_read_in_pages(monkeypatch: pytest.MonkeyPatch, topic: str, number: int, pages: list[int]) -> None:
    monkeypatch.setattr(snapshots_module, "PAGE", 3)
    log, stream = MemoryLog(), new_id()
    await filled(log, stream, topic, number)
    store = Pages(log)
    for snapshots in (None, Snapshotter(MemorySnapshots(log), REGISTRY, every=1_000)):
        store.read.clear()
        found = await States(store, CATALOG, snapshots).read(context.DECIDER, TENANT, stream)
        assert (found.version, found.position, found.root_id) == (number, number, RUN)
        assert found.slice == ("context" if topic == context.ContextValueSet.TOPIC else states.FOREIGN)
        assert store.read == (pages if snapshots is None else pages[1:])
        if found.slice == "context":
            assert found.size == sum(len(event.state) for event in log.events)


async def test_what_is_newer_than_a_known_state_is_read_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots_module, "PAGE", 3)
    log, stream, topic = MemoryLog(), new_id(), context.ContextValueSet.TOPIC
    store = Pages(log)
    known = States(store, CATALOG, None)
    await filled(log, stream, topic, 1)
    assert (await known.read(context.DECIDER, TENANT, stream)).version == 1
    for version in range(1, 6):
        append = StreamAppend(stream, RUN, version, (NewEvent(topic, 1, log.events[0].state),))
        await MemoryEventStore(log).append(one_command(TENANT, new_id(), (append,), "{}"))
    store.read.clear()
    assert (await known.read(context.DECIDER, TENANT, stream)).version == 6
    assert store.read == [3, 2]


async def test_the_next_page_is_read_while_this_one_becomes_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """And other tasks have their turn in between."""
    monkeypatch.setattr(snapshots_module, "PAGE", 4)
    monkeypatch.setattr(states, "PART", 2)
    log, stream, order = MemoryLog(), new_id(), list[str]()
    await filled(log, stream, context.ContextValueSet.TOPIC, 6)

    class Noting(MemoryEventStore):
        async def read_page(self, place: StreamPlace, limit: int) -> list[StreamEvent]:
            order.append("read")
            return await super().read_page(place, limit)

    def evolve(state: context.Context, event: context.ContextValueSet) -> context.Context:
        order.append("fold")
        return context.evolve(state, event)

    rules = Decider("context", context.Context, context.decide, evolve)
    reading = asyncio.create_task(States(Noting(log), CATALOG, None).read(rules, TENANT, stream))
    while not reading.done():
        order.append("other")
        await asyncio.sleep(0)
    assert (await reading).version == 6
    told = "".join(word[0] for word in order)
    assert told.count("f") == 6 and "rff" in told.replace("o", "") and "ffoff" in told.replace("r", ""), told
    assert told.index("r") < told.index("f")
