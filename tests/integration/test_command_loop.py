"""The command loop on a real log: races between processes, repeated commands, outdated caches, atomic appends, limits, outages."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from adapters.postgres.log.event_store import PostgresEventStore
from adapters.postgres.log.group_commit import WriterLimits
from adapters.postgres.pool import open_pool
from application.catalog import CATALOG
from application.engine.commands.loop import CommandLoop
from application.engine.ports.log import AppendRequest, AppendResult, EventStore
from domain import agent_runs, context, invocations, projects, runs
from domain.errors import (
    AlreadyExists,
    InvalidState,
    NotFound,
    PayloadTooLarge,
    StaleAttempt,
    Unavailable,
    VersionConflict,
)
from domain.failures import Retry
from domain.kernel import Metadata
from domain.tenants import DEFAULT_TENANT_ID as TENANT
from tests.integration.system_kit import eventually, new_id, request_of
from tests.integration.wire_kit import wired
from tests.pace import within


@asynccontextmanager
async def process(database_url: str, **limits: Any) -> AsyncIterator[CommandLoop]:
    """The command loop of a process of its own, with its own pool, writer and cache."""
    pool = await open_pool(database_url, role="test", max_size=4, timeout=1.0)
    store = PostgresEventStore(database_url, pool, limits=WriterLimits(**limits))
    await store.start()
    try:
        yield CommandLoop(store, CATALOG)
    finally:
        await store.close()
        await pool.close()


@pytest_asyncio.fixture
async def two(database_url: str) -> AsyncIterator[tuple[CommandLoop, CommandLoop]]:
    async with process(database_url) as first, process(database_url) as second:
        yield first, second


class CountedAppends:
    """The event store of a process, with the number of its appends, those in vain included."""

    def __init__(self, store: EventStore) -> None:
        self.number = 0
        self._append = store.append

    async def append(self, request: AppendRequest) -> AppendResult:
        self.number += 1
        return await self._append(request)


def set_value(context_id: UUID, value: int, expect: int | None = None) -> context.SetContextValue:
    return context.SetContextValue(
        context_id=context_id, run_id=new_id(), agent_run_id=new_id(), name="n", value=value, expect=expect
    )


def start_run(run_id: UUID, *agents: str) -> runs.StartRun:
    return runs.StartRun(run_id=run_id, project_id=new_id(), plan=runs.sequential(agents or ("alpha",)))


def request_agent_run(agent_run_id: UUID) -> agent_runs.RequestAgentRun:
    return agent_runs.RequestAgentRun(agent_run_id=agent_run_id, run_id=new_id(), step="s", agent="alpha", agent_version="1")


async def test_two_processes_race_on_one_stream_and_nothing_is_lost(two: tuple[CommandLoop, CommandLoop]) -> None:
    """Callers read the value, add one, and set it if unchanged: the value counts the successes exactly."""
    context_id, decisions = new_id(), Counter[str]()

    async def add_one(loop: CommandLoop) -> None:
        while True:
            state = (await loop.load(context.DECIDER, TENANT, context_id)).state
            value = state.entries["n"].value if "n" in state.entries else 0
            try:
                await loop.execute(request_of(), set_value(context_id, value + 1, state.version_of("n")))
            except (InvalidState, VersionConflict) as error:
                decisions[type(error).__name__] += 1
            else:
                decisions["done"] += 1
                return

    await asyncio.gather(*(add_one(two[i % 2]) for i in range(30)))
    for loop in two:
        final = await loop.load(context.DECIDER, TENANT, context_id)
        assert (final.state.entries["n"].value, final.version) == (30, 30)
    assert decisions["InvalidState"] > 0, "nobody raced"


async def test_writes_without_a_condition_all_get_through(two: tuple[CommandLoop, CommandLoop]) -> None:
    context_id = new_id()
    outcomes = await asyncio.gather(*(two[i % 2].execute(request_of(), set_value(context_id, i)) for i in range(8)))
    assert sorted(outcome.versions[context_id] for outcome in outcomes) == list(range(1, 9))


async def test_200_steps_that_end_at_once_in_two_processes_need_few_appends(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ends of the steps are decided with the reports of the workers, so all of them write the stream of the run."""
    async with process(database_url) as first, process(database_url) as second:
        both, run_id = (first, second), new_id()
        steps = tuple(runs.Step(key=f"s{n}", agent="alpha") for n in range(200))
        await first.execute(request_of(), runs.StartRun(run_id=run_id, project_id=new_id(), plan=runs.Plan(steps=steps)))
        ids = [runs.agent_run_id_of(run_id, step.key) for step in steps]
        for n, (step, agent_run_id) in enumerate(zip(steps, ids, strict=True)):
            request = agent_runs.RequestAgentRun(
                agent_run_id=agent_run_id, run_id=run_id, step=step.key, agent="alpha", agent_version=None, retry=step.retry
            )
            await both[n % 2].execute(request_of(), request)  # the saga's work, as far as it is over the bound of an append
            claim = agent_runs.ClaimAgentRun(agent_run_id=agent_run_id, worker_id="w", dispatch=1)
            await both[n % 2].execute(request_of(), claim)
        counts = []
        for loop in both:
            store = loop._store
            counts.append(CountedAppends(store))
            monkeypatch.setattr(store, "append", counts[-1].append)
        ends = [agent_runs.CompleteAgentRun(agent_run_id=agent_run_id, attempt=1) for agent_run_id in ids]
        await asyncio.gather(*(both[n % 2].execute(request_of(), end) for n, end in enumerate(ends)))
        run = (await first.load(runs.DECIDER, TENANT, run_id)).state
        assert run.status == "completed" and {step.status for step in run.steps.values()} == {"completed"}
        assert sum(count.number for count in counts) <= 20


