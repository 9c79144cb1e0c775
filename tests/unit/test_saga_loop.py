"""The saga manager over ports in memory: order, concurrency, parking, redelivery, crashes, and the owner of a partition."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest

from application.engine.background import end
from application.engine.catalog import Catalog
from application.engine.commands.loop import CommandLoop
from application.engine.ports.checkpoints import Checkpoint, LostOwnership
from application.engine.ports.log import AppendRequest, AppendResult, NewEvent, StreamAppend, one_command
from application.engine.ports.queue import WorkItem
from application.engine.sagas.manager import MAX_ROOTS_AT_ONCE, PARTITIONS, SagaManager, partition_of, react
from application.engine.sagas.reactions import Handler, Reaction, ReactionCause, cause_of, request_for
from application.routes import ROUTES
from domain import projects
from domain.context import ContextValueSet
from domain.kernel import Metadata, RecordedEvent, derive_id
from domain.projects import CreateProject, ProjectCreated
from domain.registry import REGISTRY
from tests.kit.budget import AMOUNTS, BUDGET_CATALOG, TOTALS, Reserve, Stops, budget_of
from tests.kit.memory import (
    MemoryCheckpoints,
    MemoryEventStore,
    MemoryLog,
    MemoryPositionCalls,
    MemorySubscription,
    MemoryWorkQueue,
)
from tests.kit.waiting import TENANT, new_id, request_of, turns, until
from tests.pace import within


class Sagas:
    """A log, and managers that run its sagas. `handler` reacts to each created project."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.store = MemoryEventStore(self.log)
        self.checkpoints = MemoryCheckpoints(self.log)
        self.queue = MemoryWorkQueue()
        self.subscription = MemorySubscription(self.log)
        self.catalog = BUDGET_CATALOG
        self.calls = MemoryPositionCalls()
        self.lag_s = 0.01

    def answering(self, **handlers: Handler) -> "Sagas":
        self.catalog = Catalog(BUDGET_CATALOG.routes, REGISTRY, {name: {ProjectCreated: each} for name, each in handlers.items()})
        return self

    def manager(
        self,
        *,
        store: MemoryEventStore | None = None,
        checkpoints: MemoryCheckpoints | None = None,
        partitions: Sequence[str] = PARTITIONS,
    ) -> SagaManager:
        """A manager that knows nothing yet, as in a process that was just started."""
        commands = CommandLoop(store or self.store, self.catalog)
        own = checkpoints or self.checkpoints
        return SagaManager(commands, self.subscription, own, self.queue, self.catalog, partitions, self.calls, lag_s=self.lag_s)

    @asynccontextmanager
    async def working(self, manager: SagaManager | None = None) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task((manager or self.manager()).run())
        try:
            yield task
        finally:
            await end(task)

    async def project(self, project_id: UUID | None = None) -> UUID:
        project_id = project_id or new_id()
        await CommandLoop(self.store, self.catalog).execute(request_of(), CreateProject(project_id=project_id, name="p"))
        return project_id

    def reserved(self, project_id: UUID) -> list[int]:
        events = self.log.streams.get(budget_of(project_id), [])
        return [ContextValueSet.model_validate_json(event.state).value for event in events]

    def positions(self, partitions: Sequence[str] = PARTITIONS) -> set[int]:
        return {self.checkpoints.rows[name].position for name in partitions if name in self.checkpoints.rows}

    async def settled(self, task: asyncio.Task[None], partitions: Sequence[str] = PARTITIONS) -> int:
        def at_head() -> bool:
            assert not task.done(), task
            return self.positions(partitions) == {self.log.head}

        await until(at_head, "the sagas at the head of the log")
        return self.log.head


@pytest.fixture
def sagas() -> Sagas:
    return Sagas()


def of_partition(name: str) -> UUID:
    """A project whose root is in a partition."""
    while partition_of(project_id := new_id()) != name:
        pass
    return project_id


# --- reactions ------------------------------------------------------------------------------------------------------------


async def test_each_reaction_is_recorded_once_in_its_order(sagas: Sagas) -> None:
    project_ids = [await sagas.project() for _ in range(10)]
    async with sagas.working() as task:
        assert await sagas.settled(task) == 10 * (1 + len(AMOUNTS))
        later = await sagas.project()
        await sagas.settled(task)
    assert [sagas.reserved(project_id) for project_id in (*project_ids, later)] == [TOTALS] * 11


