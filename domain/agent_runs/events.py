"""Events of agent runs: the facts that the stream of an agent run holds."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import Field

from domain.amounts import AllowanceRef, Amounts, Unpaid
from domain.failures import Failure, Retry
from domain.kernel import Event, Json, Priority, Value, unsaid, unsaid_number

WaitKind = Literal["sleep", "signal", "approval", "child"]
"""What an agent waits for: a time, a signal of somebody, a person's approval, the end of a run that it started."""
StepKind = Literal["step", "send", "receive", "state_get", "state_set", "call"]
EntryKind = Literal[StepKind, WaitKind]


class OpenWait(Value):
    """A wait that an agent run left open when it ended."""

    key: str
    kind: WaitKind
    number: int = Field(default=0, exclude_if=unsaid_number)
    """The number of the retry of the run since which the agent waits. 0: the run was not retried before."""


class OpenReceive(Value):
    """A `receive` that goes on while the agent run has no worker."""

    key: str
    until: datetime | None = None
    """When it comes back without a message. None: never."""
    sender: str | None = None
    """Whose message it waits for. None: anybody's."""


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
    budgets: tuple[UUID, ...] = Field(default=(), exclude_if=unsaid)
    """The runs whose budgets its calls are paid from: its own, and those above it, as far as they have one."""


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
    kind: StepKind
    result: Json = None
    fingerprint: str | None = Field(default=None, exclude_if=unsaid)
    """Of kind, name and arguments. None: not known, it fits every call."""


class CallStarted(Event):
    TOPIC = "agent_run.call_started"
    attempt: int
    key: str
    tool: str
    invocation_id: UUID
    fingerprint: str | None = Field(default=None, exclude_if=unsaid)
    reserved: Amounts | None = Field(default=None, exclude_if=unsaid)
    """What is set aside for the call: the most that it may cost. None: no budget counts it."""
    purse: int | None = Field(default=None, exclude_if=unsaid)
    """The portion that it is set aside of."""
    unpaid: Unpaid | None = Field(default=None, exclude_if=unsaid)
    """What it waits for before it begins: a budget has too little, and asks people. None: it is paid, or none counts it."""


class CallCovered(Event):
    """One of the budgets that a held call waits for has enough for it. It is not the last one."""

    TOPIC = "agent_run.call_covered"
    key: str
    allowance_id: UUID


class CallPaid(Event):
    """A held call is paid: all its budgets have enough for it, and it begins."""

    TOPIC = "agent_run.call_paid"
    key: str
    invocation_id: UUID
    hold: UUID
    purse: int
    reserved: Amounts


class CallUnpaid(Event):
    """A held call has ended before it was paid: its budgets hear that it waits no more, or get back what it has drawn."""

    TOPIC = "agent_run.call_unpaid"
    key: str
    invocation_id: UUID
    allowances: tuple[AllowanceRef, ...]
    amounts: Amounts


class CallFinished(Event):
    """The outcome itself is on the invocation."""

    TOPIC = "agent_run.call_finished"
    key: str
    invocation_id: UUID
    succeeded: bool
    effect: bool = Field(default=False, exclude_if=unsaid)
    """Of a call that failed: it had its effect all the same, or perhaps had it. So it is not made again when the agent run goes on
    after its end."""
    cost: Amounts | None = Field(default=None, exclude_if=unsaid)
    """What the call has cost. None: no budget counts it."""


class PortionGranted(Event):
    """The agent run holds a further portion of its budgets. Its calls are paid from it."""

    TOPIC = "agent_run.portion_granted"
    purse: int
    """1, 2, 3 …: another number where the portion is of other allowances."""
    allowances: tuple[AllowanceRef, ...]
    amounts: Amounts
    exact: bool = Field(default=False, exclude_if=unsaid)
    """Little is left: what is not needed goes back at once."""


class PortionSettled(Event):
    """What the agent run has spent of a portion, and what it gives back. All allowances of the portion hear of it."""

    TOPIC = "agent_run.portion_settled"
    purse: int
    allowances: tuple[AllowanceRef, ...]
    spent: Amounts
    returned: Amounts
    exact: bool = Field(default=False, exclude_if=unsaid)
    """It holds nothing more than its calls under way need."""
    key: str | None = Field(default=None, exclude_if=unsaid)
    """The call that has ended after its agent run, and what it had set aside. None: all that its calls have spent."""


class WaitStarted(Event):
    """The agent waits for something that comes from outside. What ends the wait is the business of its kind."""

    TOPIC = "agent_run.wait_started"
    run_id: UUID
    step: str
    attempt: int
    key: str
    kind: WaitKind
    name: str | None = None
    """Of the signal, or what the wait is for, in the words of the agent."""
    delay_s: float | None = None
    """`sleep`: how long, from the recording of this event. Else: after so many seconds the wait fails. None: it has no such end."""
    until: datetime | None = None
    """The same as a time."""
    fingerprint: str | None = Field(default=None, exclude_if=unsaid)
    reopened: int = Field(default=0, exclude_if=unsaid_number)
    """The number of the retry of the run since which the agent waits. 0: the run was not retried before."""


