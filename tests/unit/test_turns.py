"""Turns of the commands of one root in one process: who goes with whom, what each is told, and what a cancellation leaves."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from application.catalog import CATALOG
from application.engine.commands import loop as loops
from application.engine.commands import turns
from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandOutcome
from application.engine.ports.log import AppendRequest, AppendResult
from domain import runs
from domain.agent_runs import CancelAgentRun
from domain.context import ContextValueSet
from domain.errors import AlreadyExists, InvalidState, NotFound, PayloadTooLarge, Unavailable, VersionConflict
from domain.kernel import Metadata, RecordedEvent
from domain.runs import Plan, Step
from tests.kit.commands import CountingStore, elsewhere, put, start
from tests.kit.engine import Engine
from tests.kit.memory import MemoryLog
from tests.kit.waiting import TENANT, new_id, request_of, until
from tests.kit.waiting import turns as rounds
from tests.pace import within


class GatedStore(CountingStore):
    """Appends wait at a gate, and are noted."""

    def __init__(self, log: MemoryLog, **options: Any) -> None:
        super().__init__(log, **options)
        self.gate = asyncio.Semaphore(0)
        self.requests: list[AppendRequest] = []

    async def append(self, request: AppendRequest) -> AppendResult:
        self.requests.append(request)
        await self.gate.acquire()
        return await super().append(request)

    def open(self, appends: int = 1_000) -> None:
        """Lets so many appends through."""
        for _ in range(appends):
            self.gate.release()

    @property
    def commands(self) -> list[int]:
        """Number of commands of each append."""
        return [len(request.commands) for request in self.requests]


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def store(log: MemoryLog) -> GatedStore:
    return GatedStore(log)


@pytest.fixture
def loop(store: GatedStore) -> CommandLoop:
    return CommandLoop(store, CATALOG)


def values(log: MemoryLog, stream: UUID) -> list[Any]:
    return [ContextValueSet.model_validate_json(event.state).value for event in log.streams[stream]]


async def test_what_waits_goes_as_one_append_in_its_order(loop: CommandLoop, store: GatedStore, log: MemoryLog) -> None:
    stream, requests = new_id(), [request_of() for _ in range(10)]
    tasks = [asyncio.create_task(loop.execute(request, put(stream, n))) for n, request in enumerate(requests)]
    await until(lambda: store.requests)
    await rounds()
    store.open()
    outcomes = await asyncio.gather(*tasks)
    assert store.commands == [1, 9] and values(log, stream) == list(range(10))
    assert [outcome.versions[stream] for outcome in outcomes] == list(range(1, 11)), "each has the version after its own event"
    assert [outcome.position for outcome in outcomes] == list(range(1, 11)), "and the position of what followed from it"
    assert [event.value for outcome in outcomes for event in outcome.events] == list(range(10))  # type: ignore[attr-defined]
    assert [Metadata.model_validate_json(event.metadata).command_id for event in log.events] == [r.command_id for r in requests]
    loaded = await loop.load(CATALOG.deciders["context"], TENANT, stream, fresh=False)
    assert (loaded.version, loaded.position) == (10, 10)


async def test_a_refused_one_is_answered_alone(loop: CommandLoop, store: GatedStore, log: MemoryLog) -> None:
    stream = new_id()
    commands = [put(stream, 0), put(stream, 1, expect=1), put(stream, 2, expect=1), put(stream, 3, expect=2), put(stream, "\ud800")]
    tasks = [asyncio.create_task(loop.execute(request_of(), command)) for command in commands]
    await until(lambda: store.requests)
    store.open()
    first, second, refused, third, unwritable = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(refused, InvalidState) and isinstance(unwritable, Exception)
    assert values(log, stream) == [0, 1, 3]
    assert [outcome.versions[stream] for outcome in (first, second, third)] == [1, 2, 3]  # type: ignore[union-attr]


async def test_nobody_is_refused_because_of_what_is_not_in_the_log_yet(
    loop: CommandLoop, store: GatedStore, log: MemoryLog
) -> None:
    """A second start of a run is refused because of the first. If the first is not recorded, the second must not be refused."""
    run_id = new_id()
    tasks = [asyncio.create_task(loop.execute(request_of(), command)) for command in (put(run_id), start(run_id), start(run_id))]
    other = asyncio.create_task(loop.execute(request_of(), put(new_id())))
    await until(lambda: len(store.requests) == 2)
    await rounds()
    tasks[0].cancel()
    log.away = True
    store.open()
    results = await asyncio.gather(*tasks, other, return_exceptions=True)
    assert [type(result) for result in results[1:]] == [Unavailable] * 3 and log.head == 0


async def test_the_second_start_is_refused_once_the_first_is_recorded(loop: CommandLoop, store: GatedStore) -> None:
    run_id = new_id()
    store.open()
    one, other, third = await asyncio.gather(
        loop.execute(request_of(), runs.CancelRun(run_id=run_id)),
        loop.execute(request_of(), start(run_id)),
        loop.execute(request_of(), start(run_id)),
        return_exceptions=True,
    )
    assert isinstance(one, NotFound) and isinstance(other, CommandOutcome) and isinstance(third, AlreadyExists)


async def test_roots_do_not_wait_for_one_another(loop: CommandLoop, store: GatedStore) -> None:
    shared = new_id()
    pairs = ((new_id(), TENANT), (shared, TENANT), (shared, new_id()))
    tasks = [asyncio.create_task(loop.execute(request_of(tenant), put(stream))) for stream, tenant in pairs]
    await until(lambda: len(store.requests) == 3)
    store.open()
    *_, refused = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(refused, Exception), "the stream is of the other tenant"


async def test_the_root_of_a_stream_that_nobody_has_loaded_is_found(engine: Engine, worker: Any) -> None:
    """Steps of one run are recorded by a process that has never heard of the run."""
    await engine.start(plan=Plan(steps=tuple(Step(key=f"s{n}", agent="alpha") for n in range(5))))
    claims = [await worker.next("alpha") for _ in range(5)]
    store = GatedStore(engine.log)
    other = engine.another(store=store)
    for claim in claims:
        claim.worker = other.worker()
    tasks = [asyncio.create_task(claim.step("k", 1)) for claim in claims]
    await until(lambda: store.requests)
    await rounds()
    store.open()
    await asyncio.gather(*tasks)
    assert store.commands == [1, 4]


async def test_200_steps_that_end_at_once_need_few_appends() -> None:
    engine = Engine()
    store = CountingStore(engine.log)
    await engine.set_up()
    worker = engine.worker()
    async with engine.running():
        await worker.register("alpha")
        run_id = await engine.start(plan=Plan(steps=tuple(Step(key=f"s{n}", agent="alpha") for n in range(200))))
        claims = [await worker.next("alpha") for _ in range(200)]
        other = engine.another(store=store)
        for claim in claims:
            claim.worker = other.worker()
        await asyncio.gather(*(claim.complete() for claim in claims))
        assert store.appends <= 10
        topics = engine.of_stream(run_id)
        assert topics.count("run.step_completed") == 200 and topics[-1] == "run.completed"
        head = engine.log.head
        assert await engine.settled() == head, "nothing is left to the saga manager"


async def test_repeats_at_the_same_moment_are_one_for_each_process(loop: CommandLoop, store: GatedStore, log: MemoryLog) -> None:
    stream, request = new_id(), request_of()
    store.open()
    outcomes = await asyncio.gather(*(loop.execute(request, put(stream, 1)) for _ in range(5)))
    assert sorted(outcome.duplicate for outcome in outcomes) == [False, True, True, True, True] and log.head == 1
    assert set(store.commands) == {1}, "an append has a command once"


async def test_commands_of_one_caller_go_as_one_append_and_a_refused_one_is_answered_alone(
    loop: CommandLoop, store: GatedStore, log: MemoryLog
) -> None:
    stream = new_id()
    commands = [put(stream, 0), put(stream, 1, expect=1), put(stream, 2, expect=1), put(stream, 3, expect=2)]
    store.open()
    first, second, refused, last = await loop.execute_each([(request_of(), command) for command in commands])
    assert values(log, stream) == [0, 1, 3] and isinstance(refused, InvalidState)
    assert store.commands == [3]
    assert [outcome.versions[stream] for outcome in (first, second, last)] == [1, 2, 3]  # type: ignore[union-attr]


# --- cancellation ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["lead", "waits", "taken along"])
async def test_a_caller_that_goes_away_holds_nobody_up(loop: CommandLoop, store: GatedStore, log: MemoryLog, place: str) -> None:
    stream = new_id()
    tasks = [asyncio.create_task(loop.execute(request_of(), put(stream, n))) for n in range(4)]
    await until(lambda: store.requests)
    if place == "taken along":
        store.open(1)
        await until(lambda: len(store.requests) == 2)
    gone = tasks[0 if place == "lead" else 2]
    gone.cancel()
    await rounds()
    store.open()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(result, CommandOutcome) for result in results] == [task is not gone for task in tasks]
    assert values(log, stream) == [n for n in range(4) if tasks[n] is not gone or place == "taken along"]
    assert loop._turns._lanes == {}  # nothing is left behind


@pytest.mark.parametrize("place", ["lead", "waits", "taken along"])
async def test_a_caller_of_several_commands_that_goes_away_holds_nobody_up(
    loop: CommandLoop, store: GatedStore, log: MemoryLog, place: str
) -> None:
    stream = new_id()
    several = [(request_of(), put(stream, n)) for n in range(3)]
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(loop.execute(request_of(), put(stream, 10)))] if place != "lead" else []
    tasks += [asyncio.create_task(loop.execute_each(several)), asyncio.create_task(loop.execute(request_of(), put(stream, 20)))]
    await until(lambda: store.requests)
    if place == "taken along":
        store.open(1)
        await until(lambda: len(store.requests) == 2)
    gone = tasks[-2]
    gone.cancel()
    await rounds()
    store.open()
    async with within(15):
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(result, CommandOutcome) for result in results] == [task is not gone for task in tasks]
    assert values(log, stream) == ([20] if place == "lead" else [10, 20]) and loop._turns._lanes == {}


async def test_one_that_goes_away_at_the_moment_of_its_turn_passes_it_on(
    loop: CommandLoop, store: GatedStore, log: MemoryLog
) -> None:
    stream = new_id()

    async def leads() -> None:
        try:
            await loop.execute(request_of(), put(stream, 0))
        finally:
            tasks[1].cancel()  # it has been given the lead, and has not run since

    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(leads())]
    tasks += [asyncio.create_task(loop.execute(request_of(), put(stream, n))) for n in (1, 2)]
    await until(lambda: store.requests)
    await rounds()
    store.open()
    async with within(15):
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[1], asyncio.CancelledError) and isinstance(results[2], CommandOutcome)
    assert values(log, stream) == [0, 2] and loop._turns._lanes == {}


async def test_the_lead_that_goes_away_with_others_in_its_append_leaves_them_to_the_next(
    loop: CommandLoop, store: GatedStore, log: MemoryLog
) -> None:
    stream = new_id()
    tasks = [asyncio.create_task(loop.execute(request_of(), put(stream, n))) for n in range(4)]
    await until(lambda: store.requests)
    store.open(1)
    await until(lambda: len(store.requests) == 2)
    assert store.commands == [1, 3]
    tasks[1].cancel()
    await rounds()
    assert store.commands == [1, 3, 2]
    store.open()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(result, CommandOutcome) for result in results] == [True, False, True, True]
    assert values(log, stream) == [0, 2, 3] and loop._turns._lanes == {}


# --- trouble --------------------------------------------------------------------------------------------------------------


async def test_what_the_log_refuses_for_one_does_not_hit_the_others(log: MemoryLog) -> None:
    """The limit of the log is lower than that of the loop: the append as a whole is refused, and each goes alone then."""
    store = GatedStore(log, max_event_bytes=1_000)
    loop, stream = CommandLoop(store, CATALOG), new_id()
    tasks = [asyncio.create_task(loop.execute(request_of(), put(stream, value))) for value in (0, 1, "x" * 2_000, 3)]
    await until(lambda: store.requests)
    await rounds()
    store.open()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [CommandOutcome, CommandOutcome, PayloadTooLarge, CommandOutcome]
    assert values(log, stream) == [0, 1, 3]


async def test_a_stream_that_cannot_be_read_is_the_trouble_of_its_own_commands(log: MemoryLog) -> None:
    class Broken(GatedStore):
        async def read_stream(self, tenant_id: UUID, stream_id: UUID, **bounds: Any) -> list[RecordedEvent]:
            if stream_id == broken:
                raise ValueError("what is this?")
            return await super().read_stream(tenant_id, stream_id, **bounds)

    store = Broken(log)
    loop, stream, broken = CommandLoop(store, CATALOG), new_id(), new_id()
    bad = put(broken).model_copy(update={"run_id": stream})
    tasks = [asyncio.create_task(loop.execute(request_of(), command)) for command in (put(stream, 0), bad, put(stream, 2))]
    await until(lambda: store.requests)
    await rounds()
    store.open()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [CommandOutcome, ValueError, CommandOutcome]
    assert store.commands == [1, 1] and values(log, stream) == [0, 2]


async def test_an_outage_reaches_all_that_wait(loop: CommandLoop, store: GatedStore, log: MemoryLog) -> None:
    stream = new_id()
    tasks = [asyncio.create_task(loop.execute(request_of(), put(stream, n))) for n in range(5)]
    await until(lambda: store.requests)
    log.away = True
    store.open()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [Unavailable] * 5
    assert len(store.requests) == 1, "nobody waits for the database twice"
    log.away = False
    assert (await loop.execute(request_of(), put(stream, 9))).versions == {stream: 1}


async def test_those_that_wait_are_bounded(
    loop: CommandLoop, store: GatedStore, log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "MAX_WAITING", 3)
    stream = new_id()
    tasks = [asyncio.create_task(loop.execute(request_of(), put(stream, n))) for n in range(5)]
    await until(lambda: tasks[4].done())
    store.open()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[4], Unavailable) and values(log, stream) == [0, 1, 2, 3]


async def test_calls_of_one_append_are_bounded(
    loop: CommandLoop, store: GatedStore, log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "MAX_TOGETHER", 4)
    stream = new_id()
    tasks = [asyncio.create_task(loop.execute(request_of(), put(stream, n))) for n in range(10)]
    await until(lambda: store.requests)
    await rounds()
    store.open()
    await asyncio.gather(*tasks)
    assert store.commands == [1, 4, 4, 1]


async def test_two_processes_get_through_and_the_crowd_waits_for_company(log: MemoryLog) -> None:
    stores = [CountingStore(log), CountingStore(log)]
    pair, stream = [CommandLoop(store, CATALOG) for store in stores], new_id()
    await asyncio.gather(*(pair[n % 2].execute(request_of(), put(stream, n)) for n in range(200)))
    assert sorted(values(log, stream)) == list(range(200))
    assert sum(store.appends for store in stores) <= 40


async def test_a_crowded_root_waits_for_company(loop: CommandLoop, store: GatedStore, log: MemoryLog) -> None:
    stream, left = new_id(), 3
    store.open()
    await loop.execute(request_of(), put(stream, 0))

    def somebody_is_quicker(request: AppendRequest) -> None:
        nonlocal left
        if left:
            left -= 1
            raise VersionConflict(stream, 1, 2)

    store.before_append = somebody_is_quicker
    await loop.execute(request_of(), put(stream, 1))
    store.requests.clear()
    tasks = []
    for n in range(3):
        tasks.append(asyncio.create_task(loop.execute(request_of(), put(stream, n))))
        await rounds(1)
    await asyncio.gather(*tasks)
    assert store.commands == [3], "the first one waited for the others"
    await elsewhere(log).execute(request_of(), put(stream, 9))
    await loop.execute(request_of(), put(stream, 10))
    assert values(log, stream)[-1] == 10


async def waits_for_company(taken: turns.Turns, key: turns.Key) -> bool:
    """Whether a command of this root lets others come before it is decided."""
    begun: list[turns.TurnEntry] = []

    async def lead(_: turns.Lane, entry: turns.TurnEntry) -> None:
        begun.append(entry)

    task = asyncio.create_task(taken.take(key, [turns.TurnEntry(request_of(), (), None)], lead))
    await rounds()
    waits = not begun
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return waits


async def test_a_root_counts_as_crowded_for_a_second_and_no_other_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "COMPANY_S", 3_600.0)
    now, taken = asyncio.get_running_loop().time(), turns.Turns()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    taken.crowd((1, 1))
    assert await waits_for_company(taken, (1, 1))
    assert not await waits_for_company(taken, (1, 2)), "another root"
    now += turns.CROWDED_S
    assert await waits_for_company(taken, (1, 1)), "to the very end of the second"
    now += 0.001
    assert not await waits_for_company(taken, (1, 1))
    assert not taken._crowded, "and nothing is kept of it"


async def test_no_more_roots_are_remembered_as_crowded_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "MAX_CROWDED", 2)
    taken = turns.Turns()
    for root in (1, 2, 1, 3):
        taken.crowd((0, root))
    assert list(taken._crowded) == [(0, 1), (0, 3)], "the one that was crowded last stays"


async def test_the_root_of_agent_runs_is_read_by_a_process_that_has_never_heard_of_them(engine: Engine, worker: Any) -> None:
    run_id = await engine.start(plan=Plan(steps=tuple(Step(key=key, agent="alpha") for key in ("a", "b"))))
    agent_runs_of = [runs.agent_run_id_of(run_id, key) for key in ("a", "b")]
    store = GatedStore(engine.log)
    cold = CommandLoop(store, CATALOG)
    tasks = [asyncio.create_task(cold.execute(request_of(), CancelAgentRun(agent_run_id=id, reason="why"))) for id in agent_runs_of]
    await until(lambda: store.requests)
    await rounds()
    assert len(store.requests) == 1, "they are of one root: the second one waits for the first"
    store.open()
    await asyncio.gather(*tasks)
    assert [engine.log.streams[id][-1].topic for id in agent_runs_of] == ["agent_run.cancelled"] * 2
