"""The fork of a run: what the other run was at a point, with changes, is one append with what begins after it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandOutcome, CommandRequest
from application.engine.ports.log import EventFeed
from application.engine.ports.pages import MAX_POSITION
from application.engine.reading.history_keeper import HistoryKeeper
from application.plans.capabilities import KnownAgents
from application.plans.spelling import name_and_version
from application.runs.admission import RunAdmission
from application.runs.forking.cut import Cut, Point, Recorded, UnderWay, cut_at, must_have_work, up_to
from application.runs.forking.journals import TakenJournals
from application.runs.keys import take, with_key
from application.runs.pinning import agents_of, unpinned
from application.runs.start import MOST_LOOKS, StartedDifferently, prepared_start
from application.workflows.children import Children
from domain import agents, runs
from domain.errors import InvalidCommand, NotFound, Unavailable
from domain.kernel import Command, Json
from domain.plans import Plan, Step, body_of
from domain.runs import ForkedFrom, Parent, StartRun
from domain.workflows import WorkflowChanged


class Unchanged:
    """In place of a value: as the other run has it."""


UNCHANGED = Unchanged()


class AskedFork(NamedTuple):
    """What somebody asks of a fork."""

    position: int | None = None
    """Null, without a step too: now, with the steps that failed."""
    step: str | None = None
    anew: bool = False
    input: Json | Unchanged = UNCHANGED
    plan: Plan | None = None
    agents: Mapping[str, str] = {}
    """Step → `agent` or `agent@version`."""
    metadata: dict[str, Json] | None = None


class Forks:
    def __init__(self, commands: CommandLoop, feed: EventFeed, histories: HistoryKeeper, children: Children) -> None:
        self._commands = commands
        self._feed = feed
        self._histories = histories
        self._children = children

    async def fork(
        self,
        request: CommandRequest,
        run_id: UUID,
        asked: AskedFork,
        *,
        fork_id: UUID,
        known: KnownAgents,
        admission: RunAdmission,
    ) -> CommandOutcome:
        """Starts a run that begins with what another one was.

        Raises:
            NotFound: the tenant has no such run, or it had not begun at the position.
            InvalidCommand: the run has no such step, or the plan has no place for what is taken over.
            InvalidState: nothing is left to run.
            RunKeyBusy: another run holds the key of the run.
            StartedDifferently, and whatever the start of a run raises.
        """
        if request.repeatable and (first := await self._repeated(request, run_id)) is not None:
            return first
        if not admission.counted:
            await admission.ready()
        with admission.admitted(request.tenant_id) as start:
            outcome = await self._start(request, run_id, asked, fork_id, known)
            start.position = outcome.position
        return outcome

    async def _repeated(self, request: CommandRequest, run_id: UUID) -> CommandOutcome | None:
        """The first answer to a request that was recorded before. Raises StartedDifferently, RepeatedDifferently."""
        found = await self._commands.recorded(request)
        if found is None or not found.recorded:
            return None
        first = self._commands.registry.decoded(found.recorded[0])
        if not isinstance(first, runs.RunStarted) or first.forked_from is None or first.forked_from.run_id != run_id:
            raise StartedDifferently(f"run {found.recorded[0].stream_id} was started before, and is no fork of run {run_id}")
        return found

    async def _start(
        self, request: CommandRequest, run_id: UUID, asked: AskedFork, fork_id: UUID, known: KnownAgents
    ) -> CommandOutcome:
        for look in range(MOST_LOOKS):
            commands = await self._prepared(request, run_id, asked, fork_id, known, fresh=look > 0)
            try:
                return await self._executed(request, *commands)
            except (agents.AgentChanged, WorkflowChanged):  # this process had not heard of it
                continue
        raise Unavailable("the agents of the plan are being changed: try again")

    async def _executed(self, request: CommandRequest, first: StartRun, *others: Command) -> CommandOutcome:
        if first.concurrency is None:
            return await self._commands.execute(request, first, *others)

        key_id = first.concurrency.key_id

        async def execute(of_key: tuple[Command, ...]) -> CommandOutcome:
            return await self._commands.execute(request, first, *of_key, *others, beside=(key_id,))

        return await with_key(self._commands, request.tenant_id, take(first.concurrency, first.run_id), execute)

    async def _prepared(
        self, request: CommandRequest, run_id: UUID, asked: AskedFork, fork_id: UUID, known: KnownAgents, *, fresh: bool
    ) -> tuple[StartRun, *tuple[Command, ...]]:
        tenant_id = request.tenant_id
        point = Point(
            position=await self._histories.at_most_head(asked.position or MAX_POSITION), step=asked.step, anew=asked.anew,
            failed=asked.position is None and asked.step is None,
        )  # fmt: skip
        recorded = await self._recorded(tenant_id, run_id, point.position)
        if not recorded:
            raise NotFound(f"there was no run {run_id} at position {point.position}")
        started: runs.RunStarted = recorded[0][1]
        plan = with_agents(unpinned(started.plan, started.versions_asked) if asked.plan is None else asked.plan, asked.agents)
        whole = await self._children.resolved(tenant_id, plan, fresh=fresh)
        as_it_was = asked.plan is None and isinstance(asked.input, Unchanged)
        cut = cut_at(run_id, recorded, point, whole.plan, as_it_was=as_it_was)
        must_have_work(cut, whole.plan.graph.steps)
        start, conditions = await prepared_start(
            self._commands, tenant_id, project_id=started.project_id, plan=whole.plan, priority=started.priority,
            compensate=started.compensate, known=known, fresh=fresh, kept=_kept(whole.plan, started.plan, cut.ended),
        )  # fmt: skip
        changes: dict[str, Any] = {
            "run_id": fork_id,
            "input": started.input if isinstance(asked.input, Unchanged) else asked.input,
            "metadata": started.metadata if asked.metadata is None else asked.metadata,
            "tainted": cut.run.tainted,
            "workflow": started.workflow if asked.plan is None else None,
            "forked_from": ForkedFrom(run_id=run_id, position=point.position, step=point.step, anew=point.anew),
            "on_behalf_of": request.on_behalf_of,
        }
        if started.concurrency is not None:  # it works on what the key protects; nobody is to be cancelled for it
            changes["concurrency"] = started.concurrency.model_copy(update={"on_busy": "reject", "on_behalf_of": None})
        forking = _Forking(self, tenant_id, point.position)
        if started.budget is not None and started.budget.budget is None:  # it was given to the run, which a fork does not spend
            changes["budget"] = started.budget
        first = start.model_copy(update=changes | {"taken": cut.taken})
        rest = (*await forking.rest(run_id, first, cut), *conditions, *whole.conditions)
        return first, *rest

    async def _recorded(self, tenant_id: UUID, run_id: UUID, until: int) -> Recorded:
        """The events of a run's stream up to a position."""
        found = up_to(await self._commands.history(tenant_id, run_id), until)
        if found and found[0].topic != runs.RunStarted.TOPIC:
            raise NotFound(f"there is no run {run_id}")
        return [(recorded, self._commands.registry.decoded(recorded)) for recorded in found]

    async def cut_of_child(self, tenant_id: UUID, child_id: UUID, until: int, plan: Plan) -> Cut | None:
        """A child run by then. None: it had not begun."""
        recorded = await self._recorded(tenant_id, child_id, until)
        return cut_at(child_id, recorded, Point(position=until, failed=True), plan) if recorded else None

    def journals(self, tenant_id: UUID, run_id: UUID, until: int) -> TakenJournals:
        return TakenJournals(self._commands, self._feed, tenant_id, run_id, until)


