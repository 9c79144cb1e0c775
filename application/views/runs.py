"""Runs as people see them: the whole document, and an entry of a list."""

from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field, PrivateAttr, computed_field

from application.engine.ports.views import ListedRow, Timestamp
from application.views.invocations import ResolutionView
from application.views.large import LARGE_BYTES, MEANING, HoldsLarge, Large, LargeValue, json_bytes, path_of_run, place_of
from domain import runs
from domain.concurrency import Concurrency
from domain.failures import Failure
from domain.kernel import Json, Priority, unsaid

NEWEST_CALLS = 50
"""A run shows so many of its calls. All calls have a list of their own."""

FIRST_PARTS = 20
"""A step shows so many of its parts. All parts have a list of their own."""

MAX_FOUND_NAMES = 50
"""Runs are found by the values of so many names of their metadata, the first ones."""
MAX_FOUND_WORDS = 50
"""Runs are found by so many different words of an error, the first ones."""

RunStatus = Literal["queued", "running", "paused", "completed", "failed", "cancelled"]
GOING_ON: frozenset[RunStatus] = frozenset({"queued", "running", "paused"})
"""Statuses of runs that have not ended."""
StepStatus = Literal[
    "pending", "scheduled", "running", "waiting", "suspended", "retrying", "paused", "completed", "failed", "cancelled", "skipped"
]  # fmt: skip
"""`waiting`: for a clock. `suspended`: its agent only waits, and has no worker meanwhile. `paused`: with the run."""
PartStatus = Literal["scheduled", "running", "suspended", "retrying", "paused", "completed", "failed", "cancelled"]
Form = Literal["agent", "gather", "value", "wait", "each", "repeat", "adaptive", "run"]
"""What a step is. `each`, `repeat` and `adaptive` are made of parts, each of them an agent's or a run."""
CallStatus = Literal["requested", "held", "running", "retrying", "succeeded", "failed", "ambiguous", "reconciling", "cancelled"]


class Folded(BaseModel):
    """A document, or a part of one, that the events of a run change field by field.

    Its fields are set as those of a plain object: pydantic would look at each change, which was valid in the event.
    """

    if not TYPE_CHECKING:
        __setattr__ = object.__setattr__


class CallView(Folded, HoldsLarge):
    key: str
    tool: str
    invocation_id: UUID
    status: CallStatus = "requested"
    attempts: int = 0
    worker_id: str | None = None
    error: Failure | None = None
    cancel_requested: bool = False
    """Whether the call was cancelled in the middle of an attempt. Such a call is not tried again."""
    fallback: str | None = None
    """The tool that is called, or that answered, instead of `tool`. None: no other one."""
    effect: Literal["unknown"] | None = None
    """For a cancelled call: `unknown` if the worker of its last attempt vanished."""
    resolution: ResolutionView | None = None
    started_at: Timestamp
    finished_at: Timestamp | None = None
    part: int | None = Field(default=None, exclude_if=unsaid)
    """The part of the step that called. Missing: the step has no parts."""


class RunCallView(CallView):
    """A tool call in the list of a run's calls."""

    step: str
    agent_run_id: UUID
    position: int
    """Of the event that started the call. Calls are listed in this order."""


class JournalEntryView(HoldsLarge):
    """Something that an agent has finished or begun, so that its next attempt does not repeat it."""

    position: int
    at: Timestamp
    step: str | None
    """None: the agent run belongs to no step of the plan."""
    agent_run_id: UUID
    attempt: int | None
    """The attempt that wrote the entry. Null for the end of a call, which comes by itself."""
    key: str
    kind: Literal[
        "step", "send", "receive", "state_get", "state_set", "call", "call_finished", "sleep", "signal", "approval", "child",
        "wait_finished",
    ]  # fmt: skip
    """`call`: a call was started. `call_finished`: the call has an outcome. `sleep`, `signal`, `approval`, `child`: a wait was
    begun. `wait_finished`: the wait has ended."""
    result: Json = None
    """Of a step that was recorded, also of messages and shared values."""
    tool: str | None = None
    invocation_id: UUID | None = None
    succeeded: bool | None = None
    message_id: UUID | None = None
    name: str | None = Field(default=None, exclude_if=unsaid)
    """Of the signal that is waited for."""
    error: Failure | None = Field(default=None, exclude_if=unsaid)
    """Why what was waited for does not come."""
    taken_over: bool = Field(default=False, exclude_if=unsaid)
    """Whether it was finished in the run that this one was forked from, and is not carried out again."""
    held_by: UUID | None = Field(default=None, exclude_if=unsaid)
    """The agent run of that run whose journal has the result, where that is large."""


