"""The whole product without servers: commands, sagas, timers and workers on the in-memory ports. A run takes milliseconds."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from adapters.expressions import CelExpressions
from application.catalog import CATALOG
from application.engine.background import end
from application.engine.catalog import Catalog
from application.engine.commands.hooks import Hook
from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import Caller, CommandOutcome, CommandRequest
from application.engine.commands.snapshots import Snapshotter
from application.engine.commands.telling import TellingStore
from application.engine.ports.queue import Queue, WorkQueue
from application.engine.reading.history_keeper import HistoryKeeper
from application.engine.reading.live import SILENCE_S, LiveFeed
from application.engine.reconciler import WorkReconciler
from application.engine.sagas.manager import PARTITIONS, SagaManager
from application.engine.timers import TimerService
from application.functions import RuleFunctions
from application.plans.check import PlanChecks
from application.runs.admission import RunAdmission
from application.runs.start import start_run
from application.schedules.defining import Schedules
from application.triggers.roots import Roots
from application.workers import Workers
from application.workers.claims import ClaimedAgentRun
from application.workers.journal import JournalView
from application.workers.registering import Offer
from application.workers.scheduling import AgentSchedules
from application.workers.tokens import LeaseTokens
from application.workflows import Workflows
from domain import agent_runs, agents, invocations, runs, tools
from domain.amounts import Amounts
from domain.failures import Failure, Retry
from domain.kernel import NO_FUNCTIONS, Command, Json, Priority, RecordedEvent
from domain.projects import CreateProject, default_project_id
from projections import timers as timer_table
from projections import work as work_table
from tests.kit.memory import (
    Delivery,
    ManualClock,
    MemoryCachedCalls,
    MemoryCheckpoints,
    MemoryDataTools,
    MemoryEventFeed,
    MemoryEventStore,
    MemoryHistories,
    MemoryInstallationSecrets,
    MemoryLog,
    MemoryNames,
    MemoryOpenRuns,
    MemoryOpenWork,
    MemoryOutcomeCounts,
    MemoryPermits,
    MemorySnapshots,
    MemorySubscription,
    MemoryTimers,
    MemoryWorkerProblems,
    MemoryWorkerSessions,
    MemoryWorkLogs,
    MemoryWorkQueue,
    SessionBoard,
)
from tests.kit.memory.schedules import MemorySchedules, NoStoredVersions
from tests.kit.waiting import TENANT, new_id, request_of, until
from tests.pace import within

EXPRESSIONS = CelExpressions()
FUNCTIONS = RuleFunctions(EXPRESSIONS)


async def _all_know() -> bool:
    return True


class Engine:
    """One process of the engine. `another` makes a second one, with a cache of its own, on the same log."""

    def __init__(
        self,
        catalog: Catalog = CATALOG,
        *,
        hooks: Sequence[Hook] = (),
        snapshot_every: int = 0,
        shared: "Engine | None" = None,
        store: MemoryEventStore | None = None,
        silence_s: float = SILENCE_S,
        max_open_runs: int = 100_000,
        max_open_runs_of_tenant: int = 0,
        reactions: bool = True,
        work_queue: WorkQueue | None = None,
    ) -> None:
        """`reactions`: see `CommandLoop`. `work_queue`: instead of the one in memory, `queue`."""
        self.catalog = catalog if catalog.functions is not NO_FUNCTIONS else replace(catalog, functions=FUNCTIONS)
        catalog = self.catalog
        self.reactions = reactions
        self.clock = shared.clock if shared else ManualClock()
        self.log = shared.log if shared else MemoryLog(self.clock)
        self.store = store or MemoryEventStore(self.log)
        self.feed, self.histories = MemoryEventFeed(self.log), HistoryKeeper(MemoryHistories(self.log))
        self.subscription = MemorySubscription(self.log, self.histories)
        self.live = LiveFeed(self.feed, self.subscription, self.histories, silence_s=silence_s)
        self.checkpoints = shared.checkpoints if shared else MemoryCheckpoints(self.log)
        self.queue = shared.queue if shared else MemoryWorkQueue(self.clock)
        self.work_queue = work_queue or self.queue
        self.timers = shared.timers if shared else MemoryTimers(self.log)
        self.open_work = shared.open_work if shared else MemoryOpenWork(self.log)
        self.snapshots = shared.snapshots if shared else MemorySnapshots(self.log)
        self.snapshotter = Snapshotter(self.snapshots, catalog.registry, every=snapshot_every) if snapshot_every else None
        told = TellingStore(self.store, self.live.appended)
        self.commands = CommandLoop(told, catalog, snapshots=self.snapshotter, hooks=hooks, reactions=reactions)
        self.session_board = shared.session_board if shared else SessionBoard(self.open_work)
        self.sessions = MemoryWorkerSessions(self.session_board)
        self.permits = shared.permits if shared else MemoryPermits(self.open_work)
        self.open_runs = MemoryOpenRuns(self.log)
        self.admission = RunAdmission(
            self.open_runs,
            most=max_open_runs,
            most_of_tenant=max_open_runs_of_tenant,
            clock=lambda: self.clock.now().timestamp(),
        )
        self.workers = Workers(
            self.commands,
            self.work_queue,
            MemoryWorkerProblems(self.log),
            MemoryNames(self.log, tools.ToolRegistered),
            self.sessions,
            LeaseTokens(MemoryInstallationSecrets()),
            EXPRESSIONS,
            MemoryCachedCalls(self.log),
            self._agent_schedules(),
        )
        self.workers.budgets.books.hear_by(self.live.call)
        self.admission.default_budget = self.workers.budgets.books.default_of
        self.data_tools = MemoryDataTools(self.log)
        self.outcomes = shared.outcomes if shared else MemoryOutcomeCounts(self.log)
        self.work_logs = shared.work_logs if shared else MemoryWorkLogs(self.log)
        self.reconciler = WorkReconciler(self.open_work, self.work_queue)
        if shared is None:
            self.log.followers.append(self._tables)
        self.tasks: list[asyncio.Task[None]] = []

    def _agent_schedules(self) -> AgentSchedules:
        """What agents do with schedules. The read model is as new as the log."""
        workflows, known = Workflows(self.commands, NoStoredVersions()), MemoryNames(self.log, agents.AgentRegistered)
        use = Schedules(self.commands, workflows, known, self.catalog.functions, self.admission, PlanChecks(EXPRESSIONS))
        roots = Roots(self.feed, self.store, self.catalog.registry, self.histories)
        return AgentSchedules(self.commands, use, MemorySchedules(self.log), roots, _all_know, clock=self.clock.now)

    def another(self, **options: Any) -> "Engine":
        return Engine(self.catalog, shared=self, **{"reactions": self.reactions, **options})

    def _tables(self, events: Sequence[RecordedEvent]) -> None:
        """Does the work of the read models of timers and of open work, by the same rules."""
        for recorded in events:
            if recorded.topic in timer_table.ENDS:
                self._drop_timers(recorded.stream_id)
            if recorded.topic in timer_table.PROJECTION.topics and (found := timer_table.timer_of(recorded)) is not None:
                due_at, timer = found
                self.timers.set(timer, due_at, set_at=recorded.recorded_at)
            if recorded.topic in work_table.CLOSED:
                self.open_work.close(recorded.stream_id)
            if recorded.topic in work_table.OPENED and (item := work_table.opened(recorded)) is not None:
                self.open_work.open(item, recorded.recorded_at)
            if recorded.topic in work_table.CLAIMED and (claim := work_table.claimed(recorded)) is not None:
                self.open_work.claim(recorded.stream_id, claim.session_id, claim.attempt, claim.permit_holder)

    def stop_tables(self) -> None:
        """The read models stand still from now on, as while nobody copies the log."""
        self.open_work.stands_at = self.log.head
        self.log.followers.remove(self._tables)

    def _drop_timers(self, stream_id: UUID) -> None:
        mine = [timer_id for timer_id, (_, timer) in self.timers.rows.items() if timer.cause.startswith(str(stream_id))]
        for timer_id in mine:
            del self.timers.rows[timer_id]

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Engine"]:
        """Runs sagas, timers and snapshots until the end of the block."""
        manager = SagaManager(self.commands, self.subscription, self.checkpoints, self.work_queue, self.catalog, lag_s=0.02)
        timers = TimerService(self.commands, self.timers, kinds=self.catalog.commands)
        loops = [manager.run(), timers.run(), self.live.run()]
        loops += [self.snapshotter.run()] if self.snapshotter is not None else []
        self.tasks = [asyncio.create_task(loop) for loop in loops]
        try:
            yield self
        finally:
            await end(*self.tasks)

    async def settled(self) -> int:
        """Waits until sagas and timers have no work left at the present time. Returns the head."""

        def at_rest() -> bool:
            for task in self.tasks:
                assert not task.done(), f"a loop ended: {task}"
            rows, head = self.checkpoints.rows, self.log.head
            due = any(due_at <= self.clock.now() for due_at, _ in self.timers.rows.values())
            return not due and all(name in rows and rows[name].position == head for name in PARTITIONS)

        await until(at_rest, "sagas and timers at rest")
        return self.log.head

    async def advance(self, seconds: float) -> int:
        """Moves the clock, and waits until the work that this causes is done."""
        self.clock.advance(seconds)
        return await self.settled()

    async def give(self, *commands: Command, tenant_id: UUID = TENANT, command_id: UUID | None = None) -> CommandOutcome:
        return await self.commands.execute(request_of(tenant_id, command_id), *commands)

    async def set_up(self, tenant_id: UUID = TENANT) -> None:
        """Makes the default project, as the set-up does."""
        await self.give(CreateProject(project_id=default_project_id(tenant_id), name="default"), tenant_id=tenant_id)

    async def start(
        self,
        *agents_: str,
        plan: runs.Plan | None = None,
        run_id: UUID | None = None,
        input: Json = None,
        tenant_id: UUID = TENANT,
        request: CommandRequest | None = None,
        metadata: dict[str, Json] | None = None,
        project_id: UUID | None = None,
        priority: Priority = "normal",
        compensate: runs.Compensate = "never",
        budget: runs.RunBudget | None = None,
    ) -> UUID:
        """Starts a sequential run of agents, or a plan."""
        run_id = run_id or new_id()
        await start_run(
            self.commands,
            request or request_of(tenant_id),
            run_id=run_id,
            project_id=project_id or default_project_id(tenant_id),
            plan=plan or runs.sequential(agents_),
            input=input,
            metadata=metadata or {},
            priority=priority,
            compensate=compensate,
            budget=budget,
            known=MemoryNames(self.log, agents.AgentRegistered),
            admission=self.admission,
        )
        return run_id

    async def run(self, run_id: UUID, tenant_id: UUID = TENANT) -> runs.Run:
        """Returns the state of a run after all automatic work is done."""
        await self.settled()
        state: runs.Run = (await self.commands.load(runs.DECIDER, tenant_id, run_id)).state
        return state

    async def agent_run(self, agent_run_id: UUID, tenant_id: UUID = TENANT) -> agent_runs.AgentRun:
        state: agent_runs.AgentRun = (await self.commands.load(agent_runs.DECIDER, tenant_id, agent_run_id)).state
        return state

    async def invocation(self, invocation_id: UUID, tenant_id: UUID = TENANT) -> invocations.Invocation:
        state: invocations.Invocation = (await self.commands.load(invocations.DECIDER, tenant_id, invocation_id)).state
        return state

    def topics(self, root_id: UUID) -> list[str]:
        """All events of a run, in the order of the log."""
        return [event.topic for event in self.log.events if event.root_id == root_id]

    def of_stream(self, stream_id: UUID) -> list[str]:
        return [event.topic for event in self.log.streams.get(stream_id, ())]

    def worker(self, worker_id: str = "worker-1", tenant_id: UUID = TENANT) -> "PlayedWorker":
        return PlayedWorker(self, worker_id, tenant_id)


@dataclass
class PlayedWorker:
    """The requests of a worker, sent straight to the use cases, without HTTP."""

    engine: Engine
    worker_id: str = "worker-1"
    tenant_id: UUID = TENANT
    queues: dict[tuple[str, str], Queue] = field(default_factory=dict)

    @property
    def caller(self) -> Caller:
        return Caller(self.tenant_id, "key:test")

    async def register(self, *agents_: str, tools_: Mapping[str, Mapping[str, Any]] | Iterable[str] = ()) -> None:
        offers = tools_ if isinstance(tools_, Mapping) else {name: {} for name in tools_}
        plain = {"parameters": {"type": "object"}, "idempotent": True}
        found = (
            [agents.RegisterAgent(agent_id=agents.agent_id_of(self.tenant_id, name), name=name) for name in agents_],
            [
                tools.RegisterTool(tool_id=tools.tool_id_of(self.tenant_id, name), name=name, **{**plain, **offer})
                for name, offer in offers.items()
            ],
        )
        for kind, commands in zip(("agent", "tool"), found, strict=True):
            given = [Offer(command.name, command.version, command) for command in commands]
            for _, queue, refusal in await self.engine.workers.registration.each(lambda: request_of(self.tenant_id), kind, given):
                if refusal is not None:
                    raise refusal
                assert queue is not None
                self.queues[kind, queue.pool] = queue

    async def take(self, pool: str, kind: str = "agent") -> Delivery:
        return await self.engine.queue.next(self.queues[kind, pool])

    async def nothing_to_take(self, pool: str, kind: str = "agent") -> bool:
        await self.engine.settled()
        return await self.engine.queue.pull(self.queues[kind, pool]) == []

    async def next(self, pool: str, kind: str = "agent") -> "Claim":
        """Takes the next item of a queue and claims it."""
        async with within(15):
            delivery = await self.take(pool, kind)
        return await self.claim(delivery)

    async def claim(self, delivery: Delivery) -> "Claim":
        item, name = delivery.item, str(delivery.delivery)
        if item.kind == "agent":
            command = agent_runs.ClaimAgentRun(agent_run_id=item.work_id, worker_id=self.worker_id, dispatch=item.dispatch)
            view, outcome = await self.engine.workers.claims.claim(self.caller, command, name)
            return Claim(self, item.kind, item.work_id, view.attempt, delivery, view, outcome)
        wanted = invocations.ClaimInvocation(invocation_id=item.work_id, worker_id=self.worker_id, dispatch=item.dispatch)
        invocation, outcome = await self.engine.workers.invocations.claim(self.caller, wanted, name)
        return Claim(self, item.kind, item.work_id, invocation.attempt, delivery, None, outcome)


@dataclass
class Claim:
    """An agent run or a call that a played worker holds."""

    worker: PlayedWorker
    kind: str
    work_id: UUID
    attempt: int
    delivery: Delivery
    view: ClaimedAgentRun | None
    outcome: CommandOutcome

    @property
    def given(self) -> ClaimedAgentRun:
        assert self.view is not None
        return self.view

    @property
    def _workers(self) -> Workers:
        return self.worker.engine.workers

    async def complete(self, result: Json = None, usage: Amounts | None = None) -> CommandOutcome:
        caller = self.worker.caller
        if self.kind == "agent":
            command = agent_runs.CompleteAgentRun(agent_run_id=self.work_id, attempt=self.attempt, result=result)
            outcome = await self._workers.outcomes.complete(caller, command)
        else:
            of_call = invocations.CompleteInvocation(invocation_id=self.work_id, attempt=self.attempt, result=result, usage=usage)
            outcome = await self._workers.invocations.complete(caller, of_call)
        await self.delivery.ack()
        return outcome

    async def fail(self, kind: str = "permanent", message: str = "broken", retry_after_s: float | None = None) -> bool:
        """Whether an agent run is retried; False for a call."""
        error = Failure.model_validate({"type": "TestError", "message": message, "kind": kind, "retry_after_s": retry_after_s})
        caller, again = self.worker.caller, False
        if self.kind == "agent":
            command = agent_runs.FailAgentRun(agent_run_id=self.work_id, attempt=self.attempt, error=error)
            _, again = await self._workers.outcomes.fail(caller, command)
        else:
            of_call = invocations.FailInvocation(invocation_id=self.work_id, attempt=self.attempt, error=error)
            await self._workers.invocations.fail(caller, of_call)
        await self.delivery.ack()
        return again

    async def step(self, key: str, result: Json = None) -> CommandOutcome:
        command = agent_runs.RecordStep(agent_run_id=self.work_id, attempt=self.attempt, key=key, result=result)
        return (await self._workers.journals.record(self.worker.caller, self.work_id, [command]))[0]

    async def call(self, key: str, tool: str, **arguments: Json) -> UUID:
        command = agent_runs.StartCall(agent_run_id=self.work_id, attempt=self.attempt, key=key, tool=tool)
        return (await self._workers.calls.call(self.worker.caller, command, arguments))[0]

    async def send(self, key: str, to: str, body: Json) -> UUID:
        sent = await self._workers.mail.send(
            self.worker.caller, agent_run_id=self.work_id, attempt=self.attempt, key=key, to=to, body=body
        )
        return sent[0]

    async def receive(self, key: str, message_id: UUID | None) -> CommandOutcome:
        command = agent_runs.ReceiveMail(agent_run_id=self.work_id, attempt=self.attempt, key=key, message_id=message_id)
        return await self._workers.mail.receive(self.worker.caller, command)

    async def get(self, key: str, name: str) -> Json:
        got = await self._workers.context.get(
            self.worker.caller, agent_run_id=self.work_id, attempt=self.attempt, key=key, name=name
        )
        return got[0]

    async def set(self, key: str, name: str, value: Json, expect: int | None = None) -> Json:
        done = await self._workers.context.set(
            self.worker.caller, agent_run_id=self.work_id, attempt=self.attempt, key=key, name=name, value=value, expect=expect
        )
        return done[0]

    async def journal(self, after_version: int = 0) -> JournalView:
        return await self._workers.journals.page(self.worker.tenant_id, self.work_id, after_version=after_version)


def plan(**step: Any) -> runs.Plan:
    """Starts a run with one step `a` of the agent `alpha`."""
    return runs.Plan(steps=(runs.Step(**{"key": "a", "agent": "alpha", **step}),))


RETRY = Retry(max_attempts=3, initial_s=2.0, max_s=10.0)
