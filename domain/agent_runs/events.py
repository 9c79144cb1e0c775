"""Events of agent runs: the facts that the stream of an agent run holds."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import Field

from domain.failures import Failure, Retry
from domain.kernel import Event, Json, Priority, unsaid

EntryKind = Literal["step", "send", "receive", "state_get", "state_set", "call"]


class AgentRunRequested(Event):
    TOPIC = "agent_run.requested"
    run_id: UUID
    step: str
    agent: str
    agent_version: str | None
    timeout_s: float | None = None
    retry: Retry = Retry()
    version_asked: bool = False
    """Whether the version was asked for. Otherwise it is only noted."""
    priority: Priority = "normal"
    """The priority of the run."""
    on_behalf_of: str | None = None
    """For whom the work is: the metadata of all that comes of the work has it, too. None: for nobody."""


class AgentRunClaimed(Event):
    TOPIC = "agent_run.claimed"
    attempt: int
    """The fencing token: commands of an older one are refused."""
    worker_id: str
    dispatch: int
    session_id: UUID | None = None
    """The session that holds the lease. None: the queue of the work keeps the lease."""


class StepRecorded(Event):
    """A finished entry of the journal."""

    TOPIC = "agent_run.step_recorded"
    attempt: int
    key: str
    kind: EntryKind
    result: Json = None


class CallStarted(Event):
    TOPIC = "agent_run.call_started"
    attempt: int
    key: str
    tool: str
    invocation_id: UUID


class CallFinished(Event):
    """The outcome itself is on the invocation."""

    TOPIC = "agent_run.call_finished"
    key: str
    invocation_id: UUID
    succeeded: bool
    effect: bool = Field(default=False, exclude_if=unsaid)
    """Of a call that failed: it had its effect all the same, or perhaps had it. So it is not made again when the agent run goes on
    after its end."""


class MailDelivered(Event):
    TOPIC = "agent_run.mail_delivered"
    message_id: UUID
    sender: str
    sent_at: datetime


class MailRefused(Event):
    TOPIC = "agent_run.mail_refused"
    message_id: UUID
    reason: str


class MailReceived(Event):
    """A `receive` of the agent came back: with a message, or without one after its time-out."""

    TOPIC = "agent_run.mail_received"
    attempt: int
    key: str
    message_id: UUID | None


class AgentRunRetryScheduled(Event):
    TOPIC = "agent_run.retry_scheduled"
    attempt: int
    error: Failure
    delay_s: float
    dispatch: int


class AgentRunResumed(Event):
    """The agent run waits for a worker again: after a retry's delay, or because a claim lapsed."""

    TOPIC = "agent_run.resumed"
    run_id: UUID
    agent: str
    dispatch: int
    lapsed: int | None = None
    """The attempt whose claim lapsed. None: the delay of a retry is over, or a pause is."""
    reason: str | None = None
    """Why the claim lapsed; `unpaused`: the run was paused, and goes on; `person`: somebody wanted it."""
    priority: Priority = "normal"
    """The priority of the run."""
    by: str | None = None
    """`person`: the actor of the person's key."""
    because: str | None = None
    """`person`: why, in the person's words."""
    on_behalf_of: str | None = None
    """`person`: for whom the actor asked."""


class AgentRunPaused(Event):
    """The run is paused: no worker has the agent run, or gets it."""

    TOPIC = "agent_run.paused"
    number: int
    """The pause of the run."""
    attempt: int | None = None
    """The attempt that was taken from its worker. None: no worker had one."""


class AgentRunUnpaused(Event):
    """The run goes on. What waits for a worker is dispatched anew: `agent_run.resumed` follows."""

    TOPIC = "agent_run.unpaused"
    number: int
    calls: tuple[UUID, ...] = ()
    """Invocations under way. Those that wait for a worker are dispatched anew, too."""
    timeout_s: float | None = None
    """Seconds from now in which the agent run must end: its time-out, anew. None: it has none."""


class AgentRunReopened(Event):
    """The agent run had ended, and goes on: its run is retried. It waits for a worker again."""

    TOPIC = "agent_run.reopened"
    run_id: UUID
    step: str
    number: int
    """Of the retry of the run."""
    agent: str
    agent_version: str | None
    version_asked: bool = False
    timeout_s: float | None = None
    retry: Retry = Retry()
    dispatch: int
    fresh: bool = Field(default=False, exclude_if=unsaid)
    """Whether the agent begins from nothing. Otherwise its journal stays, without the calls that failed and had no effect: they are
    made again."""
    priority: Priority = "normal"
    on_behalf_of: str | None = None


class AgentRunCompleted(Event):
    TOPIC = "agent_run.completed"
    run_id: UUID
    step: str
    attempt: int
    result: Json = None
    unused_keys: tuple[str, ...] = ()
    """Journal keys that the last execution did not come across: the agent's code was changed in between."""
    abandoned: tuple[UUID, ...] = ()
    """Invocations that were under way: the agent ended without their outcome."""


class AgentRunFailed(Event):
    TOPIC = "agent_run.failed"
    run_id: UUID
    step: str
    error: Failure
    abandoned: tuple[UUID, ...] = ()
    """Invocations that were under way."""


class AgentRunCancelled(Event):
    TOPIC = "agent_run.cancelled"
    reason: str | None = None
    abandoned: tuple[UUID, ...] = ()


AgentRunEvent = (
    AgentRunRequested | AgentRunClaimed | StepRecorded | CallStarted | CallFinished | MailDelivered | MailRefused
    | MailReceived | AgentRunRetryScheduled | AgentRunResumed | AgentRunReopened | AgentRunCompleted | AgentRunFailed
    | AgentRunCancelled | AgentRunPaused | AgentRunUnpaused
)  # fmt: skip