async def test_the_whole_log_read_again_adds_nothing(sagas: Sagas) -> None:
    """The rules record a reaction each time it is decided, so only the command id shows a repeat."""
    project_id = await sagas.project()
    async with sagas.working() as task:
        head = await sagas.settled(task)
    for _ in range(2):
        sagas.checkpoints.rows.clear()
        async with sagas.working() as task:
            assert await sagas.settled(task) == head
    assert sagas.reserved(project_id) == TOTALS and sagas.checkpoints.parked == {}


async def test_an_event_is_the_cause_of_what_follows(sagas: Sagas) -> None:
    request = request_of()
    project_id = new_id()
    await CommandLoop(sagas.store, sagas.catalog).execute(request, CreateProject(project_id=project_id, name="p"))
    async with sagas.working() as task:
        await sagas.settled(task)
    ids = set()
    for event in sagas.log.streams[budget_of(project_id)]:
        metadata = Metadata.model_validate_json(event.metadata)
        assert (metadata.actor, metadata.causation_id) == ("saga:budget", f"{project_id}:1")
        assert (metadata.correlation_id, event.tenant_id) == (request.correlation_id, TENANT)
        ids.add(metadata.command_id)
    assert ids == {derive_id(project_id, f"budget:1:{place}") for place in range(len(AMOUNTS))}


async def test_reactions_of_several_sagas_are_all_given(sagas: Sagas) -> None:
    def one(event: ProjectCreated, cause: ReactionCause) -> list[Reaction]:
        return [Reserve(project_id=cause.stream_id, amount=1)]

    def other(event: ProjectCreated, cause: ReactionCause) -> list[Reaction]:
        return [Reserve(project_id=cause.stream_id, amount=10), Reserve(project_id=cause.stream_id, amount=100)]

    sagas.answering(one=one, other=other)
    project_id = await sagas.project()
    async with sagas.working() as task:
        await sagas.settled(task)
    assert sagas.reserved(project_id) == [1, 11, 111]
    [recorded] = sagas.log.streams[project_id]
    assert [request.command_id for request, _ in react(recorded, sagas.catalog)] == [
        derive_id(project_id, name) for name in ("one:1:0", "other:1:0", "other:1:1")
    ]


async def test_work_is_put_on_the_queue_in_one_call(sagas: Sagas) -> None:
    def work(event: ProjectCreated, cause: ReactionCause) -> list[Reaction]:
        return [WorkItem(cause.tenant_id, "agent", f"a{n}", cause.stream_id, 1, cause.root_id) for n in range(3)]

    sagas.answering(work=work)
    project_id = await sagas.project()
    async with sagas.working() as task:
        await sagas.settled(task)
    assert [(entry.item.pool, entry.item.work_id) for entry in sagas.queue.entries.values()] == [
        (f"a{n}", project_id) for n in range(3)
    ]
    assert sagas.queue.published == 1


def test_a_request_hands_on_the_trace_and_is_of_the_events_tenant() -> None:
    metadata = Metadata(actor="x", correlation_id=UUID(int=1), causation_id="y", command_id=UUID(int=2), traceparent="00-a-b-01")
    recorded = recorded_with(metadata.model_dump_json())
    request = request_for(cause_of(recorded), "budget:1:0")
    assert (request.tenant_id, request.traceparent, request.checked, request.repeatable) == (TENANT, "00-a-b-01", True, False)
    assert (request.actor, request.causation_id, request.correlation_id) == ("saga:budget", recorded.name, UUID(int=1))


def recorded_with(metadata: str, topic: str = "project.created") -> RecordedEvent:
    log, stream = MemoryLog(), new_id()
    log.add(one_command(TENANT, new_id(), (StreamAppend(stream, stream, 0, (NewEvent(topic, 1, b"{}"),)),), metadata))
    return log.events[0]


def test_an_event_that_no_saga_waits_for_is_not_even_decoded() -> None:
    broken = recorded_with("{}")._replace(state=b"not json", topic="agent.registered")
    assert react(broken, BUDGET_CATALOG) == []
    assert react(broken._replace(topic="order.placed"), BUDGET_CATALOG) == []


