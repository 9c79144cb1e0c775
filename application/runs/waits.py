"""What each open step of a run waits for, and why: as the log says it, with the workers and timers of this moment.

Asked for one run at a time, by a person. So nothing is kept for it, and no event costs more.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.engine.ports.sessions import WorkerSessions
from application.reads import RunReads
from application.views.waits import RunWaits, RunWaitView, WaitsFor
from domain import agent_runs, breakers, invocations, run_keys, runs
from domain.agent_runs import AgentRun
from domain.approval_rules import question_id_of
from domain.breakers import ToolBreaker, breaker_id_of
from domain.concurrency import KeyOfRun
from domain.errors import NotFound
from domain.invocations import Invocation
from domain.run_keys import RunKey
from domain.runs import Run, part_key
from domain.tools import tool_id_of

MOST = 100
"""Executions, and calls of one of them, that are looked at."""
WAITS_FOR: Mapping[agent_runs.WaitKind, WaitsFor] = {"sleep": "clock", "signal": "signal", "approval": "approval", "child": "run"}
RESUMES = frozenset({"ResumeAgentRun", "RequeueInvocation"})
"""Commands of timers that end the delay of a retry."""


class Execution(NamedTuple):
    step: str
    id: UUID
    is_run: bool = False


async def waits_of(commands: CommandLoop, sessions: WorkerSessions, reads: RunReads, tenant_id: UUID, run_id: UUID) -> RunWaits:
    """Raises NotFound, Unavailable."""
    run: Run = (await commands.load(runs.DECIDER, tenant_id, run_id)).state
    if run.status == "absent":
        raise NotFound(f"there is no run {run_id}")
    if run.status in runs.OVER:
        return RunWaits(run_id=run_id, status=run.status, data=[])
    executions, clocks = executions_of(run)
    look = LookAtRun(commands, sessions, reads, tenant_id, run_id)
    found = [_paused(run)] if run.paused else []
    if run.queued and run.concurrency is not None:
        found.append(await _queued(commands, tenant_id, run_id, run.concurrency))
    found += [await look.clock(step) for step in clocks[:MOST]]
    for each in executions[:MOST]:
        found += [_child(each)] if each.is_run else await look.agent(each)
    await look.name_workers(found)
    if not found:
        told = "nothing of the run is under way, and it has not ended"
        found.append(RunWaitView(kind="run", id=run_id, waits_for="unknown", detail=told))
    more = max(len(executions) - MOST, 0) + max(len(clocks) - MOST, 0)
    status = "queued" if run.queued else "paused" if run.paused else run.status
    return RunWaits(run_id=run_id, status=status, data=found, more=more)


def executions_of(run: Run) -> tuple[list[Execution], list[str]]:
    """What is under way, in the order of the plan, and the steps that wait for a clock."""
    found: list[Execution] = []
    clocks: list[str] = []
    for key in run.graph.steps:
        state, progress = run.steps[key], run.progress.get(key)
        if state.status != "scheduled":
            continue
        if progress is None:
            if state.agent_run_id is not None:
                found.append(Execution(key, state.agent_run_id))
        elif progress.form == "wait":
            clocks.append(key)
        else:
            found += [Execution(part_key(key, n), one.execution_id, one.is_run) for n, one in sorted(progress.open.items())]
    return found, clocks


def _paused(run: Run) -> RunWaitView:
    cause = run.pause or run.pause_above
    assert cause is not None
    by = f" by {cause.by}" if cause.by else ""
    why = f" because: {cause.reason}" if cause.reason else ""
    if run.pause is None:
        return RunWaitView(
            kind="run", id=cause.parent_id, waits_for="resume", detail=f"paused with run {cause.parent_id}{by}{why}"
        )  # fmt: skip
    return RunWaitView(kind="run", waits_for="resume", detail=f"paused{by}{why}")


async def _queued(commands: CommandLoop, tenant_id: UUID, run_id: UUID, wanted: KeyOfRun) -> RunWaitView:
    key: RunKey = (await commands.load(run_keys.DECIDER, tenant_id, wanted.key_id)).state
    told, holder = f"key '{wanted.key}'", key.holder
    before = next((place for place, turn in enumerate(key.waiting) if turn.run_id == run_id), 0)
    if holder is None or holder.run_id == run_id:
        return RunWaitView(kind="run", waits_for="key", detail=f"it is about to get {told}")
    more = f", with {before} more before it" if before else ""
    return RunWaitView(kind="run", id=holder.run_id, waits_for="key", detail=f"{told}, held by run {holder.run_id}{more}")


def _child(each: Execution) -> RunWaitView:
    return RunWaitView(step=each.step, kind="run", id=each.id, waits_for="run", detail=f"run {each.id} has not ended")


class LookAtRun:
    """The looks at what is under way in one run."""

    def __init__(
        self, commands: CommandLoop, sessions: WorkerSessions, reads: RunReads, tenant_id: UUID, run_id: UUID
    ) -> None:  # fmt: skip
        self._commands = commands
        self._sessions = sessions
        self._reads = reads
        self._tenant_id = tenant_id
        self._run_id = run_id
        self._versions: dict[str, str] = {}
        """Agent → the version that was asked for."""

    async def clock(self, step: str) -> RunWaitView:
        due = await self._due(self._run_id, {"EndWait"}, step)
        told = "its time" if due is None else f"{due.isoformat()}"
        return RunWaitView(step=step, kind="clock", waits_for="clock", detail=f"it waits for {told}", until=due)

    async def agent(self, each: Execution) -> list[RunWaitView]:
        state: AgentRun = (await self._commands.load(agent_runs.DECIDER, self._tenant_id, each.id)).state
        requested = state.requested
        if requested is None:
            return [self._of_agent(each, None, "unknown", "its agent run has not been requested yet")]
        name = requested.agent
        match state.status:
            case "requested" if state.paused:
                return [self._of_agent(each, name, "resume", "it goes on when the run does")]
            case "requested":
                if requested.version_asked and requested.agent_version is not None:
                    self._versions[name] = requested.agent_version
                return [self._of_agent(each, name, "worker", "")]
            case "waiting":
                due = await self._due(each.id, RESUMES)
                told = f"it failed {state.failures} time{'' if state.failures == 1 else 's'}, and is tried again"
                return [self._of_agent(each, name, "retry", told, due)]
            case status if status in agent_runs.TERMINAL:
                return [self._of_agent(each, name, "unknown", f"its agent run is {status}, and the run has not heard of it yet")]
            case _:
                found = [*await self._calls(each, state.pending_calls), *await self._open_waits(each, name, state)]
                told = f"worker {state.worker_id} has it, as attempt {state.attempt}"
                return found or [self._of_agent(each, name, "agent", told)]

    async def _open_waits(self, each: Execution, name: str, state: AgentRun) -> list[RunWaitView]:
        """What the agent waits for beside its calls. Of messages only one that has left its worker is known to wait."""
        found = []
        for key, kind in sorted(state.waits.items())[:MOST]:
            due = await self._due(each.id, {"FinishWait"}) if kind == "sleep" else None
            view = self._of_agent(each, name, WAITS_FOR[kind], f"its agent waits as {key}", due)
            about = question_id_of(each.id, key, state.reopened) if kind == "approval" else None
            found.append(view.model_copy(update={"key": key, "approval_id": about}))
        if state.status == "suspended":
            for receive in state.receives:
                whose = "" if receive.sender is None else f" of {receive.sender}"
                told = f"its agent waits for a message{whose}"
                view = self._of_agent(each, name, "message", told, receive.until)
                found.append(view.model_copy(update={"key": receive.key}))
        return found

    def _of_agent(
        self, each: Execution, name: str | None, waits_for: WaitsFor, detail: str, until: datetime | None = None
    ) -> RunWaitView:  # fmt: skip
        return RunWaitView(step=each.step, kind="agent", name=name, id=each.id, waits_for=waits_for, detail=detail, until=until)

    async def _calls(self, each: Execution, calls: Sequence[UUID]) -> list[RunWaitView]:
        found = []
        for call in calls[:MOST]:
            state: Invocation = (await self._commands.load(invocations.DECIDER, self._tenant_id, call)).state
            if state.requested is not None and state.status not in invocations.TERMINAL:
                found.append(await self._call(each, call, state, state.requested))
        return found

    async def _call(
        self, each: Execution, call: UUID, state: Invocation, requested: invocations.InvocationRequested
    ) -> RunWaitView:  # fmt: skip
        due: datetime | None = None
        waits_for: WaitsFor
        match state.status:
            case "requested" if state.is_paused:
                waits_for, told = "resume", "it is called when the run goes on"
            case "requested" if requested.chain_id is not None:
                waits_for, told = "chain", f"chain {requested.chain_id} carries it out"
            case "requested":
                waits_for, told = "worker", ""
                if (breaker := await self._breaker(requested.tool)) is not None:
                    waits_for, told, due = "breaker", breaker[0], breaker[1]
            case "started":
                waits_for, told = "tool", f"worker {state.worker_id} calls it, as attempt {state.attempt}"
            case "waiting" | "asking_later":
                due = await self._due(call, RESUMES)
                waits_for, told = "retry", "it failed, and is tried again"
            case "held":
                what = "give more of a budget" if state.is_unpaid else "decide whether it may begin"
                waits_for, told = "approval", f"people {what} (approval {state.approval_id})"
            case "ambiguous":
                waits_for, told = "person", f"nobody knows whether attempt {state.called} took effect"
            case status if status in invocations.RECONCILING:
                waits_for, told = "reconcile", "its reconcile function is asked whether it took effect"
            case status:
                waits_for, told = "unknown", f"the call is {status}"
        return RunWaitView(
            step=each.step, kind="tool", name=requested.tool, id=call, key=requested.key, waits_for=waits_for, detail=told,
            until=due, approval_id=state.approval_id if waits_for == "approval" else None,
        )  # fmt: skip

    async def _breaker(self, tool: str) -> tuple[str, datetime | None] | None:
        id_ = breaker_id_of(tool_id_of(self._tenant_id, tool))
        breaker: ToolBreaker = (await self._commands.load(breakers.DECIDER, self._tenant_id, id_)).state
        return None if breaker.in_force != "open" else (f"the breaker of {tool} is open", breaker.tried_at)

    async def _due(self, stream_id: UUID, wanted: Iterable[str], step: str | None = None) -> datetime | None:
        found = await self._reads.due(self._tenant_id, stream_id)
        times = [timer.due_at for timer in found if timer.command in wanted and step in (None, timer.step)]
        return min(times, default=None)

    async def name_workers(self, found: Sequence[RunWaitView]) -> None:
        """Says of each piece of work that waits for a worker whether there is one."""
        for kind in ("agent", "tool"):
            waiting = [wait for wait in found if wait.waits_for == "worker" and wait.kind == kind]
            names = sorted({wait.name for wait in waiting if wait.name is not None})
            offering = await self._sessions.offering(self._tenant_id, kind, names) if names else {}
            for wait in waiting:
                await self._name_worker(wait, offering)

    async def _name_worker(self, wait: RunWaitView, offering: Mapping[str, int]) -> None:
        assert wait.name is not None
        workers, version = offering.get(wait.name, 0), self._versions.get(wait.name)
        if not workers:
            wait.detail = f"no worker has {wait.kind} {wait.name}"
        elif wait.kind == "agent" and version is not None and not await self._has_version(wait.name, version):
            wait.waits_for, wait.detail = "version", f"no worker has version {version} of agent {wait.name}"
        else:
            limit = ", or its limit is reached" if wait.kind == "tool" else ""
            wait.waits_for, wait.detail = "free_worker", f"{workers} worker{'' if workers == 1 else 's'} with it: busy{limit}"

    async def _has_version(self, name: str, version: str) -> bool:
        """Also where the offers of a worker are not known."""
        listed = await self._sessions.of_tenant(self._tenant_id)
        return any(one.offered is None or one.offered.agents.get(name) == version for one in listed)
