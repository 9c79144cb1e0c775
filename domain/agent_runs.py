"""Agent runs: one execution of one agent in a run.

Claims fence workers; the journal holds what is finished, so that nothing is repeated.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, assert_never
from uuid import UUID

from pydantic import Field

from domain.errors import InvalidState, NotFound, RepeatedDifferently, StaleAttempt, WorkOver
from domain.failures import MAX_LOST_CLAIMS, RETRYABLE, Failure, Retry, backoff_s
from domain.kernel import Command, Decider, Event, Json, Name, ShortText, derive_id, replace, same_json

Status = Literal["absent", "requested", "running", "waiting", "completed", "failed", "cancelled"]
"""`waiting`: between a failed attempt and the next."""

EntryKind = Literal["step", "send", "receive", "state_get", "state_set", "call"]
EntryKey = ShortText

TERMINAL: frozenset[str] = frozenset({"completed", "failed", "cancelled"})


# --- facts ------------------------------------------------------------------------------------------------------------


class AgentRunRequested(Event):
    TOPIC = "agent_run.requested"
    run_id: UUID
    step: str
    agent: str
    agent_version: str | None
    timeout_s: float | None = None
    retry: Retry = Retry()


class AgentRunClaimed(Event):
    TOPIC = "agent_run.claimed"
    attempt: int
    """The fencing token: commands of an older one are refused."""
    worker_id: str
    dispatch: int


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
    TOPIC = "agent_run.resumed"
    run_id: UUID
    agent: str
    dispatch: int


class AgentRunCompleted(Event):
    TOPIC = "agent_run.completed"
    run_id: UUID
    step: str
    attempt: int
    result: Json = None
    unused_keys: tuple[str, ...] = ()
    """Journal keys that the last execution did not come across: the agent's code was changed in between."""


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
    | MailReceived | AgentRunRetryScheduled | AgentRunResumed | AgentRunCompleted | AgentRunFailed | AgentRunCancelled
)  # fmt: skip


# --- state ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """A journal entry. A call is `pending` until its invocation has an outcome."""

    kind: EntryKind
    status: Literal["pending", "ok", "error"]
    result: Json = None
    invocation_id: UUID | None = None
    changed_in: int = 0
    """The version of the stream that wrote it last."""


@dataclass(frozen=True)
class Mail:
    sender: str
    sent_at: datetime
    delivered_in: int
    received_as: str | None = None


@dataclass(frozen=True)
class AgentRun:
    status: Status = "absent"
    version: int = 0
    requested: AgentRunRequested | None = None
    attempt: int = 0
    worker_id: str | None = None
    dispatch: int = 0
    failures: int = 0
    lost_claims: int = 0
    """Claims since the last progress."""
    journal: Mapping[str, Entry] = field(default_factory=dict)
    mailbox: Mapping[UUID, Mail] = field(default_factory=dict)

    @property
    def pending_calls(self) -> tuple[UUID, ...]:
        return tuple(e.invocation_id for e in self.journal.values() if e.status == "pending" and e.invocation_id)


def evolve(run: AgentRun, event: AgentRunEvent) -> AgentRun:
    """The cases stand in the order of how often they come: each one that does not match costs time in every fold."""
    version = run.version + 1
    match event:
        case StepRecorded():
            entry = Entry(event.kind, "ok", event.result, None, version)
            return replace(run, version=version, journal={**run.journal, event.key: entry}, lost_claims=0)
        case CallStarted():
            entry = Entry("call", "pending", None, event.invocation_id, version)
            return replace(run, version=version, journal={**run.journal, event.key: entry}, lost_claims=0)
        case CallFinished():
            entry = Entry("call", "ok" if event.succeeded else "error", None, event.invocation_id, version)
            return replace(run, version=version, journal={**run.journal, event.key: entry}, lost_claims=0)
        case AgentRunRequested():
            return replace(run, version=version, status="requested", requested=event, dispatch=1)
        case AgentRunClaimed():
            lost = 0 if run.pending_calls else run.lost_claims + 1  # one that waits for a tool is not what kills its worker
            return replace(
                run, version=version, status="running", attempt=event.attempt, worker_id=event.worker_id, lost_claims=lost
            )
        case AgentRunCompleted():
            return replace(run, version=version, status="completed")
        case MailDelivered():
            mail = Mail(event.sender, event.sent_at, version)
            return replace(run, version=version, mailbox={**run.mailbox, event.message_id: mail})
        case MailReceived():
            return _received(run, event, version)
        case MailRefused():
            return replace(run, version=version)
        case AgentRunRetryScheduled():
            return replace(run, version=version, status="waiting", failures=run.failures + 1, lost_claims=0)
        case AgentRunResumed():
            return replace(run, version=version, status="requested", dispatch=event.dispatch)
        case AgentRunFailed():
            return replace(run, version=version, status="failed")
        case AgentRunCancelled():
            return replace(run, version=version, status="cancelled")
        case _:
            assert_never(event)


