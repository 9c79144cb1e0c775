"""State of an agent run: status, claim, journal and mailbox, and how each event changes them."""

from dataclasses import dataclass, field
from typing import Literal, assert_never
from uuid import UUID

from immutables import Map

from domain.agent_runs.events import (
    AgentRunCancelled,
    AgentRunClaimed,
    AgentRunCompleted,
    AgentRunEvent,
    AgentRunFailed,
    AgentRunRequested,
    AgentRunResumed,
    AgentRunRetryScheduled,
    CallFinished,
    CallStarted,
    MailDelivered,
    MailReceived,
    MailRefused,
    StepRecorded,
)
from domain.agent_runs.journal import Entry
from domain.agent_runs.mail import Mail
from domain.kernel import replace
from domain.maps import PersistentMap

Status = Literal["absent", "requested", "running", "waiting", "completed", "failed", "cancelled"]
"""`waiting`: between a failed attempt and the next."""

TERMINAL: frozenset[str] = frozenset({"completed", "failed", "cancelled"})


@dataclass(frozen=True)
class AgentRun:
    status: Status = "absent"
    version: int = 0
    requested: AgentRunRequested | None = None
    attempt: int = 0
    worker_id: str | None = None
    session_id: UUID | None = None
    """The session that made the newest claim."""
    dispatch: int = 0
    failures: int = 0
    lost_claims: int = 0
    """Claims since the last progress."""
    journal: PersistentMap[str, Entry] = field(default_factory=Map)
    mailbox: PersistentMap[UUID, Mail] = field(default_factory=Map)
    changed: PersistentMap[int, str] = field(default_factory=Map)
    """Version of the stream → the key whose entry is as this version left it."""
    unreceived: PersistentMap[int, UUID] = field(default_factory=Map)
    """Version of the stream → the message that this version delivered, until it is received."""
    pending: PersistentMap[int, UUID] = field(default_factory=Map)
    """Version of the stream → the invocation of the call that this version started, until the call finishes."""

    @property
    def pending_calls(self) -> tuple[UUID, ...]:
        """Invocations of the calls under way, in the order in which they were started."""
        return tuple(invocation_id for _, invocation_id in sorted(self.pending.items()))


def evolve(run: AgentRun, event: AgentRunEvent) -> AgentRun:
    """The cases stand in the order of how often they come: each one that does not match costs time in every fold."""
    version = run.version + 1
    match event:
        case StepRecorded():
            return _written(run, event.key, Entry(event.kind, "ok", event.result, None, version))
        case CallStarted():
            return _written(run, event.key, Entry("call", "pending", None, event.invocation_id, version))
        case CallFinished():
            status: Literal["ok", "error"] = "ok" if event.succeeded else "error"
            return _written(run, event.key, Entry("call", status, None, event.invocation_id, version))
        case AgentRunRequested():
            return replace(run, version=version, status="requested", requested=event, dispatch=1)
        case AgentRunClaimed():
            lost = 0 if run.pending else run.lost_claims + 1  # one that waits for a tool is not what kills its worker
            run = replace(run, attempt=event.attempt, worker_id=event.worker_id, session_id=event.session_id)
            return replace(run, version=version, status="running", lost_claims=lost)
        case AgentRunCompleted():
            return replace(run, version=version, status="completed")
        case MailDelivered():
            mailbox = run.mailbox.set(event.message_id, Mail(event.sender, event.sent_at, version))
            return replace(run, version=version, mailbox=mailbox, unreceived=run.unreceived.set(version, event.message_id))
        case MailReceived():
            return _received(run, event, version)
        case MailRefused():
            return replace(run, version=version)
        case AgentRunRetryScheduled():
            return replace(run, version=version, status="waiting", failures=run.failures + 1, lost_claims=0)
        case AgentRunResumed():
            lost = run.lost_claims if event.reason in (None, "lost") else max(0, run.lost_claims - 1)  # no worker vanished
            return replace(run, version=version, status="requested", dispatch=event.dispatch, lost_claims=lost)
        case AgentRunFailed():
            return replace(run, version=version, status="failed")
        case AgentRunCancelled():
            return replace(run, version=version, status="cancelled")
        case _:
            assert_never(event)


def _written(run: AgentRun, key: str, entry: Entry) -> AgentRun:
    """The agent run after the version that `entry` names has written the entry."""
    before, changed, pending = run.journal.get(key), run.changed, run.pending
    if before is not None:
        changed = changed.delete(before.changed_in)
        if before.status == "pending":
            pending = pending.delete(before.changed_in)
    version, journal = entry.changed_in, run.journal.set(key, entry)
    if entry.status == "pending" and entry.invocation_id is not None:
        pending = pending.set(version, entry.invocation_id)
    return replace(run, version=version, journal=journal, changed=changed.set(version, key), pending=pending, lost_claims=0)


def _received(run: AgentRun, event: MailReceived, version: int) -> AgentRun:
    result = None
    if event.message_id is not None:
        result, mail = str(event.message_id), run.mailbox[event.message_id]
        mailbox = run.mailbox.set(event.message_id, replace(mail, received_as=event.key))
        run = replace(run, mailbox=mailbox, unreceived=run.unreceived.delete(mail.delivered_in))
    return _written(run, event.key, Entry("receive", "ok", result, None, version))
