"""A run, and how each event changes it."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeVar, assert_never
from uuid import UUID

from immutables import Map

from domain.concurrency import KeyOfRun
from domain.failures import Failure
from domain.kernel import Json, Priority, replace
from domain.maps import PersistentMap
from domain.plans import NO_STEPS, Graph, Plan, Step, StepState
from domain.runs.events import (
    Compensate,
    Parent,
    PartCompleted,
    PartFailed,
    PartScheduled,
    RunCancelled,
    RunCompleted,
    RunEvent,
    RunFailed,
    RunRetried,
    RunStarted,
    RunTainted,
    StepCompleted,
    StepFailed,
    StepFellBack,
    StepScheduled,
    StepSkipped,
    StepStarted,
)
from domain.runs.kept import KeptSignal, SignalWait, changed
from domain.runs.progress import StepProgress, Tally, agent_run_id_of, part_begun, part_ended, part_key, part_taken_over
from domain.runs.steered import (
    DeadlineSet,
    PauseCause,
    RunBegun,
    RunPaused,
    RunPauseLifted,
    RunPriorityChanged,
    RunQueued,
    RunResumed,
    RunSignalled,
    SignalAwaited,
    SignalReceived,
    SignalWaitEnded,
)
from domain.runs.taken_over import PartTakenOver, StepTakenOver

RunStatus = Literal["absent", "running", "completed", "failed", "cancelled"]

V = TypeVar("V")
MOST_TOLD = 1_000
"""Characters of the message of an error that expressions see."""

OVER: frozenset[str] = frozenset({"completed", "failed", "cancelled"})
"""Statuses of runs that have ended."""


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
    compensate: Compensate = "never"
    metadata: dict[str, Json] = field(default_factory=dict)
    project_id: UUID | None = None
    parent: Parent | None = None
    progress: PersistentMap[str, StepProgress] = field(default_factory=Map)
    """Of the steps under way that have parts, or wait."""
    tallies: PersistentMap[str, Tally] = field(default_factory=Map)
    """Step that gathers results → what it has seen so far."""
    inputs: PersistentMap[str, Json] = field(default_factory=Map)
    """Key of a step or a part under way → its input, where that is neither the step's own nor the run's."""
    fell_back: PersistentMap[str, int] = field(default_factory=Map)
    """Key of a step or a part → the number of the fallback that is tried."""
    tainted: bool = False
    """Whether anything in the run may come from untrusted output: of a tool, of the run above, or of a webhook's caller."""
    pauses: int = 0
    """How often the run was paused."""
    pause: PauseCause | None = None
    """Why the run is paused, if it was paused itself."""
    pause_above: PauseCause | None = None
    """Why the run is paused with the run above it."""
    paused_above: int = 0
    """The number of the newest pause of the run above that has reached the run."""
    resumed_above: int = 0
    """The number of the newest pause of the run above that is over."""
    failed_meanwhile: StepFailed | None = None
    """The first failure since the run is paused or queued that the plan does not tolerate."""
    skipped: PersistentMap[str, str] = field(default_factory=Map)
    """Step that was skipped → why."""
    deadline_s: float | None = None
    """Of the newest deadline, from when it was set."""
    deadlines: int = 0
    """How often a deadline was set."""
    priorities: int = 0
    """How often the priority was changed."""
    priority_above: int = 0
    """The number of the newest change of priority of the run above that has reached the run."""
    retries: int = 0
    fresh: bool = False
    """Whether agents begin from nothing since the last retry."""
    versions: PersistentMap[str, str] = field(default_factory=Map)
    """Step → the version of its agent, where a retry asked for another one than the plan."""

    concurrency: KeyOfRun | None = None
    """The key that the run shares with others. None: it has none."""
    queued: bool = False
    """Whether the run waits for its key. Its status is `running`: it has not ended."""
    turn: int = 0
    """The number of the retry that opened the run last. 0: its start."""

    @property
    def stands(self) -> bool:
        """Nothing begins."""
        return self.queued or self.pause is not None or self.pause_above is not None

    @property
    def paused(self) -> bool:
        """Nothing begins. The status of a paused run is `running`: it has not ended."""
        return self.pause is not None or self.pause_above is not None

    signals: PersistentMap[UUID, KeptSignal] = field(default_factory=Map)
    """Signals that nobody has received."""
    signals_known: PersistentMap[UUID, str] = field(default_factory=Map)
    """Signal → a hash of its content. Also of those that were received."""
    signal_waits: PersistentMap[str, SignalWait] = field(default_factory=Map)
    """The agents that stand in line, by `wait_id`."""
    signal_number: int = 0
    """Of the last signal or wait."""
    signal_depth: int = 0
    """Triggers that led to a signal."""

    budgets: tuple[UUID, ...] = ()
    """The runs whose budgets its calls are paid from."""
    on_behalf_of: str | None = None
    """For whom the run is."""

    @property
    def graph(self) -> Graph:
        return NO_STEPS if self.plan is None else self.plan.graph

    @cached_property
    def asked(self) -> AbstractSet[str]:
        """`versions_asked`, to look up. The states that follow from this one take it over (`replace`)."""
        return frozenset(self.versions_asked)

    @property
    def depth(self) -> int:
        """Runs above the run."""
        return 0 if self.parent is None else self.parent.depth

    @property
    def compensable(self) -> bool:
        """Whether the run's effects may be taken back by a rule."""
        above = self.parent is not None and self.parent.compensable
        return self.compensate != "never" or above or self.graph.compensates

    def version_of(self, step: Step) -> tuple[str | None, bool]:
        """The version of a step's agent, and whether it was asked for."""
        if step.key in self.versions:
            return self.versions[step.key], True
        return step.agent_version, bool(self.versions_asked) and step.key in self.asked

    def step(self, key: str) -> Step:
        """The step of a key, or of the key of one of its parts (`reviews.0`)."""
        found = self.graph.steps.get(key)
        return self.graph.steps[key.rpartition(".")[0]] if found is None else found

    def place(self, key: str) -> tuple[str, int | None] | None:
        """The step of a key and, for the key of a part, the part. None: the plan has no such step."""
        if key in self.steps:
            return key, None
        owner, _, part = key.rpartition(".")
        step = self.graph.steps.get(owner)
        if step is None or not step.has_parts or not part.isdecimal() or part != str(int(part)):
            return None
        return owner, int(part)

    @property
    def missing(self) -> tuple[str, ...]:
        return tuple(key for key in self.graph.steps if self.steps[key].status == "failed")

    @property
    def under_way(self) -> tuple[UUID, ...]:
        """Agent runs without an outcome."""
        return tuple(found for key in self.graph.steps for found in self.executions(key)[0])

    @property
    def children(self) -> tuple[UUID, ...]:
        """Child runs without an outcome."""
        return tuple(found for key in self.progress for found in self.executions(key)[1])

    def executions(self, key: str) -> tuple[tuple[UUID, ...], tuple[UUID, ...]]:
        """Agent runs and child runs of a step that have no outcome."""
        state = self.steps[key]
        if state.status != "scheduled":
            return (), ()
        progress = self.progress.get(key)
        if progress is None:
            return () if state.agent_run_id is None else (state.agent_run_id,), ()
        parts = [part for _, part in sorted(progress.open.items())]
        return tuple(p.execution_id for p in parts if not p.is_run), tuple(p.execution_id for p in parts if p.is_run)

    def waits(self, key: str) -> bool:
        """Whether a step is waiting for a clock."""
        progress = self.progress.get(key)
        return progress is not None and progress.form == "wait"

    def input_of(self, key: str) -> Json:
        """What the agent of a step, or of a part of a step, gets."""
        if key in self.inputs:
            return self.inputs[key]
        own = self.step(key).input
        return self.input if own is None else own

    def recipient(self, name: str) -> str | None:
        """The step that a message to `name` goes to: the step of that key, or else the first one of that agent. Also a part."""
        if name in self.steps:
            return name
        found = self.graph.of_agent.get(name)
        return name if found is None and self.place(name) is not None else found

    def has_begun(self, key: str) -> bool:
        """Whether a step, or a part of one, is no longer waiting for its beginning."""
        owner, part = self.place(key) or (key, None)
        if part is None or self.steps[owner].status != "scheduled":
            return self.steps[owner].status != "pending"
        return owner in self.progress and part < self.progress[owner].begun

    def cannot_get_mail(self, key: str) -> str | None:
        """Why nobody will ever read the mail of a step, or of a part. None: an agent may, or its agent run knows its end."""
        owner, part = self.place(key) or (key, None)
        step, state = self.graph.steps[owner], self.steps[owner]
        if step.agent is None:
            return f"step '{owner}' has no agent"
        if step.has_parts and part is None:
            return f"step '{owner}' has parts: write to '{part_key(owner, 0)}', '{part_key(owner, 1)}' …"
        if part is not None:
            return None if state.status in ("pending", "scheduled") else f"step '{owner}' is {state.status}"
        if state.agent_run_id is None and state.status in ("failed", "skipped"):
            return f"step '{owner}' is {state.status}: it never begins"
        return None

    def agent_run_of(self, run_id: UUID, key: str) -> UUID:
        """The agent run that executes a step, or a part of one, now or later."""
        return agent_run_id_of(run_id, key, self.fell_back.get(key, 0))


