"""State of an agent run: status, claim, journal and mailbox, and how each event changes them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, assert_never, cast, get_args
from uuid import UUID

from immutables import Map

from domain.agent_runs.events import (
    AgentRunCancelled,
    AgentRunClaimed,
    AgentRunCompleted,
    AgentRunEvent,
    AgentRunFailed,
    AgentRunPaused,
    AgentRunPriorityChanged,
    AgentRunProgressed,
    AgentRunReopened,
    AgentRunRequested,
    AgentRunResumed,
    AgentRunRetryScheduled,
    AgentRunSuspended,
    AgentRunUnpaused,
    CallCovered,
    CallFinished,
    CallPaid,
    CallStarted,
    CallUnpaid,
    EntryTakenOver,
    MailDelivered,
    MailReceived,
    MailRefused,
    MailTakenOver,
    OpenReceive,
    OpenWait,
    PortionGranted,
    PortionSettled,
    StepRecorded,
    WaitFinished,
    WaitKind,
    WaitStarted,
)
from domain.agent_runs.journal import Entry, invocation_id_of
from domain.agent_runs.mail import Mail
from domain.agent_runs.purse import Purse, Reservation, UnpaidCall, number_of, pay, with_grant, with_settlement
from domain.amounts import NOTHING, AllowanceRef, Amounts
from domain.kernel import replace
from domain.maps import PersistentMap

Status = Literal["absent", "requested", "running", "waiting", "suspended", "completed", "failed", "cancelled"]
"""`waiting`: between a failed attempt and the next. `suspended`: without a worker, until something comes for which the
agent waits."""

WAITS: frozenset[str] = frozenset(get_args(WaitKind))
"""Kinds of entries that are open until something comes from outside."""

_Written = StepRecorded | CallStarted | CallFinished | WaitStarted | EntryTakenOver

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
    reopened: int = 0
    """The number of the retry of the run with which the agent run went on after its end. 0: it did not."""
    pending: PersistentMap[int, UUID] = field(default_factory=Map)
    """Version of the stream → the invocation of the call that this version started, until the call finishes."""
    paused: int = 0
    """The number of the run's pause that keeps the agent run from workers. 0: none does."""
    paused_dispatch: int = 0
    """The dispatch that the pause has taken back last."""
    unpaused: int = 0
    """The number of the newest pause that is over, since the agent run went on after its end. 0: none was."""
    past_pause: int = 0
    """The number of the newest pause that the agent run had heard of before."""
    priorities: int = 0
    """The number of the newest change of the run's priority that has reached the agent run."""
    waits: PersistentMap[str, WaitKind] = field(default_factory=Map)
    """Key → the kind of the wait that is open under it."""
    receives: tuple[OpenReceive, ...] = ()
    """The `receive` calls that were open when the agent run was suspended last."""
    news: int = 0
    """The version of the stream that brought something last which the worker did not do itself."""
    purses: PersistentMap[int, Purse] = field(default_factory=Map)
    """What it holds of its budgets. Older ones only while calls of theirs are under way."""
    newest_purse: int = 0
    reservations: PersistentMap[str, Reservation] = field(default_factory=Map)
    """Key of a call under way → what it has set aside."""
    unpaid: PersistentMap[str, UnpaidCall] = field(default_factory=Map)
    """Key of a call that is held → what its budgets are to have enough of."""

    progress: AgentRunProgressed | None = None
    """What the agent has said last of how far it is."""

    @property
    def purse(self) -> Purse | None:
        """The portion that calls are paid from."""
        return self.purses.get(self.newest_purse)

    def purse_for(self, allowances: tuple[AllowanceRef, ...]) -> int:
        """The number of the purse into which a portion of these allowances goes."""
        return number_of(self.purses, self.newest_purse, allowances)

    @property
    def shared_roots(self) -> tuple[UUID, ...]:
        """The roots of the allowances, other than its run's, that hear of its purses. Those of the newest purse come first."""
        run_id = None if self.requested is None else self.requested.run_id
        refs = [ref for _, purse in sorted(self.purses.items(), reverse=True) for ref in purse.allowances]
        return tuple(dict.fromkeys(ref.root_id for ref in refs if ref.root_id != run_id))

    def call_id(self, agent_run_id: UUID, key: str) -> UUID:
        """The id of the call under a key, which may be made before the newest retry of the run."""
        entry = self.journal.get(key)
        if entry is not None and entry.invocation_id is not None:
            return entry.invocation_id
        return invocation_id_of(agent_run_id, key, self.reopened)

    @property
    def pending_keys(self) -> dict[str, UUID]:
        """Calls under way: their keys, and their invocations."""
        return {self.changed[version]: invocation_id for version, invocation_id in sorted(self.pending.items())}

    @property
    def pending_calls(self) -> tuple[UUID, ...]:
        """Invocations of the calls under way, in the order in which they were started."""
        return tuple(invocation_id for _, invocation_id in sorted(self.pending.items()))

    @property
    def open_waits(self) -> tuple[OpenWait, ...]:
        return tuple(OpenWait(key=key, kind=kind, number=self.reopened) for key, kind in sorted(self.waits.items()))


