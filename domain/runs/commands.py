"""What people, sagas and timers may ask of a run."""

from typing import Literal
from uuid import UUID

from pydantic import Field

from domain.concurrency import KeyOfRun
from domain.failures import Failure
from domain.kernel import MAX_DEADLINE_S, Command, Json, Name, Priority, ShortText, Value
from domain.plans import MAX_STEPS, Plan
from domain.runs.events import ByPerson, Compensate, Origin, Parent, RunBudget, StepFellBack, WorkflowRef
from domain.runs.taken_over import ForkedFrom, PartTakenOver, StepTakenOver


class OpenExecution(Value):
    """An agent run or a child run that had no outcome. It begins again."""

    part: int | None = None
    """None: the only one of its step."""
    given: bool = False
    """Whether the execution begins as it began. Else the plan is asked for its condition and its input."""
    mapped: bool = False
    """Whether `input` was made for the only execution of a step."""
    input: Json = None
    fell_back: tuple[StepFellBack, ...] = ()
    """Fallbacks that were gone on to."""
    plan: Json = None
    """Of a child run that an adaptive step named."""
    versions_asked: tuple[str, ...] = ()


class BegunStep(Value):
    """A step that was under way."""

    step: str
    form: Literal["each", "repeat", "adaptive", "run"] | None = None
    """None: one execution of an agent."""
    items: tuple[Json, ...] | None = None
    parts: tuple[PartTakenOver, ...] = ()
    """Those that had ended, in this order."""
    open: tuple[OpenExecution, ...] = ()


class TakenOver(Value):
    """What a run begins with: what another run was."""

    ended: tuple[StepTakenOver, ...] = ()
    """In this order."""
    early: tuple[str, ...] = ()
    """Those that ended before a step before them, because a person said so."""
    begun: tuple[BegunStep, ...] = ()


class StartRun(Command):
    run_id: UUID
    project_id: UUID
    plan: Plan
    input: Json = None
    metadata: dict[str, Json] = {}
    versions_asked: tuple[Name, ...] = ()
    priority: Priority = "normal"
    compensate: Compensate = "never"
    parent: Parent | None = None
    workflow: WorkflowRef | None = None
    origin: Origin | None = None
    tainted: bool = False
    again: int = 0
    """The number of the retry of the parent. A child run that was started before goes on, if it has ended."""
    fresh: bool = False
    budget: RunBudget | None = None
    budgets: tuple[UUID, ...] = ()
    """The runs above it that have a budget."""
    forked_from: ForkedFrom | None = None
    taken: TakenOver | None = None
    """With `forked_from`."""
    on_behalf_of: str | None = None
    """For whom the actor asks."""
    concurrency: KeyOfRun | None = None
    """The same append takes the key, or puts the run in line for it."""


class BeginRun(Command):
    """The run has its key."""

    run_id: UUID
    turn: int = 0


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


class FinishChild(Command):
    """A child run has ended."""

    run_id: UUID
    step: str
    part: int
    child_id: UUID
    result: Json = None
    error: Failure | None = None
    """None: it completed."""


class EndWait(Command):
    """The time that a step waits for has come."""

    run_id: UUID
    step: str


class SignalRun(Command):
    """Sends a signal to the agents of a run, or of one step. The first that waits for its name receives it, now or later."""

    run_id: UUID
    signal_id: UUID
    name: ShortText = Field(min_length=1)
    payload: Json = None
    step: ShortText | None = None
    depth: int = 0
    """Triggers that led to it."""


class AwaitSignal(Command):
    """An agent waits for a signal."""

    run_id: UUID
    agent_run_id: UUID
    key: str
    step: str
    name: str
    timeout_s: float | None = None
    reopened: int = 0
    """The number of the retry of the run since which the agent waits."""


class ExpireSignalWait(Command):
    """The time of a wait for a signal is over."""

    run_id: UUID
    agent_run_id: UUID
    key: str
    reopened: int = 0
    """As in `AwaitSignal`. A wait of the same agent after a later retry has a time of its own."""


class LeaveSignals(Command):
    """An agent run has ended while it waited for signals."""

    run_id: UUID
    agent_run_id: UUID
    keys: tuple[str, ...]


