"""Commands of agent runs: what sagas, timers and workers may ask for."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from domain.agent_runs.events import EntryTakenOver, MailTakenOver, OpenReceive, StepKind, WaitKind
from domain.amounts import AllowanceRef, Amounts, Unpaid
from domain.failures import Failure, LapseReason, Retry
from domain.kernel import Command, Json, Name, Priority, ShortText, Value

EntryKey = ShortText
Fingerprint = Annotated[str, Field(min_length=1, max_length=64)]
LONGEST_WAIT_S = 10 * 366 * 86_400.0
MOST_RECEIVES = 100
"""Open `receive` calls of an agent run that leaves its worker."""
MOST_PROGRESS = 1e15


class RequestAgentRun(Command):
    agent_run_id: UUID
    run_id: UUID
    step: Name
    agent: Name
    agent_version: ShortText | None = None
    timeout_s: float | None = None
    retry: Retry = Retry()
    version_asked: bool = False
    priority: Priority = "normal"
    on_behalf_of: str | None = None
    budgets: tuple[UUID, ...] = ()


class ReopenAgentRun(RequestAgentRun):
    """The run is retried: an agent run that has ended goes on. One that never began is requested."""

    number: int = Field(ge=1)
    fresh: bool = False


class TakeOverJournal(Command):
    """Begins the agent run, which need not be requested yet, with what another one had finished."""

    agent_run_id: UUID
    run_id: UUID
    entries: tuple[EntryTakenOver, ...] = ()
    mail: tuple[MailTakenOver, ...] = ()


class ClaimAgentRun(Command):
    agent_run_id: UUID
    worker_id: ShortText
    dispatch: int = Field(ge=1)
    session_id: UUID | None = None


class LapseClaim(Command):
    """Takes the agent run away from the session that claimed it."""

    agent_run_id: UUID
    attempt: int
    reason: LapseReason


class RecordStep(Command):
    agent_run_id: UUID
    attempt: int
    key: EntryKey
    kind: StepKind = "step"
    result: Json = None
    fingerprint: Fingerprint | None = None


class StartCall(Command):
    agent_run_id: UUID
    attempt: int
    key: EntryKey
    tool: Name
    fingerprint: Fingerprint | None = None
    reserve: Amounts | None = None
    """What is set aside for the call. None: no budget counts it."""
    purse: int | None = None
    """The portion that it is set aside of."""
    refused: bool = False
    """No budget has anything left for it: the call fails in the same append."""
    unpaid: Unpaid | None = None
    """What the call is held for. None: it begins."""


class FinishCall(Command):
    agent_run_id: UUID
    key: EntryKey
    invocation_id: UUID
    succeeded: bool
    effect: bool = False
    usage: Amounts | None = None
    """What the call has used, beside being a call."""


class SettledCall(Value):
    """What became of a call after the agent run had ended."""

    key: EntryKey
    invocation_id: UUID
    succeeded: bool
    effect: bool = False


class SettleCalls(Command):
    """The outcomes of calls that were under way when the agent run ended. It is about to go on."""

    agent_run_id: UUID
    calls: tuple[SettledCall, ...]


class StartWait(Command):
    """The agent waits for something from outside. What brings it, sends `FinishWait`."""

    agent_run_id: UUID
    attempt: int
    key: EntryKey
    kind: WaitKind
    name: ShortText | None = None
    delay_s: float | None = Field(default=None, ge=0, le=LONGEST_WAIT_S)
    until: datetime | None = None
    fingerprint: Fingerprint | None = None


class FinishWait(Command):
    """Ends a wait. Nothing, for one that has ended, or that nobody waits for any more."""

    agent_run_id: UUID
    key: EntryKey
    result: Json = None
    error: Failure | None = None
    child_id: UUID | None = None
    """The child run that has ended. After a retry of its run an agent waits for another one under the same key."""
    reopened: int | None = None
    """The number of the retry since which the agent waited. A wait of the same key after a later one is another wait."""


class SuspendAgentRun(Command):
    """The agent only waits, and leaves its worker. Nothing, where something has come that the worker has not heard of."""

    agent_run_id: UUID
    attempt: int
    seen: int = Field(ge=0)
    """The version of the stream up to which the worker has the news."""
    receives: tuple[OpenReceive, ...] = Field(default=(), max_length=MOST_RECEIVES)


class WakeAgentRun(Command):
    """The time of an open `receive` is over."""

    agent_run_id: UUID
    attempt: int
    """The one that was suspended."""


class GrantPortion(Command):
    """In one append with the draws from the allowances."""

    agent_run_id: UUID
    attempt: int
    allowances: tuple[AllowanceRef, ...]
    amounts: Amounts
    exact: bool = False


class ReleasePortion(Command):
    """Somebody needs what the agent run does not."""

    agent_run_id: UUID
    allowance_id: UUID


class SettleCancelled(Command):
    """A call was cancelled. What it had set aside goes back, but for what its attempts may have cost."""

    agent_run_id: UUID
    key: EntryKey
    cost: Amounts


class PayCall(Command):
    """A budget has enough for a held call."""

    agent_run_id: UUID
    key: EntryKey
    invocation_id: UUID
    allowance_id: UUID


class RefuseCall(Command):
    """A budget has too little for a held call, and nobody gives more: the agent run ends."""

    agent_run_id: UUID
    key: EntryKey
    invocation_id: UUID
    error: Failure


class DeliverMail(Command):
    agent_run_id: UUID
    run_id: UUID
    message_id: UUID
    sender: str
    sent_at: datetime
    by_sender: bool = False
    """The sender delivers the message itself, and learns of a refusal by an error. Else a refusal is an event."""


class ReceiveMail(Command):
    agent_run_id: UUID
    attempt: int
    key: EntryKey
    message_id: UUID | None


class CompleteAgentRun(Command):
    agent_run_id: UUID
    attempt: int
    result: Json = None
    unused_keys: tuple[ShortText, ...] = Field(default=(), max_length=1000)


class FailAgentRun(Command):
    agent_run_id: UUID
    attempt: int
    error: Failure


class ResumeAgentRun(Command):
    agent_run_id: UUID
    dispatch: int


class TimeOutAgentRun(Command):
    agent_run_id: UUID
    pause: int = 0
    """The newest pause before the time began. 0: there was none."""
    number: int = 0
    """Of the retry of the run that the time was set for."""


class PauseAgentRun(Command):
    """Takes the agent run away from its worker, and keeps it from workers, until it is unpaused."""

    agent_run_id: UUID
    number: int
    """The pause of the run."""
    dispatch: int | None = None
    """Only this dispatch is taken back. None: whichever is the newest."""


class DispatchAgentRun(Command):
    """A person wants another worker to be asked: at once, also where a retry has a delay, and where a worker has it."""

    agent_run_id: UUID
    by: str
    reason: str
    on_behalf_of: str | None = None


class ReportProgress(Command):
    """The agent says how far it is."""

    agent_run_id: UUID
    attempt: int
    done: float = Field(ge=0, le=MOST_PROGRESS)
    total: float | None = Field(default=None, gt=0, le=MOST_PROGRESS)
    message: ShortText | None = None


class ChangeAgentRunPriority(Command):
    """The priority of the run was changed."""

    agent_run_id: UUID
    number: int
    """Of the change of the run."""
    priority: Priority


class UnpauseAgentRun(Command):
    agent_run_id: UUID
    number: int


class CancelAgentRun(Command):
    agent_run_id: UUID
    reason: ShortText | None = None


AgentRunCommand = (
    RequestAgentRun | ReopenAgentRun | TakeOverJournal | ClaimAgentRun | RecordStep | StartCall | FinishCall | SettleCalls
    | DeliverMail | ReceiveMail | CompleteAgentRun | GrantPortion | ReleasePortion | SettleCancelled | FailAgentRun | LapseClaim
    | ResumeAgentRun
    | TimeOutAgentRun | CancelAgentRun | PauseAgentRun | UnpauseAgentRun | DispatchAgentRun | StartWait | FinishWait
    | SuspendAgentRun | WakeAgentRun | PayCall | RefuseCall | ReportProgress | ChangeAgentRunPriority
)  # fmt: skip