async def test_a_repeated_command_gets_the_first_answer_from_any_process(two: tuple[CommandLoop, CommandLoop]) -> None:
    run_id, request = new_id(), request_of()
    first = await two[0].execute(request, start_run(run_id))
    assert not first.duplicate and first.versions == {run_id: 2}
    for loop in two:  # the process that knows the run refuses the command at first; the other process does not know the run
        again = await loop.execute(request, start_run(run_id))
        assert again.duplicate and (again.position, again.versions, again.events) == (first.position, {run_id: 2}, ())
        assert again.recorded_at == first.recorded_at
        with pytest.raises(AlreadyExists):
            await loop.execute(request_of(), start_run(run_id))


async def test_repeats_at_the_same_moment_are_one(two: tuple[CommandLoop, CommandLoop]) -> None:
    run_id, request = new_id(), request_of()
    outcomes = await asyncio.gather(*(two[i % 2].execute(request, start_run(run_id)) for i in range(10)))
    assert len({outcome.position for outcome in outcomes}) == 1
    assert sum(not outcome.duplicate for outcome in outcomes) == 1


async def test_a_refusal_on_old_knowledge_is_looked_up_again(two: tuple[CommandLoop, CommandLoop]) -> None:
    here, there = two
    agent_run_id = new_id()
    await here.execute(request_of(), request_agent_run(agent_run_id))
    claim = agent_runs.ClaimAgentRun(agent_run_id=agent_run_id, worker_id="w", dispatch=1)
    await there.execute(request_of(), claim)
    step = agent_runs.RecordStep(agent_run_id=agent_run_id, attempt=1, key="k", result=1)
    # `here` still knows the run as unclaimed, and an unclaimed run refuses attempt 1.
    assert (await here.execute(request_of(), step)).versions == {agent_run_id: 3}
    await there.execute(request_of(), claim)
    with pytest.raises(StaleAttempt, match="2 is the newest"):
        await here.execute(request_of(), step.model_copy(update={"key": "k2"}))


async def test_that_nothing_is_to_be_done_is_looked_up_again(two: tuple[CommandLoop, CommandLoop]) -> None:
    here, there = two
    agent_run_id = new_id()
    invocation_id = agent_runs.invocation_id_of(agent_run_id, "k")
    await here.execute(request_of(), request_agent_run(agent_run_id))
    await here.execute(request_of(), agent_runs.ClaimAgentRun(agent_run_id=agent_run_id, worker_id="w", dispatch=1))
    finish = agent_runs.FinishCall(agent_run_id=agent_run_id, key="k", invocation_id=invocation_id, succeeded=True)
    assert (await here.execute(request_of(), finish)).events == ()  # the call does not exist yet
    await there.execute(request_of(), agent_runs.StartCall(agent_run_id=agent_run_id, attempt=1, key="k", tool="t"))
    outcome = await here.execute(request_of(), finish)
    assert [event.TOPIC for event in outcome.events] == ["agent_run.call_finished"]
    # An answer without events carries the present position of the stream.
    idle = await there.execute(request_of(), finish)
    assert (idle.events, idle.position, idle.versions) == ((), outcome.position, outcome.versions)


def call(agent_run_id: UUID, key: str, arguments: dict[str, Any]) -> tuple[agent_runs.StartCall, invocations.RequestInvocation]:
    return (
        agent_runs.StartCall(agent_run_id=agent_run_id, attempt=1, key=key, tool="t"),
        invocations.RequestInvocation(
            invocation_id=agent_runs.invocation_id_of(agent_run_id, key), run_id=new_id(), agent_run_id=agent_run_id, key=key,
            tool="t", arguments=arguments, idempotent=True, timeout_s=1, retry=Retry(),
        ),
    )  # fmt: skip


