"""Models of runs: a run, its steps, their parts and calls; a run in a list."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

FINISHED: frozenset[str] = frozenset({"completed", "failed", "cancelled"})


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")


class LargeValue(Model):
    """Where a value is that is too large for its place: `Client.value` reads it. `bytes`: its size as JSON."""

    ref: str
    bytes: int


class HoldsLarge(Model):
    """An object with values that may be too large for it.

    `large`: the values that were left out, by their fields, which are then empty. None: all values are here. The client gets all
    values, unless it was asked for `whole=False`.
    """

    large: dict[str, LargeValue] | None = None


class Call(HoldsLarge):
    """A tool call of a step. `error`: `{type, message, kind, file, line, traceback, causes}`.

    `status`: requested, running, retrying, succeeded, failed, reconciling (the tool's `reconcile` function is asked about the
    effect), ambiguous (the effect is not known) or cancelled. `cancel_requested`:
    cancelled in the middle of an attempt; not tried again. `effect`: "unknown" if the worker of a cancelled call vanished.
    `resolution`: `{by, reason, evidence, at}` if a person stated the outcome.
    """

    key: str
    tool: str
    status: str
    invocation_id: UUID | None = None
    attempts: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: dict[str, Any] | None = None
    cancel_requested: bool = False
    fallback: str | None = None
    """The tool that is called, or that answered, instead of `tool`."""
    effect: str | None = None
    resolution: dict[str, Any] | None = None


class RunCall(Call):
    """A tool call in the list of a run's calls. `position`: of the event that started the call."""

    step: str
    agent_run_id: UUID
    position: int


class JournalEntry(HoldsLarge):
    """Something that an agent of a run has finished or begun.

    `kind`: step, send, receive, state_get, state_set, call (started) or call_finished. `result`: of a recorded step.
    """

    position: int
    at: datetime
    step: str | None = None
    agent_run_id: UUID
    attempt: int | None = None
    key: str
    kind: str
    result: Any = None
    tool: str | None = None
    invocation_id: UUID | None = None
    succeeded: bool | None = None
    taken_over: bool = False
    """Whether it was finished in the run that this one was forked from."""
    held_by: UUID | None = None
    """The agent run of that run whose journal has the result, where that is large."""
    message_id: UUID | None = None


class Why(Model):
    """Why a step ran, or did not. `condition`: its `when`; `value`: what it gave; `saw`: the values that it named.

    `reason`, of a skipped step: condition (it was false), upstream (all steps before it were skipped) or not_needed (the step `by`
    had enough results).
    """

    reason: str | None = None
    condition: str | None = None
    value: Any = None
    saw: dict[str, Any] = Field(default_factory=dict)
    by: str | None = None


class Part(HoldsLarge):
    """One of the executions of a step that has several: of an agent (`agent_run_id`), or a child run (`run_id`).

    `number`: 0, 1, 2 …. `fallback`: which of the fallbacks `agent` is; 0: none. `person`: `by`, `reason` and `on_behalf_of` of who
    skipped it or said how it ended. `input`, `result` and `error` are known in the list
    of `Client.parts` only.
    """

    number: int
    status: str
    agent: str | None = None
    agent_version: str | None = None
    agent_run_id: UUID | None = None
    run_id: UUID | None = None
    fallback: int = 0
    attempt: int = 0
    worker_id: str | None = None
    scheduled_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    person: dict[str, Any] | None = None
    input: Any = None
    result: Any = None
    error: dict[str, Any] | None = None


class Parts(Model):
    """The parts of a step, counted, and the first of them. `total`: as far as it is known. `Client.parts` lists all."""

    total: int | None = None
    started: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    first: tuple[Part, ...] = ()


class StepProgress(Model):
    """How far an agent is, as it has said last by `ctx.progress`. `part`: which execution of the step; None: the only one."""

    done: float
    total: float | None = None
    message: str | None = None
    at: datetime
    attempt: int = 0
    part: int | None = None


