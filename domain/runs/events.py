"""The facts of a run."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import Field

from domain.amounts import AS_USUAL, BudgetAsking, BudgetLimits, OnSpent, as_usual
from domain.concurrency import KeyOfRun, KeyTurn
from domain.failures import Failure, Retry
from domain.kernel import Event, Json, Name, Priority, ShortText, Value, is_empty, unsaid, unsaid_number
from domain.plans import MAX_DEPTH, MAX_STEPS_V1, Plan, PlanV3, StepV3
from domain.runs.steered import (
    DeadlineSet,
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
from domain.runs.taken_over import ForkedFrom, PartTakenOver, StepTakenOver

Compensate = Literal["on_failure", "on_cancel", "on_failure_or_cancel", "never"]
"""When the effects of a run are taken back, in reverse order, by the tools that their tools name."""


class Parent(Value):
    """The step of another run that started the run, and waits for it."""

    run_id: UUID
    step: Name
    part: int | None = Field(default=None, ge=0)
    """Which execution of the step the run is. None: the only one."""
    depth: int = Field(default=1, ge=1, le=MAX_DEPTH)
    """Runs above the run."""
    compensable: bool = Field(default=False, exclude_if=is_empty)
    """Whether the parent may take its effects back, and the run's with them."""
    agent_run_id: UUID | None = Field(default=None, exclude_if=unsaid)
    """The agent run that started the run (`ctx.child`), and waits for it. None: the plan did."""
    key: str | None = Field(default=None, exclude_if=unsaid)
    """Of the entry in its journal."""


class WorkflowRef(Value):
    """The workflow that a plan is of."""

    name: Name
    version: int = Field(ge=1)


class Origin(Value):
    """What started a run, where no client did by itself."""

    kind: Literal["schedule", "trigger", "webhook", "command"]
    name: ShortText
    """Of the schedule, trigger, webhook or command."""
    event: ShortText | None = None
    """The event that a trigger fired on, as `<stream id>:<version>`; the delivery of a webhook."""
    due_at: datetime | None = None
    """When the run was due, by its schedule."""
    depth: int = Field(default=0, ge=0)
    """Triggers that led here: 1 for a trigger that fired on the event of a run that no trigger had started."""


class RunBudget(Value):
    """What a run may spend, with its child runs."""

    limits: BudgetLimits
    wall_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Seconds that the run may last."""
    on_spent: OnSpent = "stop"
    asking: BudgetAsking = Field(default=AS_USUAL, exclude_if=as_usual)
    """`ask`: how people are asked."""
    budget: ShortText | None = None
    """The name of the budget that it is by default. None: it was given at the start."""
    currency: ShortText | None = None


class RunStarted(Event):
    TOPIC = "run.started"
    VERSION = 4
    project_id: UUID
    plan: Plan
    input: Json = None
    metadata: dict[str, Json] = {}
    versions_asked: tuple[str, ...] = ()
    """Keys of the steps whose version was asked for. The versions of the other steps are only noted."""
    priority: Priority = "normal"
    compensate: Compensate = "never"
    """When the run's effects are taken back."""
    parent: Parent | None = Field(default=None, exclude_if=is_empty)
    workflow: WorkflowRef | None = Field(default=None, exclude_if=is_empty)
    origin: Origin | None = Field(default=None, exclude_if=is_empty)
    tainted: bool = Field(default=False, exclude_if=is_empty)
    """What the run begins with comes from untrusted output."""
    budget: RunBudget | None = Field(default=None, exclude_if=unsaid)
    budgets: tuple[UUID, ...] = Field(default=(), exclude_if=unsaid)
    """The runs whose budgets the calls of the run are paid from: itself, if it has one, and those above it that do."""
    forked_from: ForkedFrom | None = Field(default=None, exclude_if=unsaid)
    """What the run takes over: `run.step_taken_over` and `run.part_taken_over` follow."""
    on_behalf_of: str | None = Field(default=None, exclude_if=unsaid)
    """For whom the run is. What a clock brings about in it later is for the same."""
    concurrency: KeyOfRun | None = Field(default=None, exclude_if=unsaid)
    """The key that the run holds while it goes on. If `run.queued` follows, the run waits for it first."""

    @property
    def stored_version(self) -> int:
        if (
            self.tainted
            or self.parent is not None
            or self.workflow is not None
            or self.origin is not None
            or self.forked_from is not None
            or self.concurrency is not None
            or not self.plan.is_plain
        ):
            return 4
        if self.budgets:
            return 4
        if self.compensate != "never":
            return 3
        return 1 if len(self.plan.steps) <= MAX_STEPS_V1 else 2