@dataclass
class _Forking:
    """The commands beside the start: journals, the shared context, child runs that were under way."""

    forks: Forks
    tenant_id: UUID
    until: int
    commands: list[Command] = field(default_factory=list)

    async def rest(self, run_id: UUID, start: StartRun, cut: Cut) -> list[Command]:
        keys = [key for key in start.plan.graph.steps if key not in cut.ended]
        journals = self.forks.journals(self.tenant_id, run_id, self.until)
        self.commands += await journals.commands_for(start.run_id, cut, keys)
        for one in cut.under_way:
            if one.is_run:
                await self._child(start, cut, one)
        return self.commands

    async def _child(self, start: StartRun, cut: Cut, one: UnderWay) -> None:
        """A child run that was under way is forked, too. Its start by the saga is then a repeat."""
        assert one.part is not None
        step = start.plan.graph.steps[one.step]
        plan, asked = _plan_of_child(step, cut, one)
        if plan is None:
            return
        of_child = await self.forks.cut_of_child(self.tenant_id, one.execution_id, self.until, plan)
        if of_child is None:
            return
        above = start.parent is not None and start.parent.compensable
        parent = Parent(
            run_id=start.run_id, step=one.step, part=one.part, depth=1 + (0 if start.parent is None else start.parent.depth),
            compensable=start.compensate != "never" or above or start.plan.graph.compensates,
        )  # fmt: skip
        child = StartRun(
            run_id=runs.child_id_of(start.run_id, one.step, one.part), project_id=start.project_id, plan=plan,
            input=of_child.started.input, metadata=start.metadata, versions_asked=asked, priority=step.priority or start.priority,
            compensate=start.compensate, parent=parent, workflow=of_child.started.workflow,
            tainted=start.tainted or of_child.run.tainted,
            forked_from=ForkedFrom(run_id=one.execution_id, position=self.until), taken=of_child.taken,
            budgets=start.budgets if start.budget is None else (*start.budgets, start.run_id), on_behalf_of=start.on_behalf_of,
        )  # fmt: skip
        self.commands.append(child)
        await self.rest(one.execution_id, child, of_child)


