"""The facts of a run that people bring about while it goes on: pauses, deadlines, priorities, signals; and its wait for a key."""

from typing import Literal
from uuid import UUID

from pydantic import Field

from domain.kernel import Event, Json, Priority, Value, unsaid_number


class DeadlineSet(Event):
    """The run must have ended after so many seconds from the recording of this event. Otherwise it fails."""

    TOPIC = "run.deadline_set"
    number: int
    """1, 2, 3 … The newest one holds."""
    deadline_s: float | None
    """None: the run has no deadline any more."""
    reason: str | None = None


class PriorityCause(Value):
    """Who changed the priority of a run, and why."""

    by: str | None = None
    """The actor of the person's key."""
    reason: str | None = None
    on_behalf_of: str | None = None
    """For whom the actor asked."""
    parent_id: UUID | None = None
    """The run above, whose priority was changed. None: that of this run was."""


class RunPriorityChanged(Event):
    """What the run dispatches from now on has another priority, and so has what waits for a worker."""

    TOPIC = "run.priority_changed"
    number: int
    """1, 2, 3 …: the newest one holds."""
    priority: Priority
    before: Priority
    cause: PriorityCause
    parent_number: int | None = None
    """The number of the change of the run above, with which this one came."""
    executions: tuple[UUID, ...] = ()
    """Agent runs that were under way, and get the priority."""
    runs: tuple[UUID, ...] = ()
    """Child runs, likewise."""


class RunQueued(Event):
    """The run waits until no other run holds its key. Nothing of it begins before."""

    TOPIC = "run.queued"
    key: str


class RunBegun(Event):
    """The run has its key. What begins stands in the events after this one."""

    TOPIC = "run.begun"
    key: str


class Receiver(Value):
    """A wait of an agent for a signal."""

    agent_run_id: UUID
    key: str


class RunSignalled(Event):
    """Somebody has sent the run a signal."""

    TOPIC = "run.signalled"
    signal_id: UUID
    name: str
    payload: Json = None
    step: str | None = None
    """Only an agent of this step receives it. None: any of the run."""
    received_by: Receiver | None = None
    """Who waited for it. None: it is kept until somebody does."""
    depth: int = Field(default=0, exclude_if=unsaid_number)
    """Triggers that led to this signal, or to one before it. 0: none has sent one."""


class SignalAwaited(Event):
    """An agent waits for a signal, and none was kept for it."""

    TOPIC = "run.signal_awaited"
    agent_run_id: UUID
    key: str
    step: str
    name: str
    timeout_s: float | None = None
    reopened: int = Field(default=0, exclude_if=unsaid_number)
    """The number of the retry of the run since which the agent waits. 0: the run was not retried before."""


class SignalReceived(Event):
    """An agent has received a signal that was kept for it."""

    TOPIC = "run.signal_received"
    signal_id: UUID
    agent_run_id: UUID
    key: str
    name: str
    payload: Json = None


class SignalWaitEnded(Event):
    """An agent waits for a signal no more."""

    TOPIC = "run.signal_wait_ended"
    agent_run_id: UUID
    key: str
    name: str
    reason: Literal["timed_out", "agent_ended"]
    timeout_s: float | None = None


class PauseCause(Value):
    """Who paused a run, and why."""

    by: str | None = None
    """The actor of the person's key."""
    reason: str | None = None
    on_behalf_of: str | None = None
    """For whom the actor asked."""
    parent_id: UUID | None = None
    """The run above, with which this one was paused. None: it was paused itself."""


class RunPaused(Event):
    """Nothing begins in the run until it is resumed. Outcomes of what has begun are recorded; what follows from them is decided at
    the resumption."""

    TOPIC = "run.paused"
    number: int
    """1, 2, 3 …: how often the run was paused. A second cause of a pause has the number of the first one."""
    cause: PauseCause
    parent_number: int | None = None
    """The number of the pause of the run above, with which this one is paused."""
    executions: tuple[UUID, ...] = ()
    """Agent runs that were under way, and must be paused."""
    runs: tuple[UUID, ...] = ()
    """Child runs, likewise."""


class RunPauseLifted(Event):
    """One cause of a pause is over. The run stays paused, because of the other one: by itself, or with the run above."""

    TOPIC = "run.pause_lifted"
    cause: PauseCause
    """Who lifted the pause, and why."""
    parent_number: int | None = None
    left: PauseCause
    """Why the run is still paused."""


class RunResumed(Event):
    """The run goes on where it was. What follows from the outcomes of the pause stands in the events after this one."""

    TOPIC = "run.resumed"
    number: int
    """Of the pause that is over."""
    cause: PauseCause
    """Who resumed the run, and why."""
    parent_number: int | None = None
    """The number of the pause of the run above that is over, with which this one was paused."""
    executions: tuple[UUID, ...] = ()
    """Agent runs that go on."""
    runs: tuple[UUID, ...] = ()
    """Child runs, likewise."""