class PersonView(BaseModel):
    """Who stepped in, and why."""

    by: str
    on_behalf_of: str | None = None
    reason: str


class WhyView(BaseModel):
    """Why a step ran, or did not; and who forced its outcome."""

    reason: Literal["condition", "upstream", "not_needed", "person"] | None = None
    """Why the step was skipped. `condition`: its condition was false. `upstream`: all steps before it were skipped. `not_needed`:
    the step `by` had enough results. `person`: somebody skipped it. Null: it was not skipped."""
    condition: str | None = None
    """The step's `when`."""
    value: Json = None
    """What the condition gave."""
    saw: dict[str, Json] = {}
    """The values that the condition named, as far as they are small."""
    by: str | None = None
    """`not_needed`: the step that had enough."""
    person: PersonView | None = Field(default=None, exclude_if=unsaid)
    """Who skipped the step, or forced its outcome. Missing: nobody did."""


class TriedFallback(BaseModel):
    """An agent that was tried because the one before it had failed."""

    number: int
    """Its place among the fallbacks of the plan: 1, 2, 3 …"""
    agent: str
    error: Failure
    """Of the agent before it. Without its traceback, which the event has."""
    at: Timestamp


class PartBrief(Folded):
    """One of the executions of a step that has several, or a child run."""

    number: int
    """0, 1, 2 …: the place of the item of `each`, the time of `repeat` and `adaptive`."""
    status: PartStatus = "scheduled"
    agent: str | None = None
    """Null: the part is a run."""
    agent_version: str | None = None
    agent_run_id: UUID | None = None
    run_id: UUID | None = None
    """The child run."""
    fallback: int = 0
    """Which of the fallbacks `agent` is. 0: none."""
    attempt: int = 0
    worker_id: str | None = None
    scheduled_at: Timestamp
    started_at: Timestamp | None = None
    finished_at: Timestamp | None = None
    person: PersonView | None = Field(default=None, exclude_if=unsaid)
    """Who skipped the part, or said how it ended. Missing: nobody did."""


class PartView(PartBrief, HoldsLarge):
    """A part in the list of a step's parts."""

    input: Json = None
    result: Json = None
    error: Failure | None = None


class PartsView(Folded):
    """The parts of a step, counted. `GET /v1/runs/{id}/steps/{key}/parts` has all of them."""

    total: int | None = None
    """`each`: the items. `repeat`: the most times. `run`: 1. Null: nobody knows before the end."""
    started: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    first: list[PartBrief] = Field(default=[], description=f"The first {FIRST_PARTS}")


class ProgressView(BaseModel):
    """How far an agent is, as it has said last. It is said from time to time, not at each change."""

    done: float
    total: float | None = None
    """Null: nobody knows."""
    message: str | None = None
    at: Timestamp
    attempt: int
    part: int | None = None
    """Which execution of the step has said it. Null: the only one."""