def test_partitions_are_by_root_and_all_are_used() -> None:
    assert tuple(f"sagas:{n}" for n in range(8)) == PARTITIONS, "names and number are for ever: checkpoints have them"
    assert [partition_of(UUID(int=n)) for n in (0, 7, 8, 15)] == ["sagas:0", "sagas:7", "sagas:0", "sagas:7"]
    assert {partition_of(new_id()) for _ in range(500)} == set(PARTITIONS)


# --- order and concurrency ------------------------------------------------------------------------------------------------


class SlowStore(MemoryEventStore):
    """Appends wait at a gate; counts how many wait."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log)
        self.open = asyncio.Event()
        self.waiting: list[UUID] = []
        self.most = 0

    async def append(self, request: AppendRequest) -> AppendResult:
        self.waiting.append(request.streams[0].root_id)
        self.most = max(self.most, len(self.waiting))
        await self.open.wait()
        try:
            return await super().append(request)
        finally:
            self.waiting.remove(request.streams[0].root_id)


async def test_roots_are_handled_side_by_side_and_each_in_order(sagas: Sagas) -> None:
    slow = SlowStore(sagas.log)
    project_ids = [await sagas.project() for _ in range(5)]
    async with sagas.working(sagas.manager(store=slow)) as task:
        await until(lambda: len(slow.waiting) == 5, "one append of each root")
        await turns()
        assert sorted(slow.waiting) == sorted(project_ids), "the second reaction of a root waits for the first"
        assert sagas.positions() == {0}
        slow.open.set()
        await sagas.settled(task)
    assert [sagas.reserved(project_id) for project_id in project_ids] == [TOTALS] * 5


async def test_roots_at_once_are_bounded(sagas: Sagas) -> None:
    slow = SlowStore(sagas.log)
    for _ in range(MAX_ROOTS_AT_ONCE + 10):
        await sagas.project()
    async with sagas.working(sagas.manager(store=slow)) as task:
        await until(lambda: len(slow.waiting) == MAX_ROOTS_AT_ONCE)
        await turns()
        slow.open.set()
        await sagas.settled(task)
    assert slow.most == MAX_ROOTS_AT_ONCE


async def test_events_of_one_root_are_handled_in_the_order_of_the_log(sagas: Sagas) -> None:
    seen: list[tuple[UUID, UUID]] = []

    def noting(event: ContextValueSet, cause: ReactionCause) -> list[Reaction]:
        seen.append((cause.root_id, cause.stream_id))
        return []

    sagas.catalog = Catalog(ROUTES, REGISTRY, {"noting": {ContextValueSet: noting}})
    roots = [new_id() for _ in range(4)]
    for place in range(20):
        await append_value(sagas.log, roots[place % 4])
    async with sagas.working() as task:
        await sagas.settled(task)
    for root in roots:
        assert [stream for of, stream in seen if of == root] == [e.stream_id for e in sagas.log.events if e.root_id == root]


async def append_value(log: MemoryLog, root: UUID, **changed: Any) -> None:
    event = ContextValueSet(run_id=root, agent_run_id=root, name="n", value=1, value_version=1)
    append = StreamAppend(new_id(), root, 0, (NewEvent(ContextValueSet.TOPIC, 1, REGISTRY.encode(event)),))
    metadata = Metadata(actor="t", correlation_id=root, causation_id="t", command_id=root).model_dump_json()
    log.add(one_command(TENANT, new_id(), (append,), metadata))


# --- what cannot be handled -----------------------------------------------------------------------------------------------


async def test_an_event_that_breaks_a_saga_is_parked_and_others_go_on(sagas: Sagas) -> None:
    def broken(event: ProjectCreated, cause: ReactionCause) -> list[Reaction]:
        if cause.stream_id == bad:
            raise ValueError("what is this?")
        return [Reserve(project_id=cause.stream_id, amount=1)]

    sagas.answering(broken=broken)
    bad, good = await sagas.project(), await sagas.project()
    async with sagas.working() as task:
        await sagas.settled(task)
    [parked] = sagas.checkpoints.parked.values()
    assert (parked.consumer, parked.event.stream_id, parked.error) == (partition_of(bad), bad, "ValueError: what is this?")
    assert (sagas.reserved(bad), sagas.reserved(good)) == ([], [1])


async def test_an_event_that_cannot_be_read_is_parked(sagas: Sagas) -> None:
    stream = new_id()
    append = StreamAppend(stream, stream, 0, (NewEvent("project.created", 1, b'{"name": 5}'),))
    sagas.log.add(one_command(TENANT, new_id(), (append,), "{}"))
    async with sagas.working() as task:
        await sagas.settled(task)
    [parked] = sagas.checkpoints.parked.values()
    assert parked.event.position == 1 and parked.error.startswith("ValueError: a stored project.created")


async def test_a_refused_reaction_is_parked_and_the_next_ones_are_given(sagas: Sagas) -> None:
    def partly(event: ProjectCreated, cause: ReactionCause) -> list[Reaction]:
        refused = projects.CreateProject(project_id=cause.stream_id, name="taken by another name")
        return [refused, Reserve(project_id=cause.stream_id, amount=1)]

    sagas.answering(partly=partly)
    project_id = await sagas.project()
    async with sagas.working() as task:
        await sagas.settled(task)
    [parked] = sagas.checkpoints.parked.values()
    assert parked.error.startswith("AlreadyExists: ")
    assert sagas.reserved(project_id) == [1]


async def test_an_event_is_parked_once_however_many_of_its_reactions_are_refused(sagas: Sagas) -> None:
    def twice(event: ProjectCreated, cause: ReactionCause) -> list[Reaction]:
        return [projects.CreateProject(project_id=cause.stream_id, name=name) for name in ("x", "y")]

    sagas.answering(twice=twice)
    await sagas.project()
    async with sagas.working() as task:
        await sagas.settled(task)
    assert len(sagas.checkpoints.parked) == 1


async def test_an_outage_of_the_log_is_waited_out(sagas: Sagas) -> None:
    project_id = await sagas.project()
    slow = SlowStore(sagas.log)
    async with sagas.working(sagas.manager(store=slow)) as task:
        await until(lambda: slow.waiting)
        sagas.log.away = True
        slow.open.set()
        await turns()
        assert sagas.reserved(project_id) == [] and not task.done()
        sagas.log.away = False
        sagas.log.wake()
        await sagas.settled(task)
    assert sagas.reserved(project_id) == TOTALS and sagas.checkpoints.parked == {}


async def test_an_outage_of_the_queue_holds_the_checkpoint_back(sagas: Sagas) -> None:
    def work(event: ProjectCreated, cause: ReactionCause) -> list[Reaction]:
        return [WorkItem(cause.tenant_id, "agent", "a", cause.stream_id, 1, cause.root_id)]

    sagas.answering(work=work)
    await sagas.project()
    sagas.queue.away = True
    async with sagas.working() as task:
        await turns()
        assert sagas.positions() == {0}, "the work is not on the queue yet"
        sagas.queue.away = False
        await sagas.settled(task)
    assert len(sagas.queue.entries) == 1


# --- processes that die ---------------------------------------------------------------------------------------------------


class StoppingStore(MemoryEventStore):
    def __init__(self, log: MemoryLog, stops: Stops) -> None:
        super().__init__(log)
        self._stops = stops

    async def append(self, request: AppendRequest) -> AppendResult:
        await self._stops.at("before the append")
        result = await super().append(request)
        await self._stops.at("after the append")
        return result


class StoppingCheckpoints(MemoryCheckpoints):
    """Checkpoints on the rows of the other managers, with a crash at a chosen moment."""

    def __init__(self, sagas: Sagas, stops: Stops) -> None:
        super().__init__(sagas.log)
        self.rows, self.parked, self._stops = sagas.checkpoints.rows, sagas.checkpoints.parked, stops

    async def advance(self, known: dict[str, Checkpoint], position: int) -> dict[str, Checkpoint]:
        await self._stops.at("before the checkpoint")
        advanced = await super().advance(known, position)
        await self._stops.at("after the checkpoint")
        return advanced


@pytest.mark.parametrize("moment", ["before the append", "after the append", "before the checkpoint", "after the checkpoint"])
async def test_a_process_that_dies_at_any_moment_leaves_each_reaction_once(sagas: Sagas, moment: str) -> None:
    project_id, stops = await sagas.project(), Stops(moment)
    doomed = sagas.manager(store=StoppingStore(sagas.log, stops), checkpoints=StoppingCheckpoints(sagas, stops))
    async with sagas.working(doomed):
        async with within(15):
            await stops.reached.wait()
        assert sagas.reserved(project_id) == {"before the append": [], "after the append": TOTALS[:1]}.get(moment, TOTALS)
        if moment != "after the checkpoint":
            assert sagas.positions() == {0}, "the checkpoint moves when all that it stands for is recorded"
    async with sagas.working() as task:
        await sagas.settled(task)
        assert sagas.reserved(project_id) == TOTALS
        later = await sagas.project()
        await sagas.settled(task)
        assert sagas.reserved(later) == TOTALS


async def test_a_lost_answer_to_a_checkpoint_costs_nothing(sagas: Sagas) -> None:
    class LosesAnswers(MemoryCheckpoints):
        lost = 0

        async def advance(self, known: dict[str, Checkpoint], position: int) -> dict[str, Checkpoint]:
            advanced = await super().advance(known, position)
            if self.lost < 3:
                self.lost += 1
                self.log.away = True
                asyncio.get_running_loop().call_soon(setattr, self.log, "away", False)
                self.log.reach()
            return advanced

    sagas.checkpoints = LosesAnswers(sagas.log)
    project_id = await sagas.project()
    async with sagas.working() as task:
        await sagas.settled(task)
    assert sagas.reserved(project_id) == TOTALS


# --- who owns a partition -------------------------------------------------------------------------------------------------


async def test_who_lost_its_place_is_told_and_moves_nothing(sagas: Sagas) -> None:
    async with sagas.working() as first:
        await sagas.project()
        head = await sagas.settled(first)
        await sagas.checkpoints.take(PARTITIONS)
        await sagas.project()
        with pytest.raises(LostOwnership):
            async with within(15):
                await asyncio.shield(first)
        assert sagas.positions() == {head}


async def test_partitions_are_shared_by_processes(sagas: Sagas) -> None:
    halves = (PARTITIONS[:4], PARTITIONS[4:])
    async with (
        sagas.working(sagas.manager(partitions=halves[0])) as one,
        sagas.working(sagas.manager(partitions=halves[1])) as other,
    ):
        project_ids = [await sagas.project() for _ in range(20)]

        def all_there() -> bool:
            return all(sagas.reserved(project_id) == TOTALS for project_id in project_ids)

        await until(all_there)
        await sagas.settled(one, halves[0])
        await sagas.settled(other, halves[1])
    assert sagas.checkpoints.parked == {}


async def test_a_partition_of_another_process_is_left_alone(sagas: Sagas) -> None:
    ours, theirs = of_partition("sagas:3"), of_partition("sagas:4")
    await sagas.project(ours)
    await sagas.project(theirs)
    async with sagas.working(sagas.manager(partitions=["sagas:3"])) as task:
        await sagas.settled(task, ["sagas:3"])
    assert (sagas.reserved(ours), sagas.reserved(theirs)) == (TOTALS, [])
    assert set(sagas.checkpoints.rows) == {"sagas:3"}


async def test_partitions_at_different_positions_are_each_continued_from_their_own(sagas: Sagas) -> None:
    ahead, behind = of_partition("sagas:1"), of_partition("sagas:2")
    await sagas.project(ahead)
    await sagas.project(behind)
    sagas.checkpoints.rows |= {"sagas:1": Checkpoint(2, 5), "sagas:2": Checkpoint(0, 1)}
    async with sagas.working(sagas.manager(partitions=["sagas:1", "sagas:2"])) as task:
        await sagas.settled(task, ["sagas:1", "sagas:2"])
    assert (sagas.reserved(ahead), sagas.reserved(behind)) == ([], TOTALS), "what was handled before is not handled again"
    assert {name: row.epoch for name, row in sagas.checkpoints.rows.items()} == {"sagas:1": 6, "sagas:2": 2}


async def test_a_partition_that_is_ahead_of_a_batch_is_not_moved_back(sagas: Sagas) -> None:
    sagas.checkpoints.rows |= {"sagas:1": Checkpoint(50, 1), "sagas:2": Checkpoint(0, 1)}
    await sagas.project(of_partition("sagas:2"))
    async with sagas.working(sagas.manager(partitions=["sagas:1", "sagas:2"])):
        await until(lambda: sagas.checkpoints.rows["sagas:2"].position == 3)
    assert sagas.checkpoints.rows["sagas:1"].position == 50