class PlanV1(PlanV3):
    steps: tuple[StepV3, ...] = Field(min_length=1, max_length=MAX_STEPS_V1)


class RunStartedV3(Event):
    """A run that a client started with a plan of agents, of which each runs once. Such a run is still stored as version 1, 2 or 3,
    so that older readers know it."""

    TOPIC = "run.started"
    VERSION = 3
    project_id: UUID
    plan: PlanV3
    input: Json = None
    metadata: dict[str, Json] = {}
    versions_asked: tuple[str, ...] = ()
    priority: Priority = "normal"
    compensate: Compensate = "never"
    on_behalf_of: str | None = Field(default=None, exclude_if=unsaid)


class RunStartedV2(RunStartedV3):
    """A run whose effects stay, whatever becomes of it. Such a run is still stored as version 1 or 2, so that older readers know
    it."""

    VERSION = 2


class RunStartedV1(RunStartedV3):
    """A plan of up to 200 steps. Such a plan is still stored as this version, so that older readers know it."""

    VERSION = 1
    plan: PlanV1


class ByPerson(Value):
    """Who stepped in, and why."""

    by: str
    """The actor of the person's key."""
    reason: str
    on_behalf_of: str | None = None
    """For whom the actor asked."""


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
    """The priority of the step, or else of the run."""
    input: Json = Field(default=None, exclude_if=unsaid)
    """What `input_from` gave. None: the step's own input, or else the run's."""
    mapped: bool = Field(default=False, exclude_if=is_empty)
    """Whether `input` is to be taken, also where it is null."""
    saw: dict[str, Json] = Field(default={}, exclude_if=is_empty)
    """The values that `when` named, as far as they are small."""
    again: int = Field(default=0, exclude_if=unsaid_number)
    """The number of the retry of the run. 0: it was not retried before. The agent run may have ended before, and goes on."""
    fresh: bool = Field(default=False, exclude_if=unsaid)
    """Whether the agent run begins from nothing, without what is in its journal."""
    budgets: tuple[UUID, ...] = Field(default=(), exclude_if=unsaid)
    """The runs whose budgets its calls are paid from."""


class StepSkipped(Event):
    """A step that does not run."""

    TOPIC = "run.step_skipped"
    step: str
    reason: Literal["condition", "upstream", "not_needed", "person"]
    """`condition`: `when` was false. `upstream`: all steps before it were skipped. `not_needed`: a step that gathers results had
    enough of them. `person`: a person skipped it."""
    condition: str | None = None
    """The expression that was evaluated."""
    value: Json = None
    """What it gave."""
    saw: dict[str, Json] = {}
    """The values that it named, as far as they are small."""
    by: str | None = None
    """`not_needed`: the step that had enough."""
    abandoned: tuple[UUID, ...] = ()
    """Agent runs of the step that were under way, and must be cancelled."""
    abandoned_runs: tuple[UUID, ...] = ()
    """Child runs, likewise."""
    person: ByPerson | None = Field(default=None, exclude_if=is_empty)


class StepStarted(Event):
    """A step that is more than one execution of an agent: what it does is told by `run.part_…`, or by its end."""

    TOPIC = "run.step_started"
    step: str
    form: Literal["each", "repeat", "adaptive", "run", "wait"]
    items: tuple[Json, ...] | None = None
    """`each`: the list."""
    delay_s: float | None = None
    """`wait`: seconds from the recording of this event."""
    until: datetime | None = None
    """`wait`: the time that is waited for."""
    saw: dict[str, Json] = {}
    """The values that `when` named, as far as they are small."""