class StepView(Folded, HoldsLarge):
    key: str
    agent: str | None = None
    """Null: the step is no agent's."""
    agent_version: str | None = None
    version_asked: bool = False
    """Whether the plan asked for the version. Otherwise it is the one that was registered when the run started."""
    after: list[str] = []
    status: StepStatus = "pending"
    agent_run_id: UUID | None = None
    attempt: int = 0
    worker_id: str | None = None
    result: Json = None
    error: Failure | None = None
    recorded_steps: int = 0
    """Local steps in the journal: finished work that is not repeated."""
    unused_keys: list[str] = []
    """Recorded results that the last execution did not use: the agent's code was changed in between."""
    scheduled_at: Timestamp | None = None
    """When the step's work was put into the queue of its agent, the last time."""
    started_at: Timestamp | None = None
    finished_at: Timestamp | None = None
    call_count: int = 0
    """Tool calls of the step."""
    calls: list[CallView] = Field(
        default=[], description=f"Those of the step's calls that are among the newest {NEWEST_CALLS} of the run"
    )
    form: Form = "agent"

    # Missing where there is nothing to say.
    why: WhyView | None = Field(default=None, exclude_if=unsaid)
    input: Json = Field(default=None, exclude_if=unsaid)
    """What `input_from` gave. Missing: the step has none, or was not begun."""
    waits_until: Timestamp | None = Field(default=None, exclude_if=unsaid)
    """The time that a step waits for, or has waited for."""
    progress: ProgressView | None = Field(default=None, exclude_if=unsaid)
    """How far its agent is. Missing: it has not said so."""
    parts: PartsView | None = Field(default=None, exclude_if=unsaid)
    exhausted: bool = Field(default=False, exclude_if=unsaid)
    """Whether a loop ended because of its bound."""
    taken_over: bool = Field(default=False, exclude_if=unsaid)
    """Whether the step ended in the run that this one was forked from, and does not run again. `agent_run_id` is then of that
    run."""
    fallbacks: list[TriedFallback] | None = Field(default=None, exclude_if=unsaid)
    """Agents that were tried after the one of the plan. The last of them gave the result, or the error."""


class CompensationBrief(BaseModel):
    """Taking back the effects of a run. `GET /v1/runs/{id}/compensation` has the effects."""

    status: Literal["running", "partial", "compensated"]
    """`running`: also while it waits for calls of the run. `partial`: not every effect was taken back, and nothing goes on."""
    effects: int | None = None
    """Effects that can be taken back. The numbers are those of the end; null while it goes on."""
    compensated: int | None = None
    failed: int | None = None
    skipped: int | None = None


class PauseView(BaseModel):
    """Why nothing begins in a run."""

    by: str | None = None
    """Who paused the run."""
    on_behalf_of: str | None = None
    """For whom the run was paused, as `by` said. Null: for nobody."""
    reason: str | None = None
    at: Timestamp
    parent_id: UUID | None = None
    """The run above, with which this one was paused. Null: the run was paused by itself."""