class WaitFinished(Event):
    """What the agent waited for has come, or will not come."""

    TOPIC = "agent_run.wait_finished"
    key: str
    kind: WaitKind
    result: Json = None
    error: Failure | None = None
    """Why it will not come. None: it came."""


class EntryTakenOver(Event):
    """A finished entry of the journal of another agent run, which this one goes on from. It is not carried out again."""

    TOPIC = "agent_run.entry_taken_over"
    key: str
    kind: EntryKind
    succeeded: bool = True
    """Of a call."""
    invocation_id: UUID | None = None
    """Of a call: the invocation of the other agent run. Its outcome stays there."""
    effect: bool = Field(default=False, exclude_if=unsaid)
    """As in `agent_run.call_finished`."""
    held_by: UUID | None = None
    """The agent run whose journal holds the result, where that is large. None: it is `result`."""
    result: Json = None
    error: Failure | None = Field(default=None, exclude_if=unsaid)
    """Of a wait: why it will not come."""
    fingerprint: str | None = Field(default=None, exclude_if=unsaid)


class MailTakenOver(Event):
    """A message in the mailbox of another agent run, which this one goes on from."""

    TOPIC = "agent_run.mail_taken_over"
    message_id: UUID
    sender: str
    sent_at: datetime
    received_as: str | None = None
    """The key under which it was received. None: it waits in the mailbox."""


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


class AgentRunSuspended(Event):
    """The agent only waits: it has left its worker, and begins again from its journal when something has come."""

    TOPIC = "agent_run.suspended"
    attempt: int
    receives: tuple[OpenReceive, ...] = ()
    """Open `receive` calls, which the journal does not know before they come back."""


class AgentRunProgressed(Event):
    """The agent says how far it is. It says so from time to time: what lies between is told to nobody."""

    TOPIC = "agent_run.progressed"
    attempt: int
    done: float
    total: float | None = None
    """None: nobody knows."""
    message: str | None = None


class AgentRunResumed(Event):
    """The agent run waits for a worker again: after a retry's delay, because a claim lapsed, or because it was woken."""

    TOPIC = "agent_run.resumed"
    run_id: UUID
    agent: str
    dispatch: int
    lapsed: int | None = None
    """The attempt whose claim lapsed. None: the delay of a retry is over, or a pause is, or the agent run was suspended."""
    reason: str | None = None
    """Why the claim lapsed; `unpaused`: the run was paused, and goes on; `woken`: something has come for which the agent run was
    suspended; `person`: somebody wanted it; `priority`: the priority of the run was changed."""
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
    children: tuple[UUID, ...] = Field(default=(), exclude_if=unsaid)
    """Runs that the agent has started, and for whose end it waits: they are paused with it."""


class AgentRunUnpaused(Event):
    """The run goes on. What waits for a worker is dispatched anew: `agent_run.resumed` follows."""

    TOPIC = "agent_run.unpaused"
    number: int
    calls: tuple[UUID, ...] = ()
    """Invocations under way. Those that wait for a worker are dispatched anew, too."""
    children: tuple[UUID, ...] = Field(default=(), exclude_if=unsaid)
    """Runs that the agent has started, and for whose end it waits: they go on, too."""
    timeout_s: float | None = None
    """Seconds from now in which the agent run must end: its time-out, anew. None: it has none."""


class AgentRunPriorityChanged(Event):
    """The priority of the run was changed. What waits for a worker is dispatched anew: `agent_run.resumed` follows."""

    TOPIC = "agent_run.priority_changed"
    number: int
    """The change of the run."""
    priority: Priority
    calls: tuple[UUID, ...] = ()
    """Invocations under way, which get the priority, too."""
    children: tuple[UUID, ...] = ()
    """Runs that the agent has started, and for whose end it waits, likewise."""


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
    open_waits: tuple[OpenWait, ...] = Field(default=(), exclude_if=unsaid)
    """Waits for whose end nobody waits any more."""


class AgentRunFailed(Event):
    TOPIC = "agent_run.failed"
    run_id: UUID
    step: str
    error: Failure
    abandoned: tuple[UUID, ...] = ()
    """Invocations that were under way."""
    open_waits: tuple[OpenWait, ...] = Field(default=(), exclude_if=unsaid)


class AgentRunCancelled(Event):
    TOPIC = "agent_run.cancelled"
    reason: str | None = None
    abandoned: tuple[UUID, ...] = ()
    open_waits: tuple[OpenWait, ...] = Field(default=(), exclude_if=unsaid)


AgentRunEvent = (
    AgentRunRequested | AgentRunClaimed | StepRecorded | CallStarted | CallFinished | MailDelivered | MailRefused
    | CallCovered | CallPaid | CallUnpaid
    | MailReceived | PortionGranted | PortionSettled | AgentRunRetryScheduled | AgentRunResumed | AgentRunReopened
    | AgentRunCompleted | AgentRunFailed | AgentRunCancelled | AgentRunPaused | AgentRunUnpaused
    | WaitStarted | WaitFinished | AgentRunSuspended | AgentRunProgressed | EntryTakenOver | MailTakenOver
    | AgentRunPriorityChanged
)  # fmt: skip