class CancelRun(Command):
    run_id: UUID
    reason: ShortText | None = None
    compensate: bool | None = None
    """Whether the run's effects are taken back. None: as the run's start said."""


class AbandonRun(Command):
    """A child run is not needed any more. Unlike `CancelRun` it is never refused: the run may have ended meanwhile."""

    run_id: UUID
    reason: ShortText | None = None
    turn: int | None = None
    """Only this turn of the run is not needed any more: a retry of it, which has the key again, goes on."""


class PauseRun(Command):
    """Nothing begins in the run until it is resumed."""

    run_id: UUID
    reason: ShortText | None = None
    by: str | None = None
    """The actor of the person's key."""
    on_behalf_of: str | None = None
    parent_number: int | None = None
    """The number of the pause of the run above. None: the run is paused by itself."""


class ResumeRun(Command):
    """The run goes on where it was when it was paused."""

    run_id: UUID
    reason: ShortText | None = None
    by: str | None = None
    on_behalf_of: str | None = None
    parent_number: int | None = None


class ChangePriority(Command):
    """What the run dispatches from now on has another priority, and so has what waits for a worker."""

    run_id: UUID
    priority: Priority
    reason: ShortText | None = None
    by: str | None = None
    """The actor of the person's key."""
    on_behalf_of: str | None = None
    parent_number: int | None = None
    """The number of the change of the run above. None: the priority of this run is changed by itself."""


class SkipStep(Command):
    """A person says that a step does not run, or a part of a list."""

    run_id: UUID
    step: str
    """Its key, or that of one of its parts."""
    person: ByPerson


class ForceStep(Command):
    """A person says how a step ends, or a part of one: with the result, unless there is an error."""

    run_id: UUID
    step: str
    result: Json = None
    error: Failure | None = None
    person: ByPerson


class RetryRun(Command):
    """What failed in a run runs again: a person's word, or that of the parent of a child run."""

    run_id: UUID
    steps: tuple[Name, ...] = Field(default=(), max_length=MAX_STEPS)
    """Failed steps. Empty: all that failed."""
    reason: ShortText | None = None
    fresh: bool = False
    """Whether agents begin from nothing, without their journals."""
    versions: dict[Name, ShortText] = {}
    """Step → the version of its agent."""
    parent_id: UUID | None = None
    """The run that asks for it, of which the run is a part. None: a person asks."""
    takes_key: int | None = None
    """The turn for which the same append takes the key of the run."""


class SetDeadline(Command):
    run_id: UUID
    deadline_s: float | None = Field(gt=0, le=MAX_DEADLINE_S, allow_inf_nan=False)
    """Seconds from now. None: the run has no deadline."""
    reason: ShortText | None = None
    by_start: bool = False
    """Whether the start or the retry of the run says so, in the same append."""


class EndAtDeadline(Command):
    """The time of a deadline has come."""

    run_id: UUID
    number: int


class StopRun(Command):
    """A budget of the run is over. Nothing happens to a run that has ended."""

    run_id: UUID
    error: Failure


class CheckRun(Command):
    """A condition of other commands in the same append: the run has neither ended nor is it paused. It decides nothing."""

    run_id: UUID


class TaintRun(Command):
    """A call in the run has given untrusted output, before anybody in the run gets it."""

    run_id: UUID
    invocation_id: UUID
    key: str
    goes_on: bool = False
    """The run is retried in the same append: it hears of it also if it has ended."""


class CheckUntainted(Command):
    """A condition of other commands in the same append: the run has got no untrusted output. It decides nothing."""

    run_id: UUID


RunCommand = (
    StartRun | BeginRun
    | CompleteStep
    | FailStep
    | FinishChild
    | EndWait
    | CancelRun
    | AbandonRun
    | StopRun
    | PauseRun | ResumeRun | ChangePriority | SkipStep
    | ForceStep | RetryRun | SetDeadline | EndAtDeadline | CheckRun
    | TaintRun
    | CheckUntainted | SignalRun | AwaitSignal
    | ExpireSignalWait | LeaveSignals
)  # fmt: skip