def evolve(run: Run, event: RunEvent) -> Run:
    match event:
        case RunStarted():
            return _started(event)
        case StepScheduled():
            inputs = run.inputs.set(event.step, event.input) if event.mapped else run.inputs
            return replace(run, steps=run.steps.set(event.step, StepState("scheduled", event.agent_run_id)), inputs=inputs)
        case StepCompleted():
            tallied = _tallied(run, event) if event.step in run.graph.gathered else run
            return _ended(tallied, event.step, StepState("completed", event.agent_run_id, event.result))
        case StepFailed():
            return _failed(run, event)
        case StepSkipped():
            skipped = replace(run, skipped=run.skipped.set(event.step, event.reason))
            return _ended(skipped, event.step, StepState("skipped", run.steps[event.step].agent_run_id))
        case StepStarted():
            progress = StepProgress(event.form, event.items or ())
            return replace(
                run, steps=run.steps.set(event.step, StepState("scheduled")), progress=run.progress.set(event.step, progress)
            )
        case PartScheduled():
            progress = part_begun(run.progress[event.step], event)
            inputs = run.inputs.set(part_key(event.step, event.part), event.input) if event.agent_run_id else run.inputs
            return replace(run, progress=run.progress.set(event.step, progress), inputs=inputs)
        case PartCompleted() | PartFailed():
            key = part_key(event.step, event.part)
            progress = part_ended(run.progress[event.step], event)
            return replace(
                run, progress=run.progress.set(event.step, progress), inputs=_without(run.inputs, key),
                fell_back=_without(run.fell_back, key),
            )  # fmt: skip
        case StepFellBack():
            key = event.step if event.part is None else part_key(event.step, event.part)
            return replace(run, fell_back=run.fell_back.set(key, event.number))
        case DeadlineSet() | RunRetried() | RunTainted() | RunPriorityChanged():
            return replace(run, tainted=True) if isinstance(event, RunTainted) else _went_on(run, event)
        case RunSignalled() | SignalAwaited() | SignalReceived() | SignalWaitEnded():
            return replace(run, **changed(run, event))
        case RunCompleted() | RunFailed():
            return replace(run, status="completed" if isinstance(event, RunCompleted) else "failed")
        case RunCancelled():
            return replace(run, status="cancelled", cancel_reason=event.reason)
        case RunPaused() | RunPauseLifted() | RunResumed() | RunQueued() | RunBegun():
            return _steered(run, event)
        case StepTakenOver() | PartTakenOver():
            return _taken_over(run, event)
        case _:
            assert_never(event)