def _plan_of_child(step: Step, cut: Cut, one: UnderWay) -> tuple[Plan | None, tuple[str, ...]]:
    if step.has_body:
        assert step.run is not None
        return body_of(step), step.run.versions_asked
    for begun in cut.begun:
        for execution in begun.open:
            if begun.step == one.step and execution.part == one.part and execution.plan is not None:
                return Plan.model_validate(execution.plan), execution.versions_asked
    return None, ()


def _kept(plan: Plan, before: Plan, ended: Iterable[str]) -> Mapping[int, Sequence[str | None]]:
    """Place of a step that does not run again → the versions of its agents, which need not be registered any more."""
    known: dict[str, list[str | None]] = {}
    for named in agents_of(before):
        known.setdefault(before.steps[named.step].key, []).append(named.version)
    wanted: dict[int, int] = {}
    for named in agents_of(plan):
        wanted[named.step] = wanted.get(named.step, 0) + 1
    places = plan.graph.places
    kept: dict[int, Sequence[str | None]] = {}
    for key in ended:
        if (place := places.get(key)) in wanted and place is not None:
            versions = known.get(key, [])
            kept[place] = versions if len(versions) == wanted[place] else [None] * wanted[place]
    return kept


def with_agents(plan: Plan, asked: Mapping[str, str]) -> Plan:
    """The plan with other agents, or versions of them, for some steps. Raises InvalidCommand."""
    if not asked:
        return plan
    for key in asked:
        step = plan.graph.steps.get(key)
        if step is None or step.agent is None:
            why = "has no agent" if step is not None else "is not in the plan"
            raise InvalidCommand(f"step '{key}' {why}", pointer=f"/agents/{key}")
    steps = []
    for step in plan.steps:
        if step.key in asked:
            agent, version = name_and_version(asked[step.key])
            step = step.model_copy(update={"agent": agent, "agent_version": version})
        steps.append(step)
    return Plan.model_construct(steps=tuple(steps), result=plan.result)
