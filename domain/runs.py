"""Runs: a plan of steps, the result of each step, and the outcome. Every decision about the next step is taken here."""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from graphlib import CycleError, TopologicalSorter
from itertools import count
from typing import Literal, NamedTuple, assert_never
from uuid import UUID

from immutables import Map
from pydantic import Field, field_validator

from domain.errors import AlreadyExists, InvalidState, NotFound, WorkOver
from domain.failures import Failure, Retry
from domain.kernel import Command, Decider, Event, Json, Name, Priority, ShortText, Value, derive_id, replace
from domain.maps import PersistentMap

MAX_STEPS = 1_000
MAX_STEPS_V1 = 200
"""Of a plan in version 1 of `run.started`."""
MOST_NAMED = 100
"""Steps that the words of a failure name."""

StepStatus = Literal["pending", "scheduled", "completed", "failed", "cancelled"]
RunStatus = Literal["absent", "running", "completed", "failed", "cancelled"]

OVER: frozenset[str] = frozenset({"completed", "failed", "cancelled"})
"""Statuses of runs that have ended."""


# --- the plan ---------------------------------------------------------------------------------------------------------


class Step(Value):
    """A node of the plan: one execution of one agent, after others."""

    key: Name
    agent: Name
    agent_version: ShortText | None = None
    """None in a request: not asked for. The start of the run notes the registered version."""
    after: tuple[Name, ...] = ()
    input: Json = None
    """Given to this step's agent instead of the run's input."""
    timeout_s: float | None = Field(default=None, gt=0, le=30 * 86_400)
    retry: Retry = Retry()
    on_failure: Literal["fail", "continue"] = "fail"
    """`continue`: the run goes on without this step and ends `degraded`."""


@dataclass(frozen=True, slots=True)
class StepState:
    status: StepStatus = "pending"
    agent_run_id: UUID | None = None
    result: Json = None


class Graph(NamedTuple):
    """A plan by its keys: what follows from the end of a step is found without a look at the other steps."""

    steps: Mapping[str, Step]
    """In the order of the plan."""
    places: Mapping[str, int]
    """Key of a step → its place in the plan."""
    after: Mapping[str, Sequence[str]]
    """Key of a step → the steps that come after it."""
    of_agent: Mapping[str, str]
    """Name of an agent → its first step."""
    first: Sequence[str]
    """The steps that wait for none, in the order of the plan."""
    pending: "Map[str, StepState]"
    """The states of all steps at the start of a run."""
    waiting: Map[str, int]
    """Step → how many steps stand before it. Without those of `first`."""


def graph_of(steps: Sequence[Step]) -> Graph:
    after: dict[str, list[str]] = {}
    of_agent: dict[str, str] = {}
    for step in steps:
        of_agent.setdefault(step.agent, step.key)
        for before in set(step.after):
            after.setdefault(before, []).append(step.key)
    by_key, places = {step.key: step for step in steps}, {step.key: place for place, step in enumerate(steps)}
    first = [step.key for step in steps if not step.after]
    pending, waiting = (
        Map(dict.fromkeys(by_key, StepState())),
        Map({step.key: len(set(step.after)) for step in steps if step.after}),
    )
    return Graph(by_key, places, after, of_agent, first, pending, waiting)


_NO_STEPS = graph_of(())