def _received(run: AgentRun, event: MailReceived, version: int) -> AgentRun:
    mailbox, result = run.mailbox, None
    if event.message_id is not None:
        result = str(event.message_id)
        mailbox = {**mailbox, event.message_id: replace(mailbox[event.message_id], received_as=event.key)}
    journal = {**run.journal, event.key: Entry("receive", "ok", result, None, version)}
    return replace(run, version=version, journal=journal, mailbox=mailbox, lost_claims=0)


# --- wishes -----------------------------------------------------------------------------------------------------------


class RequestAgentRun(Command):
    agent_run_id: UUID
    run_id: UUID
    step: Name
    agent: Name
    agent_version: ShortText | None = None
    timeout_s: float | None = None
    retry: Retry = Retry()


class ClaimAgentRun(Command):
    agent_run_id: UUID
    worker_id: ShortText
    dispatch: int = Field(ge=1)


class RecordStep(Command):
    agent_run_id: UUID
    attempt: int
    key: EntryKey
    kind: EntryKind = "step"
    result: Json = None


class StartCall(Command):
    agent_run_id: UUID
    attempt: int
    key: EntryKey
    tool: Name


class FinishCall(Command):
    agent_run_id: UUID
    key: EntryKey
    invocation_id: UUID
    succeeded: bool


class DeliverMail(Command):
    agent_run_id: UUID
    run_id: UUID
    message_id: UUID
    sender: str
    sent_at: datetime


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


class CancelAgentRun(Command):
    agent_run_id: UUID
    reason: ShortText | None = None


AgentRunCommand = (
    RequestAgentRun | ClaimAgentRun | RecordStep | StartCall | FinishCall | DeliverMail | ReceiveMail | CompleteAgentRun
    | FailAgentRun | ResumeAgentRun | TimeOutAgentRun | CancelAgentRun
)  # fmt: skip


def invocation_id_of(agent_run_id: UUID, key: str) -> UUID:
    return derive_id(agent_run_id, f"call:{key}")


def message_id_of(agent_run_id: UUID, key: str) -> UUID:
    return derive_id(agent_run_id, f"message:{key}")


# --- rules ------------------------------------------------------------------------------------------------------------


def decide(run: AgentRun, command: AgentRunCommand) -> list[Event]:
    match command:
        case RecordStep() | StartCall() | ReceiveMail() | CompleteAgentRun() | FailAgentRun():
            return _decide_for_worker(run, command)
        case RequestAgentRun():
            if run.requested is not None:
                return []
            return [AgentRunRequested(**command.model_dump(exclude={"agent_run_id"}))]
        case ClaimAgentRun():
            return _claim(run, command)
        case FinishCall():
            entry = run.journal.get(command.key)
            if run.status in TERMINAL or entry is None or entry.status != "pending":
                return []
            return [CallFinished(key=command.key, invocation_id=command.invocation_id, succeeded=command.succeeded)]
        case DeliverMail():
            if command.message_id in run.mailbox:
                return []
            if run.status in TERMINAL:
                return [MailRefused(message_id=command.message_id, reason=f"the recipient is {run.status}")]
            return [MailDelivered(message_id=command.message_id, sender=command.sender, sent_at=command.sent_at)]
        case ResumeAgentRun():
            if run.status != "waiting" or run.requested is None or command.dispatch != run.dispatch + 1:
                return []
            return [AgentRunResumed(run_id=run.requested.run_id, agent=run.requested.agent, dispatch=command.dispatch)]
        case TimeOutAgentRun():
            if run.requested is None or run.status in TERMINAL:
                return []
            why = f"the step did not finish within {run.requested.timeout_s:g} s"
            return [_failed(run, Failure(type="StepTimeout", message=why, kind="timeout"))]
        case CancelAgentRun():
            if run.requested is None:
                raise NotFound(f"there is no agent run {command.agent_run_id}")
            return [] if run.status in TERMINAL else [
                AgentRunCancelled(reason=command.reason, abandoned=run.pending_calls)
            ]  # fmt: skip
        case _:
            assert_never(command)