def evolve(run: AgentRun, event: AgentRunEvent) -> AgentRun:
    """The cases stand in the order of how often they come: each one that does not match costs time in every fold."""
    version = run.version + 1
    match event:
        case StepRecorded() | CallStarted() | CallFinished() | WaitStarted() | EntryTakenOver():
            written = _written(run, ((event.key, _entry_of(event, version)),))
            return written if _is_free(event) else _counted(written, event)
        case AgentRunRequested():
            return replace(run, version=version, status="requested", requested=event, dispatch=1)
        case AgentRunClaimed():
            lost = 0 if run.pending or run.waits else run.lost_claims + 1  # one that waits is not what kills its worker
            run = replace(run, attempt=event.attempt, worker_id=event.worker_id, session_id=event.session_id)
            return replace(run, version=version, status="running", lost_claims=lost)
        case AgentRunCompleted():
            return replace(run, version=version, status="completed")
        case MailDelivered() | MailTakenOver():
            return _delivered(run, event, version)
        case WaitFinished():
            return _written(run, ((event.key, _finished(run.journal[event.key], event, version)),))
        case MailReceived():
            return _received(run, event, version)
        case MailRefused() | AgentRunProgressed():
            return replace(run, version=version, progress=event if isinstance(event, AgentRunProgressed) else run.progress)
        case AgentRunRetryScheduled():
            return replace(run, version=version, status="waiting", failures=run.failures + 1, lost_claims=0)
        case AgentRunResumed():
            vanished = event.lapsed is None or event.reason == "lost"  # else the worker of the newest claim has not
            lost = run.lost_claims if vanished else max(0, run.lost_claims - 1)
            return replace(run, version=version, status="requested", dispatch=event.dispatch, lost_claims=lost)
        case AgentRunPaused() | AgentRunPriorityChanged():
            return _steered(replace(run, version=version), event)
        case AgentRunUnpaused():
            return replace(run, version=version, paused=0, unpaused=event.number)
        case AgentRunReopened() | PortionGranted() | PortionSettled() | CallCovered() | CallPaid() | CallUnpaid():
            return _reopened(run, event, version) if isinstance(event, AgentRunReopened) else _portioned(run, event, version)
        case AgentRunSuspended():
            return replace(run, version=version, status="suspended", receives=event.receives, lost_claims=0)
        case AgentRunFailed() | AgentRunCancelled():
            return replace(run, version=version, status="failed" if isinstance(event, AgentRunFailed) else "cancelled")
        case _:
            assert_never(event)


def _delivered(run: AgentRun, event: MailDelivered | MailTakenOver, version: int) -> AgentRun:
    received_as = event.received_as if isinstance(event, MailTakenOver) else None
    mailbox = run.mailbox.set(event.message_id, Mail(event.sender, event.sent_at, version, received_as))
    if received_as is not None:
        return replace(run, version=version, mailbox=mailbox)
    unreceived = run.unreceived.set(version, event.message_id)
    return replace(run, version=version, mailbox=mailbox, unreceived=unreceived, news=version)


def _taken_over(event: EntryTakenOver, version: int) -> Entry:
    return Entry(
        event.kind, "ok" if event.succeeded else "error", event.result, event.invocation_id, version, event.effect,
        fingerprint=event.fingerprint, error=event.error, held_by=event.held_by,
    )  # fmt: skip


def _steered(run: AgentRun, event: AgentRunPaused | AgentRunPriorityChanged) -> AgentRun:
    if isinstance(event, AgentRunPriorityChanged):
        assert run.requested is not None
        requested = run.requested.model_copy(update={"priority": event.priority})
        return replace(run, requested=requested, priorities=event.number)
    run = replace(run, paused=event.number, paused_dispatch=run.dispatch)
    if event.attempt is None:
        return run
    return replace(run, status="requested", lost_claims=max(0, run.lost_claims - 1))  # no worker vanished