class PartScheduled(Event):
    """One of the executions of a step that has several, or a child run."""

    TOPIC = "run.part_scheduled"
    step: str
    part: int
    """0, 1, 2 …: the place of the item of `each`, the time of `repeat` and `adaptive`."""
    agent_run_id: UUID | None = None
    child_id: UUID | None = None
    """The child run. Either this or `agent_run_id` is there."""
    agent: str | None = None
    agent_version: str | None = None
    version_asked: bool = False
    plan: Json = None
    """Of a child run."""
    workflow: WorkflowRef | None = None
    input: Json = None
    versions_asked: tuple[str, ...] = Field(default=(), exclude_if=is_empty)
    """Of a child run."""
    project_id: UUID | None = None
    """Of a child run."""
    metadata: dict[str, Json] = {}
    """Of a child run: those of the run."""
    compensate: Compensate = "never"
    """Of a child run."""
    depth: int = 0
    """Of a child run: the runs above it."""
    compensable: bool = Field(default=False, exclude_if=is_empty)
    """Of a child run: whether the run may take its effects back, and the child's with them."""
    tainted: bool = Field(default=False, exclude_if=is_empty)
    """Of a child run: the run has got untrusted output."""
    timeout_s: float | None = None
    retry: Retry = Retry()
    priority: Priority = "normal"
    again: int = Field(default=0, exclude_if=unsaid_number)
    """The number of the retry of the run. 0: it was not retried before. The agent run or child run may have ended before, and goes
    on. A child run that goes on has no `plan` here."""
    fresh: bool = Field(default=False, exclude_if=unsaid)
    """Whether the agent run, or the failed steps of the child run, begin from nothing."""
    budgets: tuple[UUID, ...] = Field(default=(), exclude_if=unsaid)
    """The runs whose budgets its calls are paid from."""


class PartCompleted(Event):
    TOPIC = "run.part_completed"
    step: str
    part: int
    execution_id: UUID
    """The agent run or the child run."""
    result: Json = None
    abandoned: tuple[UUID, ...] = Field(default=(), exclude_if=is_empty)
    """The agent run, if it was under way and must be cancelled."""
    abandoned_runs: tuple[UUID, ...] = Field(default=(), exclude_if=is_empty)
    person: ByPerson | None = Field(default=None, exclude_if=is_empty)
    """Who said so, where no agent did."""


class PartFailed(Event):
    TOPIC = "run.part_failed"
    step: str
    part: int
    execution_id: UUID
    error: Failure
    tolerated: bool = False
    abandoned: tuple[UUID, ...] = Field(default=(), exclude_if=is_empty)
    abandoned_runs: tuple[UUID, ...] = Field(default=(), exclude_if=is_empty)
    person: ByPerson | None = Field(default=None, exclude_if=is_empty)
    """Who said so, where no agent did."""


class StepFellBack(Event):
    """The agent of a step has failed, and the next fallback is tried. `run.step_scheduled` or `run.part_scheduled` follows."""

    TOPIC = "run.step_fell_back"
    step: str
    part: int | None = None
    execution_id: UUID
    """What has failed."""
    agent: str
    """The agent that is tried now."""
    number: int
    """Its place among the fallbacks: 1, 2, 3 …"""
    error: Failure


class StepCompleted(Event):
    TOPIC = "run.step_completed"
    VERSION = 2
    step: str
    agent_run_id: UUID | None
    """None: no single agent run gave the result."""
    result: Json = None
    abandoned: tuple[UUID, ...] = Field(default=(), exclude_if=is_empty)
    """Agent runs that are not needed any more, and must be cancelled."""
    abandoned_runs: tuple[UUID, ...] = Field(default=(), exclude_if=is_empty)
    judged: dict[str, Json] = Field(default={}, exclude_if=is_empty)
    """What steps after it that gather results made of the result: the vote, or whether the result is good. By their keys. A vote of
    more than 1 kB is there as its SHA-256."""
    exhausted: bool = Field(default=False, exclude_if=is_empty)
    """A loop that ended because of its bound."""
    without: tuple[int, ...] = Field(default=(), exclude_if=is_empty)
    """Parts that failed and were tolerated."""
    saw: dict[str, Json] = Field(default={}, exclude_if=is_empty)
    """The values that `when` named, as far as they are small: of a step without an execution."""
    person: ByPerson | None = Field(default=None, exclude_if=is_empty)
    """Who said so, where no agent did."""

    @property
    def stored_version(self) -> int:
        said = self.abandoned or self.abandoned_runs or self.exhausted or self.without or self.saw or self.judged
        return 2 if said or self.agent_run_id is None else 1


class StepCompletedV1(Event):
    """A step that was one agent run. It is still stored as this version, so that older readers know it."""

    TOPIC = "run.step_completed"
    VERSION = 1
    step: str
    agent_run_id: UUID
    result: Json = None