class RunView(Folded):
    run_id: UUID
    project_id: UUID
    status: RunStatus
    degraded: bool = False
    missing: list[str] = []
    plan: runs.Plan
    input: Json = None
    metadata: dict[str, Json] = {}
    priority: Priority = "normal"
    actor: str | None = None
    """Who started the run."""
    on_behalf_of: str | None = None
    """For whom the run was started, as its actor said. None: for nobody."""
    error: Failure | None = None
    cancel_reason: str | None = None
    created_at: Timestamp
    updated_at: Timestamp
    finished_at: Timestamp | None = None
    compensate: runs.Compensate = "never"
    """When the run's effects are taken back."""
    compensation: CompensationBrief | None = None
    """Null: it has not begun."""
    pause: PauseView | None = Field(default=None, exclude_if=unsaid)
    """Missing: the run is not paused."""
    concurrency: Concurrency | None = Field(default=None, exclude_if=unsaid)
    """The key that the run shares with others. Missing: it has none."""
    version: int
    """Version of the run's stream."""
    position: int
    """Position of the last event inside the run."""
    event_count: int = 0
    message_count: int = 0
    call_count: int = 0
    """Tool calls of the run. The steps show the newest of them."""
    deadline_at: Timestamp | None = None
    """When the run must have ended, or else fails. Null: it has no deadline."""
    retries: int = 0
    """How often what had failed in the run was tried again by a person."""
    steps: list[StepView] = []
    parent: runs.Parent | None = None
    """The step of another run that started the run, and waits for it."""
    workflow: runs.WorkflowRef | None = None
    """The workflow that the plan is of."""
    origin: runs.Origin | None = None
    """What started the run, where no client did."""
    forked_from: runs.ForkedFrom | None = Field(default=None, exclude_if=unsaid)
    """The run that this one took over from, and where."""
    given_result: Json = Field(default=None, exclude=True)
    """What the plan's own `result` gave."""

    _large: dict[str, LargeValue] = PrivateAttr(default_factory=dict)

    def put(self, field: str, value: Any, place: LargeValue | None = None) -> None:
        """Sets a field; see `HoldsLarge.put`."""
        setattr(self, field, value)
        if place is not None:
            self._large[field] = place

    def forget_end(self) -> None:
        """The run goes on after its end."""
        self.error, self.cancel_reason, self.given_result = None, None, None
        self._large.pop("error", None)
        self._large.pop("result", None)

    def put_result(self, value: Json, place: LargeValue | None) -> None:
        """Sets what the plan's own `result` gave."""
        self.given_result = value
        if place is not None:
            self._large["result"] = place

    @computed_field  # type: ignore[prop-decorator]  # as pydantic documents it
    @property
    def result(self) -> Json:
        """What the plan's `result` gave. Without one: the result of the only final step; of several final steps, theirs by key."""
        if self.plan.result is not None:
            return self.given_result
        final = self.final_steps
        if len(final) == 1:
            return final[0].result
        return None if self._size_of_large(final) else {step.key: step.result for step in final if step.status == "completed"}

    @computed_field(description=MEANING)  # type: ignore[prop-decorator]
    @property
    def large(self) -> Large:
        final, found = self.final_steps, dict(self._large)
        if self.plan.result is not None:
            return found or None
        if len(final) == 1:
            if final[0].large is not None and "result" in final[0].large:
                found["result"] = final[0].large["result"]
        elif size := self._size_of_large(final):
            found["result"] = place_of(path_of_run(self.run_id), "result", self.position, size)
        return found or None

    @property
    def final_steps(self) -> list[StepView]:
        """The steps that no other step comes after."""
        upstream = {key for step in self.steps for key in step.after}
        return [step for step in self.steps if step.key not in upstream]

    @staticmethod
    def _size_of_large(final: list[StepView]) -> int:
        """Bytes of the results of several final steps as one JSON object. 0 if the object stands in the document."""
        size, has_large = 1, False
        for step in final:
            if step.status == "completed":
                place = (step.large or {}).get("result")
                has_large |= place is not None
                size += len(f'"{step.key}":,') + (json_bytes(step.result) if place is None else place.bytes)
        return size if has_large or size > LARGE_BYTES else 0


DEGRADED = "degraded"
"""The filter of lists for completed runs without some of their steps. The status of such a run is `completed`."""


class ParentBrief(BaseModel):
    """The run whose step started the run."""

    run_id: UUID


class OriginBrief(BaseModel):
    """What started the run, where no client did."""

    kind: str
    name: str


class RunSummary(ListedRow):
    run_id: UUID
    project_id: UUID
    status: str
    degraded: bool
    missing: list[str] = []
    """Steps that failed, though the run was completed."""
    priority: Priority = "normal"
    actor: str | None = None
    """Who started the run."""
    on_behalf_of: str | None = None
    """For whom the run was started, as its actor said. None: for nobody."""
    agents: list[str]
    created_at: Timestamp
    finished_at: Timestamp | None
    position: int
    event_count: int
    retries: int = 0
    """How often what had failed in the run was tried again."""
    parent: ParentBrief | None = None
    workflow: runs.WorkflowRef | None = None
    """The workflow that the plan is of."""
    origin: OriginBrief | None = None