def fold(run: AgentRun, events: Iterable[AgentRunEvent]) -> AgentRun:
    """As `evolve` for each of the events. Entries of the journal that follow one another are written together."""
    entries: list[tuple[str, Entry]] = []
    for version, event in enumerate(events, run.version + 1):
        if isinstance(event, (StepRecorded, CallStarted, CallFinished, WaitStarted, EntryTakenOver)) and _is_free(event):
            entries.append((event.key, _entry_of(event, version)))
        else:
            run, entries = evolve(_written(run, entries), event), []
    return _written(run, entries)


def _portioned(
    run: AgentRun, event: PortionGranted | PortionSettled | CallCovered | CallPaid | CallUnpaid, version: int
) -> AgentRun:
    if isinstance(event, CallCovered | CallPaid | CallUnpaid):
        return _waited(replace(run, version=version), event)
    if isinstance(event, PortionSettled):
        reservations, late = run.reservations, NOTHING
        if event.key is not None and event.key in reservations:
            late, reservations = reservations[event.key].amounts, reservations.delete(event.key)
        return replace(run, version=version, purses=_settled(run, event, late), reservations=reservations)
    purses = run.purses.set(event.purse, with_grant(run.purses.get(event.purse), event))
    return replace(run, version=version, purses=purses, newest_purse=event.purse)


def _settled(run: AgentRun, event: PortionSettled, late: Amounts) -> PersistentMap[int, Purse]:
    """The purses after one has told its allowances of itself. An older one is gone with its last call. `late`: what a call had set
    aside that has ended after its agent run."""
    before = run.purses.get(event.purse)
    if before is None:
        return run.purses
    purse = with_settlement(replace(before, reserved=before.reserved - late), event)
    is_over = event.purse != run.newest_purse and not purse.reserved
    return run.purses.delete(event.purse) if is_over else run.purses.set(event.purse, purse)


def _is_free(event: _Written) -> bool:
    """Whether no budget counts it."""
    if isinstance(event, CallStarted):
        return event.reserved is None and event.unpaid is None
    return not isinstance(event, CallFinished) or event.cost is None


def _counted(run: AgentRun, event: _Written) -> AgentRun:
    """The agent run after a call that a budget counts has begun, or ended."""
    if isinstance(event, CallStarted) and event.reserved is not None and event.purse is not None:
        purse = run.purses.get(event.purse)
        if purse is None:
            return run
        purse = replace(purse, reserved=purse.reserved + event.reserved)
        reservations = run.reservations.set(event.key, Reservation(event.purse, event.reserved))
        return replace(run, purses=run.purses.set(event.purse, purse), reservations=reservations)
    if isinstance(event, CallStarted) and event.unpaid is not None:
        asked = event.unpaid
        missing = tuple(ref.allowance_id for ref in asked.allowances)
        waits = UnpaidCall(event.invocation_id, asked.allowances, missing, asked.amounts, asked.hold)
        return replace(run, unpaid=run.unpaid.set(event.key, waits))
    if isinstance(event, CallFinished) and event.cost is not None and event.key in run.reservations:
        number, amounts = run.reservations[event.key]
        purses = run.purses.set(number, pay(run.purses[number], amounts, event.cost))
        return replace(run, purses=purses, reservations=run.reservations.delete(event.key))
    return run


def _waited(run: AgentRun, event: CallCovered | CallPaid | CallUnpaid) -> AgentRun:
    """A call that is held: a budget has enough for it, or all have, or it has ended."""
    waits = run.unpaid.get(event.key)
    if waits is None:
        return run
    if isinstance(event, CallCovered):
        missing = tuple(each for each in waits.missing if each != event.allowance_id)
        return replace(run, unpaid=run.unpaid.set(event.key, waits._replace(missing=missing)))
    run = replace(run, unpaid=run.unpaid.delete(event.key))
    if isinstance(event, CallUnpaid):
        return run
    purse = run.purses[event.purse]
    return replace(
        run, purses=run.purses.set(event.purse, replace(purse, reserved=purse.reserved + event.reserved)),
        reservations=run.reservations.set(event.key, Reservation(event.purse, event.reserved)),
    )  # fmt: skip