_ABSENT = Run()


def _started(event: RunStarted) -> Run:
    graph = event.plan.graph
    return replace(
        _ABSENT, status="running", plan=event.plan, input=event.input, steps=graph.pending, waiting=graph.waiting,
        versions_asked=event.versions_asked, priority=event.priority, compensate=event.compensate, metadata=event.metadata,
        project_id=event.project_id, parent=event.parent,
        tainted=event.tainted or (event.origin is not None and event.origin.kind == "webhook"), budgets=event.budgets,
        on_behalf_of=event.on_behalf_of,
        concurrency=event.concurrency,
    )  # fmt: skip


def _taken_over(run: Run, event: StepTakenOver | PartTakenOver) -> Run:
    if isinstance(event, PartTakenOver):
        return replace(run, progress=run.progress.set(event.step, part_taken_over(run.progress[event.step], event)))
    tallied = _tallied(run, event) if event.status == "completed" and event.step in run.graph.gathered else run
    if event.status == "skipped":
        tallied = replace(run, skipped=run.skipped.set(event.step, event.reason or "condition"))
    error = None if event.error is None else _brief(event.error)
    return _ended(tallied, event.step, StepState(event.status, event.agent_run_id, event.result, error))


def _ended(run: Run, key: str, state: StepState) -> Run:
    """The run after a step has ended: the steps after it wait for one less."""
    waiting = run.waiting.mutate()
    for later in run.graph.after.get(key, ()):
        left = waiting[later] - 1
        if left:
            waiting[later] = left
        else:
            del waiting[later]
    changes: dict[str, Any] = {"steps": run.steps.set(key, state), "waiting": waiting.finish(), "ended": run.ended + 1}
    if key in run.progress and state.status != "completed":  # a retry goes on from there
        changes["inputs"] = _without_parts(run, key)
    elif key in run.progress:
        changes |= {"progress": run.progress.delete(key), "inputs": _without_parts(run, key)}
    if key in run.inputs:
        changes["inputs"] = changes.get("inputs", run.inputs).delete(key)
    if key in run.tallies:
        changes["tallies"] = run.tallies.delete(key)
    if key in run.fell_back:
        changes["fell_back"] = run.fell_back.delete(key)
    return replace(run, **changes)


def _failed(run: Run, event: StepFailed) -> Run:
    if run.stands and not event.tolerated and run.failed_meanwhile is None:
        run = replace(run, failed_meanwhile=event)
    return _ended(run, event.step, StepState("failed", event.agent_run_id, error=_brief(event.error)))