class StepFailed(Event):
    TOPIC = "run.step_failed"
    step: str
    agent_run_id: UUID | None
    error: Failure
    tolerated: bool
    abandoned: tuple[UUID, ...] = Field(default=(), exclude_if=is_empty)
    abandoned_runs: tuple[UUID, ...] = Field(default=(), exclude_if=is_empty)
    compensate: bool = Field(default=False, exclude_if=is_empty)
    """The step says that the run takes its effects back."""
    person: ByPerson | None = Field(default=None, exclude_if=is_empty)
    """Who said so, where no agent did."""


class RunTainted(Event):
    """Something in the run has got untrusted output for the first time. From now on everything in the run may come from it."""

    TOPIC = "run.tainted"
    invocation_id: UUID
    """The call that gave the output, or the signal of a webhook that brought it."""
    key: str
    """The name of the call in the stream that asked for it; `signal:` and the name of the signal."""
    parent: Parent | None = Field(default=None, exclude_if=is_empty)
    """The run above, which gets the result of the run."""


class RunRetried(Event):
    """What failed in a run runs again. A run that had ended goes on. What was finished stays as it is."""

    TOPIC = "run.retried"
    number: int
    """1, 2, 3 …"""
    reason: str | None = None
    was: Literal["running", "completed", "failed", "cancelled"]
    """The status of the run before."""
    steps: tuple[str, ...] = ()
    """Steps that run again: those that failed, and those that the end of the run has interrupted."""
    reset: tuple[str, ...] = ()
    """Steps after them that were skipped, and are looked at again."""
    judged: dict[str, dict[str, Json]] = {}
    """Step of `steps` that gathers results → what it makes of the results that are there: see `run.step_completed`."""
    fresh: bool = Field(default=False, exclude_if=unsaid)
    """Whether agents begin from nothing. Otherwise they go on with what is in their journals."""
    versions: dict[str, str] = Field(default={}, exclude_if=unsaid)
    """Steps whose agents run in another version than the plan says."""
    parent: Parent | None = Field(default=None, exclude_if=unsaid)


class RunCompleted(Event):
    TOPIC = "run.completed"
    degraded: bool = False
    missing: tuple[str, ...] = ()
    """Steps that failed and were tolerated."""
    result: Json = Field(default=None, exclude_if=unsaid)
    """What the plan's `result` gave. Missing where the run has neither such an expression nor a parent."""
    parent: Parent | None = Field(default=None, exclude_if=is_empty)
    held: KeyTurn | None = Field(default=None, exclude_if=unsaid)
    """The key of the run, which becomes free."""


class RunFailed(Event):
    TOPIC = "run.failed"
    step: str
    error: Failure
    abandoned: tuple[UUID, ...] = ()
    """Agent runs that were under way and must be cancelled."""
    compensate: bool = False
    """Whether the run's effects are taken back."""
    abandoned_runs: tuple[UUID, ...] = Field(default=(), exclude_if=is_empty)
    """Child runs that were under way and must be cancelled."""
    parent: Parent | None = Field(default=None, exclude_if=is_empty)
    held: KeyTurn | None = Field(default=None, exclude_if=unsaid)
    """The key of the run, which becomes free."""


class RunCancelled(Event):
    TOPIC = "run.cancelled"
    reason: str | None = None
    abandoned: tuple[UUID, ...] = ()
    compensate: bool = False
    abandoned_runs: tuple[UUID, ...] = Field(default=(), exclude_if=is_empty)
    parent: Parent | None = Field(default=None, exclude_if=is_empty)
    held: KeyTurn | None = Field(default=None, exclude_if=unsaid)
    """The key of the run, which becomes free; or the run waits for it no more."""


ENDS = frozenset({RunCompleted.TOPIC, RunFailed.TOPIC, RunCancelled.TOPIC})
"""Topics of the events that end a run. Each run has one of them as its last event. A retry of the run may follow, and another
end."""


RunEvent = (
    RunStarted | StepScheduled | StepSkipped | StepStarted | PartScheduled | PartCompleted | PartFailed | StepFellBack
    | StepCompleted | StepFailed | RunCompleted | RunFailed | RunCancelled | RunTainted | RunPaused | RunPauseLifted | RunResumed
    | RunRetried | DeadlineSet | RunPriorityChanged | RunQueued | RunBegun
    | RunSignalled | SignalAwaited | SignalReceived | SignalWaitEnded | StepTakenOver | PartTakenOver
)  # fmt: skip