def _entry_of(event: _Written, version: int) -> Entry:
    if isinstance(event, StepRecorded):
        return Entry(event.kind, "ok", event.result, None, version, fingerprint=event.fingerprint)
    if isinstance(event, CallStarted):
        return Entry("call", "pending", None, event.invocation_id, version, fingerprint=event.fingerprint)
    if isinstance(event, WaitStarted):
        return Entry(event.kind, "pending", None, None, version, fingerprint=event.fingerprint)
    if isinstance(event, EntryTakenOver):
        return _taken_over(event, version)
    return Entry("call", "ok" if event.succeeded else "error", None, event.invocation_id, version, event.effect)


def _finished(entry: Entry, event: WaitFinished, version: int) -> Entry:
    status: Literal["ok", "error"] = "ok" if event.error is None else "error"
    return Entry(event.kind, status, event.result, None, version, fingerprint=entry.fingerprint, error=event.error)


def _written(run: AgentRun, entries: Sequence[tuple[str, Entry]]) -> AgentRun:
    """The agent run with further entries, in order. Each names the version that has written it.

    The new maps are changed in place until all entries are written, because nobody else has them yet.
    """
    if not entries:
        return run
    journal, changed, pending = run.journal.mutate(), run.changed.mutate(), run.pending.mutate()
    waits, news = run.waits, run.news
    calls_moved = False  # until it is True, the map is the same object, so a snapshot of what changed leaves the field out
    for key, entry in entries:
        if (before := journal.get(key)) is not None:
            del changed[before.changed_in]
            if before.status == "pending":
                news = entry.changed_in
                if before.invocation_id is not None:
                    calls_moved = True
                    del pending[before.changed_in]
                else:
                    waits = waits.delete(key)
                if entry.fingerprint is None:
                    entry = entry._replace(fingerprint=before.fingerprint)
        journal[key], changed[entry.changed_in] = entry, key
        if entry.status == "pending":
            if entry.invocation_id is not None:
                calls_moved = True
                pending[entry.changed_in] = entry.invocation_id
            elif entry.kind in WAITS:
                waits = waits.set(key, cast(WaitKind, entry.kind))
    return replace(
        run, version=entry.changed_in, journal=journal.finish(), changed=changed.finish(), lost_claims=0,
        pending=pending.finish() if calls_moved else run.pending, waits=waits, news=news,
    )  # fmt: skip


def _reopened(run: AgentRun, event: AgentRunReopened, version: int) -> AgentRun:
    assert run.requested is not None
    requested = run.requested.model_copy(
        update={
            "agent": event.agent, "agent_version": event.agent_version, "version_asked": event.version_asked,
            "timeout_s": event.timeout_s, "retry": event.retry, "priority": event.priority,
        }
    )  # fmt: skip
    run = replace(
        run, version=version, status="requested", requested=requested, dispatch=event.dispatch, failures=0, lost_claims=0,
        reopened=event.number, paused=0, unpaused=0, past_pause=max(run.past_pause, run.unpaused, run.paused),
        waits=Map(), receives=(), purses=Map(), reservations=Map(), unpaid=Map(),
    )  # fmt: skip
    if event.fresh:
        mailbox = Map({message_id: replace(mail, received_as=None) for message_id, mail in run.mailbox.items()})
        unreceived = Map({mail.delivered_in: message_id for message_id, mail in mailbox.items()})
        return replace(run, journal=Map(), changed=Map(), pending=Map(), mailbox=mailbox, unreceived=unreceived)
    journal, changed = run.journal.mutate(), run.changed.mutate()
    for key, entry in run.journal.items():
        is_left = entry.status == "pending" and entry.kind in WAITS  # at the end of the agent run
        if is_left or (entry.status == "error" and not entry.effect):
            del journal[key], changed[entry.changed_in]
    return replace(run, journal=journal.finish(), changed=changed.finish())


def _received(run: AgentRun, event: MailReceived, version: int) -> AgentRun:
    result = None
    if event.message_id is not None:
        result, mail = str(event.message_id), run.mailbox[event.message_id]
        mailbox = run.mailbox.set(event.message_id, replace(mail, received_as=event.key))
        run = replace(run, mailbox=mailbox, unreceived=run.unreceived.delete(mail.delivered_in))
    return _written(run, ((event.key, Entry("receive", "ok", result, None, version)),))