async def test_a_call_and_its_invocation_are_recorded_together_or_not_at_all(two: tuple[CommandLoop, CommandLoop]) -> None:
    loop, store = two[0], two[0]._store
    agent_run_id, request = new_id(), request_of()
    invocation_id = agent_runs.invocation_id_of(agent_run_id, "k")
    with pytest.raises(NotFound):  # the journal refuses, so there is no invocation either
        await loop.execute(request_of(), *call(agent_run_id, "k", {}))
    await loop.execute(request_of(), request_agent_run(agent_run_id))
    await loop.execute(request_of(), agent_runs.ClaimAgentRun(agent_run_id=agent_run_id, worker_id="w", dispatch=1))
    with pytest.raises(PayloadTooLarge):  # the invocation cannot be written, so the journal has no entry either
        await loop.execute(request_of(), *call(agent_run_id, "k", {"x": "x" * 300_000}))
    assert len(await store.read_stream(TENANT, agent_run_id)) == 2
    assert await store.read_stream(TENANT, invocation_id) == []

    outcome = await loop.execute(request, *call(agent_run_id, "k", {"x": 1}))
    assert outcome.versions == {agent_run_id: 3, invocation_id: 1}
    [started] = await store.read_stream(TENANT, agent_run_id, after_version=2)
    [requested] = await store.read_stream(TENANT, invocation_id)
    assert requested.position == started.position + 1 == outcome.position
    for recorded in (started, requested):
        assert Metadata.model_validate_json(recorded.metadata).command_id == request.command_id


async def test_the_callers_own_condition(two: tuple[CommandLoop, CommandLoop]) -> None:
    here, there = two
    run_id = new_id()
    await here.execute(request_of(), start_run(run_id, "alpha", "beta"))
    cancel = runs.CancelRun(run_id=run_id)
    with pytest.raises(VersionConflict) as conflict:
        await here.execute(request_of(), cancel, expected_version=1)
    assert (conflict.value.stream_id, conflict.value.expected, conflict.value.current) == (run_id, 1, 2)
    agent_run_id = runs.agent_run_id_of(run_id, "alpha")
    await there.execute(request_of(), runs.CompleteStep(run_id=run_id, step="alpha", agent_run_id=agent_run_id))
    with pytest.raises(VersionConflict):  # `here` still knows version 2 and learns the new version at the append
        await here.execute(request_of(), cancel, expected_version=2)
    request = request_of()
    done = await here.execute(request, cancel, expected_version=4)
    assert done.versions == {run_id: 5}
    repeated = await there.execute(request, cancel, expected_version=4)  # the same command is no conflict
    assert repeated.duplicate and repeated.position == done.position


async def test_another_tenants_stream_is_neither_read_nor_written(two: tuple[CommandLoop, CommandLoop]) -> None:
    loop, run_id, stranger = two[0], new_id(), new_id()
    await loop.execute(request_of(), start_run(run_id))
    for other in two:
        with pytest.raises(NotFound):
            await other.execute(request_of(stranger), runs.CancelRun(run_id=run_id))
        with pytest.raises(AlreadyExists):
            await other.execute(request_of(stranger), start_run(run_id))
        assert (await other.load(runs.DECIDER, stranger, run_id)).version == 0
    assert (await loop.load(runs.DECIDER, TENANT, run_id)).version == 2


async def test_without_a_database_the_caller_is_told_in_time(database_url: str) -> None:
    async with wired(database_url) as (wire, url), process(url, retry_seconds=0.3) as loop:
        project = projects.CreateProject(project_id=new_id(), name="p")
        await loop.execute(request_of(), project)
        await wire.cut()
        request, other = request_of(), projects.CreateProject(project_id=new_id(), name="other")
        async with within(10):
            with pytest.raises(Unavailable):
                await loop.execute(request, other)
            with pytest.raises(Unavailable):
                await loop.load(projects.DECIDER, TENANT, new_id())
        await wire.mend()

        async def again() -> bool:
            try:
                return (await loop.execute(request, other)).versions == {other.project_id: 1}
            except Unavailable:
                return False

        await eventually(again)


async def test_no_database_at_all() -> None:
    async with process("postgresql://nobody@127.0.0.1:1/none", retry_seconds=0.2) as loop, within(10):
        with pytest.raises(Unavailable):
            await loop.execute(request_of(), start_run(new_id()))