class Step(HoldsLarge):
    """A step of a run. `error` as of `Call`.

    `form`: agent (one execution), gather, value, wait, each, repeat, adaptive or run. `status`: pending, scheduled, running,
    retrying, waiting (for a clock, until `waits_until`), completed, failed, cancelled or skipped. `scheduled_at`: the
    work was put into the queue of the agent then. `unused_keys`: recorded results that the last execution did not use, so the code
    was changed.
    """

    key: str
    agent: str | None = None
    status: str
    form: str = "agent"
    why: Why | None = None
    """None: nothing is to be said; the step has no condition."""
    input: Any = None
    """What `input_from` gave."""
    parts: Parts | None = None
    exhausted: bool = False
    """Whether a loop ended because of its bound."""
    fallbacks: tuple[dict[str, Any], ...] = ()
    """Agents that were tried after the one of the plan: `{number, agent, error, at}`."""
    taken_over: bool = False
    """Whether the step ended in the run that this one was forked from; `agent_run_id` is then of that run."""
    waits_until: datetime | None = None
    progress: StepProgress | None = None
    """None: the agent has not said how far it is."""
    after: tuple[str, ...] = ()
    agent_version: str | None = None
    version_asked: bool = False
    """Whether the plan asked for the version. Otherwise it is the one that was registered when the run started."""
    agent_run_id: UUID | None = None
    attempt: int = 0
    worker_id: str | None = None
    result: Any = None
    error: dict[str, Any] | None = None
    unused_keys: tuple[str, ...] = ()
    scheduled_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    call_count: int = 0
    calls: tuple[Call, ...] = ()
    """The calls that are among the newest of the run. `Client.calls` lists all."""


class Parent(Model):
    """The step of another run that started the run. In lists, only `run_id` is known."""

    run_id: UUID
    step: str | None = None
    part: int | None = None
    depth: int | None = None


class WorkflowVersion(Model):
    """The workflow that a plan is of."""

    name: str
    version: int


class Origin(Model):
    """What started a run, where no client did: `kind` schedule, trigger, webhook or command, and its name. In lists, only these."""

    kind: str
    name: str
    event: str | None = None
    due_at: datetime | None = None
    depth: int | None = None


class RunWait(Model):
    """What an open step of a run waits for. `step`: None for the run itself. `kind`: run, agent, tool or clock; `name`: of the
    agent or tool; `id`: of the agent run, the call or the child run; `key`: of the call.

    `waits_for`: resume, worker, version, free_worker, retry, clock, run, agent, tool, breaker, person, approval, reconcile,
    chain, signal,
    message, or unknown, which is a defect. `detail`: the same in words. `until`: when the wait ends by itself.
    """

    step: str | None = None
    kind: str
    name: str | None = None
    id: UUID | None = None
    key: str | None = None
    approval_id: UUID | None = None
    waits_for: str
    detail: str
    until: datetime | None = None


class RunWaits(Model):
    run_id: UUID
    status: str
    data: tuple[RunWait, ...]
    more: int = 0


class ForkedFrom(Model):
    """The run that a fork took over from: at `step`, which began without what it had recorded if `anew`, or at `position`."""

    run_id: UUID
    position: int
    step: str | None = None
    anew: bool = False


class RunSummary(Model):
    """A run in a list. `status`: queued, running, paused, completed, failed or cancelled.

    `degraded`: completed, though the steps in `missing` failed. `priority`: high, normal or low.

    `unreadable`, here and in the other lists: the server cannot read its stored document, so the fields of that document are
    missing.
    """

    run_id: UUID
    status: str
    project_id: UUID | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    finished_at: datetime | None = None
    degraded: bool = False
    missing: tuple[str, ...] = ()
    priority: str = "normal"
    actor: str | None = None
    """Who started the run, such as `key:<id>`."""
    on_behalf_of: str | None = None
    """For whom the actor started it, as the actor said."""
    unreadable: bool = False
    parent: Parent | None = None
    workflow: WorkflowVersion | None = None
    origin: Origin | None = None

    @property
    def finished(self) -> bool:
        return self.status in FINISHED


class Run(RunSummary, HoldsLarge):
    """A run as of a position of the log. `result`: what the plan's `result` gave; without one the result of its only final step, or
    else the results of all final steps by key.

    `error` as of `Call`.
    """

    input: Any = None
    plan: Any = None
    metadata: dict[str, Any] | None = None
    result: Any = None
    error: dict[str, Any] | None = None
    version: int = 0
    position: int = 0
    event_count: int = 0
    call_count: int = 0
    deadline_at: datetime | None = None
    """When the run must have ended, or else fails. None: it has no deadline."""
    retries: int = 0
    """How often what had failed in the run was tried again."""
    forked_from: ForkedFrom | None = None
    compensate: str = "never"
    compensation: dict[str, Any] | None = None
    """The status of taking its effects back, and how many; see `Client.compensation`. None: it has not begun."""
    pause: dict[str, Any] | None = None
    """Why nothing begins in the run: `{by, on_behalf_of, reason, at, parent_id}`. None: it is not paused."""
    concurrency: dict[str, Any] | None = None
    """`{key, on_busy}`: the key that the run shares with others. While it waits for the key, it is queued. None: it has none."""
    steps: tuple[Step, ...] = ()

    def step(self, key: str) -> Step:
        """The step of that key. Raises `KeyError` if there is none."""
        for step in self.steps:
            if step.key == key:
                return step
        raise KeyError(key)
