"""State of an agent run: status, claim, journal and mailbox, and how each event changes them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, assert_never
from uuid import UUID

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
            run = replace(run, attempt=event.attempt, worker_id=event.worker_id, session_id=event.session_id)
            return replace(run, version=version, status="running", lost_claims=lost)
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
            lost = run.lost_claims if event.reason in (None, "lost") else max(0, run.lost_claims - 1)  # no worker vanished
            return replace(run, version=version, status="requested", dispatch=event.dispatch, lost_claims=lost)
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