def _claim(run: AgentRun, command: ClaimAgentRun) -> list[Event]:
    if run.requested is None:
        raise NotFound(f"there is no agent run {command.agent_run_id}")
    if run.status in TERMINAL:
        raise WorkOver(f"the agent run is {run.status}")
    if run.status == "waiting" or command.dispatch != run.dispatch:
        raise WorkOver(f"dispatch {command.dispatch} is over; {run.dispatch} is the newest")
    if run.lost_claims >= MAX_LOST_CLAIMS:
        why = f"{MAX_LOST_CLAIMS} workers in a row vanished while they ran this agent, without any progress"
        return [_failed(run, Failure(type="WorkersLost", message=why, kind="lost"))]
    return [AgentRunClaimed(attempt=run.attempt + 1, worker_id=command.worker_id, dispatch=command.dispatch)]


def _decide_for_worker(
    run: AgentRun, command: RecordStep | StartCall | ReceiveMail | CompleteAgentRun | FailAgentRun
) -> list[Event]:
    if run.requested is None:
        raise NotFound(f"there is no agent run {command.agent_run_id}")
    if run.status in TERMINAL:
        raise WorkOver(f"the agent run is {run.status}")
    if run.status != "running" or command.attempt != run.attempt:
        raise StaleAttempt(f"attempt {command.attempt} lost its lease; {run.attempt} is the newest")
    match command:
        case RecordStep():
            if (entry := _known(run, command.key, command.kind)) is not None:
                return _again(entry, command.key, command.result)
            return [StepRecorded(**command.model_dump(exclude={"agent_run_id", "result"}), result=command.result)]
        case StartCall():
            if _known(run, command.key, "call") is not None:
                return []  # whether the call is the same is for the invocation to say
            invocation_id = invocation_id_of(command.agent_run_id, command.key)
            return [CallStarted(attempt=command.attempt, key=command.key, tool=command.tool, invocation_id=invocation_id)]
        case ReceiveMail():
            if (entry := _known(run, command.key, "receive")) is not None:
                return _again(entry, command.key, None if command.message_id is None else str(command.message_id))
            if command.message_id is not None:
                mail = run.mailbox.get(command.message_id)
                if mail is None or mail.received_as is not None:
                    raise InvalidState(f"message {command.message_id} is not in the mailbox", pointer="/message_id")
            return [MailReceived(attempt=command.attempt, key=command.key, message_id=command.message_id)]
        case CompleteAgentRun():
            return [
                AgentRunCompleted(
                    run_id=run.requested.run_id,
                    step=run.requested.step,
                    attempt=command.attempt,
                    result=command.result,
                    unused_keys=command.unused_keys,
                )
            ]
        case FailAgentRun():
            return [_retry_or_fail(run, command)]
        case _:
            assert_never(command)


def _known(run: AgentRun, key: str, kind: EntryKind) -> Entry | None:
    entry = run.journal.get(key)
    if entry is not None and entry.kind != kind:
        raise InvalidState(f"key '{key}' is in the journal as a {entry.kind}, not a {kind}", pointer="/key")
    return entry


def _again(entry: Entry, key: str, result: Json) -> list[Event]:
    """Nothing, for a key that is recorded again with the same result."""
    if not same_json(entry.result, result):
        raise RepeatedDifferently(f"key '{key}' was recorded before, with another result", pointer="/key")
    return []


def _retry_or_fail(run: AgentRun, command: FailAgentRun) -> Event:
    assert run.requested is not None
    retry = run.requested.retry
    if command.error.kind in RETRYABLE and run.failures + 1 < retry.max_attempts:
        delay = backoff_s(retry, command.agent_run_id, run.failures + 1, command.error)
        return AgentRunRetryScheduled(attempt=command.attempt, error=command.error, delay_s=delay, dispatch=run.dispatch + 1)
    return _failed(run, command.error)


def _failed(run: AgentRun, error: Failure) -> AgentRunFailed:
    assert run.requested is not None
    requested = run.requested
    return AgentRunFailed(run_id=requested.run_id, step=requested.step, error=error, abandoned=run.pending_calls)


DECIDER: Decider[AgentRun] = Decider("agent_runs", AgentRun, decide, evolve)