class Plan(Value):
    """A graph of steps without cycles. Sequential and parallel plans are constructors of a graph, not other engines."""

    steps: tuple[Step, ...] = Field(min_length=1, max_length=MAX_STEPS)

    @field_validator("steps")
    @classmethod
    def _is_a_graph(cls, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        keys = {step.key for step in steps}
        if len(keys) < len(steps):
            raise ValueError("two steps have the same key")
        for step in steps:
            for upstream in step.after:
                if upstream not in keys:
                    raise ValueError(f"step '{step.key}' comes after '{upstream}', which is not a step of the plan")
        before: set[str] = set()
        for step in steps:
            if not before.issuperset(step.after):
                break
            before.add(step.key)
        else:
            return steps  # each step comes after earlier ones only, so there is no cycle and nothing to sort
        try:
            TopologicalSorter({step.key: step.after for step in steps}).prepare()
        except CycleError as error:
            raise ValueError(f"the plan has a cycle: {' → '.join(error.args[1])}") from None
        return steps

    @cached_property
    def graph(self) -> Graph:
        """Made once for a plan, however many runs have it. A changed copy would keep it, so plans are made anew, not copied."""
        return graph_of(self.steps)


def _unique_keys(agents: tuple[str, ...]) -> list[str]:
    keys: list[str] = []
    taken: set[str] = set()
    numbers: dict[str, Iterator[int]] = {}
    for agent in agents:
        key = agent
        while key in taken:
            key = f"{agent}-{next(numbers.setdefault(agent, count(2)))}"
        keys.append(key)
        taken.add(key)
    return keys


REMEMBERED_STEPS = 20
"""Plans of more steps are made anew each time: a thousand plans of a thousand steps would take a gigabyte."""


def sequential(agents: tuple[str, ...]) -> Plan:
    """Each agent runs after the one before. A failure ends the run."""
    return (_sequential if len(agents) <= REMEMBERED_STEPS else _sequential.__wrapped__)(agents)


@lru_cache(maxsize=1_000)
def _sequential(agents: tuple[str, ...]) -> Plan:
    keys = _unique_keys(agents)
    return Plan(
        steps=tuple(
            Step(key=key, agent=agent, after=(keys[i - 1],) if i else ())
            for i, (key, agent) in enumerate(zip(keys, agents, strict=True))
        )
    )


def parallel(agents: tuple[str, ...], aggregator: str | None) -> Plan:
    """All agents run side by side, then the aggregator with their results. The failure of a member is tolerated and reported."""
    return (_parallel if len(agents) <= REMEMBERED_STEPS else _parallel.__wrapped__)(agents, aggregator)


@lru_cache(maxsize=1_000)
def _parallel(agents: tuple[str, ...], aggregator: str | None) -> Plan:
    keys = _unique_keys((*agents, aggregator) if aggregator else agents)
    members = tuple(Step(key=key, agent=agent, on_failure="continue") for key, agent in zip(keys, agents, strict=False))
    if aggregator is None:
        return Plan(steps=members)
    return Plan(steps=(*members, Step(key=keys[-1], agent=aggregator, after=tuple(keys[:-1]))))


# --- facts ------------------------------------------------------------------------------------------------------------


class RunStarted(Event):
    TOPIC = "run.started"
    VERSION = 2
    project_id: UUID
    plan: Plan
    input: Json = None
    metadata: dict[str, Json] = {}
    versions_asked: tuple[str, ...] = ()
    """Keys of the steps whose version was asked for. The versions of the other steps are only noted."""
    priority: Priority = "normal"

    @property
    def stored_version(self) -> int:
        return 1 if len(self.plan.steps) <= MAX_STEPS_V1 else 2


class PlanV1(Plan):
    steps: tuple[Step, ...] = Field(min_length=1, max_length=MAX_STEPS_V1)


class RunStartedV1(RunStarted):
    """A plan of up to 200 steps. Such a plan is still stored as this version, so that older readers know it."""

    VERSION = 1
    plan: PlanV1


class StepScheduled(Event):
    TOPIC = "run.step_scheduled"
    step: str
    agent: str
    agent_version: str | None
    agent_run_id: UUID
    timeout_s: float | None = None
    retry: Retry = Retry()
    version_asked: bool = False
    """Whether the version was asked for. Otherwise it is the one that was registered when the run started."""
    priority: Priority = "normal"
    """The priority of the run."""


class StepCompleted(Event):
    TOPIC = "run.step_completed"
    step: str
    agent_run_id: UUID
    result: Json = None


class StepFailed(Event):
    TOPIC = "run.step_failed"
    step: str
    agent_run_id: UUID | None
    error: Failure
    tolerated: bool


class RunCompleted(Event):
    TOPIC = "run.completed"
    degraded: bool = False
    missing: tuple[str, ...] = ()
    """Steps that failed and were tolerated."""


class RunFailed(Event):
    TOPIC = "run.failed"
    step: str
    error: Failure
    abandoned: tuple[UUID, ...] = ()
    """Agent runs that were under way and must be cancelled."""


class RunCancelled(Event):
    TOPIC = "run.cancelled"
    reason: str | None = None
    abandoned: tuple[UUID, ...] = ()


ENDS = frozenset({RunCompleted.TOPIC, RunFailed.TOPIC, RunCancelled.TOPIC})
"""Topics of the events that end a run. Each run has one of them, as its last event."""


RunEvent = RunStarted | StepScheduled | StepCompleted | StepFailed | RunCompleted | RunFailed | RunCancelled


# --- state ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    status: RunStatus = "absent"
    plan: Plan | None = None
    input: Json = None
    steps: PersistentMap[str, StepState] = field(default_factory=Map)
    waiting: PersistentMap[str, int] = field(default_factory=Map)
    """Step → how many of the steps before it have not ended. Without the steps that wait for none."""
    ended: int = 0
    """Number of the steps that have ended."""
    cancel_reason: str | None = None
    versions_asked: tuple[str, ...] = ()
    priority: Priority = "normal"

    @property
    def graph(self) -> Graph:
        return _NO_STEPS if self.plan is None else self.plan.graph

    @cached_property
    def asked(self) -> AbstractSet[str]:
        """`versions_asked`, to look up. The states that follow from this one take it over (`replace`)."""
        return frozenset(self.versions_asked)

    def step(self, key: str) -> Step:
        return self.graph.steps[key]

    @property
    def missing(self) -> tuple[str, ...]:
        return tuple(key for key in self.graph.steps if self.steps[key].status == "failed")

    @property
    def under_way(self) -> tuple[UUID, ...]:
        states = (self.steps[key] for key in self.graph.steps)
        return tuple(state.agent_run_id for state in states if state.status == "scheduled" and state.agent_run_id)

    def recipient(self, name: str) -> str | None:
        """The step that a message to `name` goes to: the step of that key, or else the first one of that agent."""
        return name if name in self.steps else self.graph.of_agent.get(name)


def evolve(run: Run, event: RunEvent) -> Run:
    match event:
        case RunStarted():
            return _started(event)
        case StepScheduled():
            return replace(run, steps=run.steps.set(event.step, StepState("scheduled", event.agent_run_id)))
        case StepCompleted():
            return _ended(run, event.step, StepState("completed", event.agent_run_id, event.result))
        case StepFailed():
            return _ended(run, event.step, StepState("failed", event.agent_run_id))
        case RunCompleted():
            return replace(run, status="completed")
        case RunFailed():
            return replace(run, status="failed")
        case RunCancelled():
            return replace(run, status="cancelled", cancel_reason=event.reason)
        case _:
            assert_never(event)


def _started(event: RunStarted) -> Run:
    graph = event.plan.graph
    return Run(
        "running", event.plan, event.input, graph.pending, graph.waiting,
        versions_asked=event.versions_asked, priority=event.priority,
    )  # fmt: skip


def _ended(run: Run, key: str, state: StepState) -> Run:
    """The run after a step has ended: the steps after it wait for one less."""
    waiting = run.waiting.mutate()
    for later in run.graph.after.get(key, ()):
        left = waiting[later] - 1
        if left:
            waiting[later] = left
        else:
            del waiting[later]
    return replace(run, steps=run.steps.set(key, state), waiting=waiting.finish(), ended=run.ended + 1)


# --- commands and rules -----------------------------------------------------------------------------------------------


class StartRun(Command):
    run_id: UUID
    project_id: UUID
    plan: Plan
    input: Json = None
    metadata: dict[str, Json] = {}
    versions_asked: tuple[Name, ...] = ()
    priority: Priority = "normal"


class CompleteStep(Command):
    run_id: UUID
    step: str
    agent_run_id: UUID
    result: Json = None


class FailStep(Command):
    run_id: UUID
    step: str
    agent_run_id: UUID
    error: Failure


class CancelRun(Command):
    run_id: UUID
    reason: ShortText | None = None


class CheckRun(Command):
    """A condition of other commands in the same append: the run has not ended. It decides nothing."""

    run_id: UUID


RunCommand = StartRun | CompleteStep | FailStep | CancelRun | CheckRun


def agent_run_id_of(run_id: UUID, step: str) -> UUID:
    """The id of the agent run that executes a step. The id is known before the agent run exists, so that mail can wait for it."""
    return derive_id(run_id, f"step:{step}")


def decide(run: Run, command: RunCommand) -> list[Event]:
    match command:
        case StartRun():
            if run.status != "absent":
                raise AlreadyExists(f"run {command.run_id} was started before")
            started = RunStarted(
                project_id=command.project_id,
                plan=command.plan,
                input=command.input,
                metadata=command.metadata,
                versions_asked=command.versions_asked,
                priority=command.priority,
            )
            return _and_what_follows(command.run_id, run, [started])
        case CompleteStep():
            if not _awaits(run, command):
                return []
            done = StepCompleted(step=command.step, agent_run_id=command.agent_run_id, result=command.result)
            return _and_what_follows(command.run_id, run, [done])
        case FailStep():
            if not _awaits(run, command):
                return []
            return _and_what_follows(command.run_id, run, [_failed(run.step(command.step), command.agent_run_id, command.error)])
        case CancelRun():
            if run.status == "absent":
                raise NotFound(f"there is no run {command.run_id}")
            if run.status == "cancelled":
                if command.reason not in (None, run.cancel_reason):
                    raise InvalidState(f"the run was cancelled before, with another reason: {run.cancel_reason or 'none'}")
                return []
            if run.status != "running":
                raise InvalidState(f"the run is {run.status}; only a running one can be cancelled")
            return [RunCancelled(reason=command.reason, abandoned=run.under_way)]
        case CheckRun():
            if run.status in OVER:
                raise WorkOver(f"the run is {run.status}")
            return []
        case _:
            assert_never(command)


def _awaits(run: Run, command: CompleteStep | FailStep) -> bool:
    """False for an outcome that comes twice, or after the run ended."""
    if run.status == "absent":
        raise NotFound(f"there is no run {command.run_id}")
    step = run.steps.get(command.step)
    return run.status == "running" and step is not None and step.status == "scheduled"


def _failed(step: Step, agent_run_id: UUID | None, error: Failure) -> StepFailed:
    return StepFailed(step=step.key, agent_run_id=agent_run_id, error=error, tolerated=step.on_failure == "continue")


def _and_what_follows(run_id: UUID, run: Run, events: list[Event]) -> list[Event]:
    """Adds the events that follow from the given ones: steps to schedule, steps that cannot run any more, the end of the run."""
    for event in events:
        run = evolve(run, event)  # type: ignore[arg-type]  # only this slice's events are made here
    newest: Sequence[Event] = events
    while True:
        intolerable = next((e for e in newest if isinstance(e, StepFailed) and not e.tolerated), None)
        if intolerable is not None:
            return [*events, RunFailed(step=intolerable.step, error=intolerable.error, abandoned=run.under_way)]
        newest = following = [_schedule_or_give_up(run_id, run, run.step(key)) for key in _ready(run, newest)]
        if not following:
            break
        for next_event in following:
            run = evolve(run, next_event)
        events = [*events, *following]
    if run.ended == len(run.steps):
        return [*events, _end(run, events)]
    return events


def _ready(run: Run, newest: Sequence[Event]) -> list[str]:
    """The steps that wait for nothing any more since the newest events, in the order of the plan."""
    if isinstance(newest[0], RunStarted):
        return list(run.graph.first)
    graph = run.graph
    ended = [event.step for event in newest if isinstance(event, StepCompleted | StepFailed)]
    later = {key for step in ended for key in graph.after.get(step, ()) if key not in run.waiting}
    return sorted(later, key=graph.places.__getitem__)


def _schedule_or_give_up(run_id: UUID, run: Run, step: Step) -> StepScheduled | StepFailed:
    if step.after and all(run.steps[key].status == "failed" for key in step.after):
        why = f"every step before it failed: {_named(step.after)}"
        return _failed(step, None, Failure(type="UpstreamFailed", message=why, kind="upstream"))
    return StepScheduled(
        step=step.key,
        agent=step.agent,
        agent_version=step.agent_version,
        agent_run_id=agent_run_id_of(run_id, step.key),
        timeout_s=step.timeout_s,
        retry=step.retry,
        version_asked=bool(run.versions_asked) and step.key in run.asked,
        priority=run.priority,
    )


def _named(keys: Sequence[str]) -> str:
    more = len(keys) - MOST_NAMED
    return ", ".join(keys[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _end(run: Run, events: list[Event]) -> Event:
    missing = run.missing
    if len(missing) == len(run.steps):
        last = next(e for e in reversed(events) if isinstance(e, StepFailed))
        return RunFailed(step=last.step, error=last.error)
    return RunCompleted(degraded=bool(missing), missing=missing)


DECIDER: Decider[Run] = Decider("runs", Run, decide, evolve)