def _steered(run: Run, event: RunPaused | RunPauseLifted | RunResumed | RunQueued | RunBegun) -> Run:
    if isinstance(event, RunQueued | RunBegun):
        run = replace(run, queued=isinstance(event, RunQueued))
        return run if run.stands else replace(run, failed_meanwhile=None)
    above = event.parent_number
    if isinstance(event, RunPaused):
        if above is None:
            return replace(run, pauses=event.number, pause=event.cause)
        return replace(run, pauses=event.number, pause_above=event.cause, paused_above=above)
    run = replace(run, pause=None) if above is None else replace(run, pause_above=None, resumed_above=above)
    return run if run.stands else replace(run, failed_meanwhile=None)


def _without(entries: Map[str, V], key: str) -> Map[str, V]:
    return entries.delete(key) if key in entries else entries


def _without_parts(run: Run, key: str) -> Map[str, Json]:
    inputs = run.inputs
    for part in run.progress[key].open:
        inputs = _without(inputs, part_key(key, part))
    return inputs


def _tallied(run: Run, event: StepCompleted | StepTakenOver) -> Run:
    """The run after the steps that gather its results have seen one more of them."""
    tallies = run.tallies
    for key in run.graph.gathered[event.step]:
        if run.steps[key].status == "pending":
            gather = run.graph.steps[key].gather
            assert gather is not None
            tallies = tallies.set(key, tallies.get(key, Tally()).with_one(key, gather, event))
    return replace(run, tallies=tallies)


def _went_on(run: Run, event: DeadlineSet | RunRetried | RunPriorityChanged) -> Run:
    if isinstance(event, RunRetried):
        return retried(run, event)
    if isinstance(event, RunPriorityChanged):
        above = run.priority_above if event.parent_number is None else event.parent_number
        return replace(run, priority=event.priority, priorities=event.number, priority_above=above)
    return replace(run, deadline_s=event.deadline_s, deadlines=event.number)


def retried(run: Run, event: RunRetried) -> Run:
    """The run after what failed in it has become open again."""
    steps, progress, fell_back = run.steps.mutate(), run.progress.mutate(), run.fell_back.mutate()
    tallies, ended, again, skipped = run.tallies, run.ended, frozenset(event.steps), run.skipped.mutate()
    for key in (*event.steps, *event.reset):
        ended -= steps[key].status not in ("pending", "scheduled")
        found = progress.get(key) if key in again else None
        if found is not None and found.form != "wait" and (found.open or found.failed is not None):
            steps[key] = StepState("scheduled")
            parts = tuple(found.open)  # the fallback of one that failed was forgotten with its failure
            progress[key] = replace(found, failed=None, ended=found.ended - (found.failed is not None))
        else:
            steps[key], parts = StepState(), ()
            progress.pop(key, None)
            skipped.pop(key, None)
        for name in (key, *(part_key(key, part) for part in parts)):
            fell_back.pop(name, None)
        if key in event.judged:
            tallies = tallies.set(key, _tally_anew(run, key, event.judged[key]))
    now = steps.finish()
    went_on = run.status == "running"
    deadline_s, pause = (run.deadline_s, run.pause) if went_on else (None, None)
    return replace(
        run, status="running", deadline_s=deadline_s, cancel_reason=None, retries=event.number, fresh=event.fresh, steps=now,
        pause=pause, pause_above=run.pause_above if went_on else None, failed_meanwhile=None, ended=ended,
        waiting=_waiting(run.graph, now), progress=progress.finish(), skipped=skipped.finish(), fell_back=fell_back.finish(),
        tallies=tallies, versions=run.versions.update(event.versions), queued=run.queued and went_on,
        turn=run.turn if went_on else event.number,
    )  # fmt: skip


def _waiting(graph: Graph, steps: PersistentMap[str, StepState]) -> Map[str, int]:
    open_ = {key for key, state in steps.items() if state.status in ("pending", "scheduled")}
    waiting = {key: sum(before in open_ for before in set(step.after)) for key, step in graph.steps.items() if step.after}
    return Map({key: number for key, number in waiting.items() if number})


def _tally_anew(run: Run, key: str, judged: Mapping[str, Json]) -> Tally:
    """Of the members that completed, in the order of the plan."""
    gather, tally = run.graph.steps[key].gather, Tally()
    assert gather is not None
    for member in dict.fromkeys(run.graph.steps[key].after):
        if run.steps[member].status == "completed":
            verdict = {key: judged[member]} if member in judged else {}
            tally = tally.with_one(key, gather, StepCompleted(step=member, agent_run_id=None, judged=verdict))
    return tally


def _brief(error: Failure) -> Failure:
    """What expressions see of a failure."""
    return Failure.model_construct(type=error.type, message=error.message[:MOST_TOLD], kind=error.kind)
