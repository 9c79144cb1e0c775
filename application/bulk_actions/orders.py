"""What a bulk action says to one run: the command that a person gives to one run, with the same entry of the audit trail."""

from collections.abc import Mapping
from uuid import UUID

from application.engine.commands.request import CommandRequest
from application.runs.signals import signal_of
from domain.access import Action
from domain.audit import RecordAction
from domain.bulk_actions import BulkAction, BulkOrder, BulkVerb, command_id_of
from domain.kernel import Command, derive_id
from domain.runs import CancelRun, ChangePriority, PauseRun, ResumeRun, RetryRun, Run

RIGHTS: Mapping[BulkVerb, Action] = {
    "pause": Action.RUNS_STEER,
    "resume": Action.RUNS_STEER,
    "cancel": Action.RUNS_CANCEL,
    "retry": Action.RUNS_RETRY,
    "signal": Action.RUNS_SIGNAL,
    "priority": Action.RUNS_STEER,
}
"""What the command of one run needs, the bulk action needs."""
STATUSES: Mapping[BulkVerb, tuple[str, ...]] = {
    "pause": ("queued", "running"),
    "resume": ("queued", "paused"),
    "cancel": ("queued", "running", "paused"),
    "retry": ("failed",),
    "signal": ("queued", "running", "paused"),
    "priority": ("queued", "running", "paused"),
}
"""The runs that are meant where the filter names no status: those on which the command can have an effect. They are looked for in
this order: a run that begins meanwhile is found twice, and not missed. A queued run may be paused, too."""
OPERATIONS: Mapping[BulkVerb, str | None] = {
    "pause": "pause", "resume": "resume", "cancel": None, "retry": None, "signal": None, "priority": "priority",
}  # fmt: skip
"""What the audit trail says of a command whose action covers several."""


def command_of(order: BulkOrder, run_id: UUID, command_id: UUID, by: str, on_behalf_of: str | None) -> Command:
    """Raises InvalidCommand: the payload of the signal is too large."""
    match order.verb:
        case "pause":
            return PauseRun(run_id=run_id, reason=order.reason, by=by, on_behalf_of=on_behalf_of)
        case "resume":
            return ResumeRun(run_id=run_id, reason=order.reason, by=by, on_behalf_of=on_behalf_of)
        case "cancel":
            return CancelRun(run_id=run_id, reason=order.reason, compensate=order.compensate)
        case "retry":
            return RetryRun(run_id=run_id, reason=order.reason, fresh=order.fresh)
        case "signal":
            assert order.signal is not None
            signal = order.signal
            return signal_of(run_id, signal.name, signal.payload, signal.step, None, command_id)
        case "priority":
            assert order.priority is not None
            return ChangePriority(run_id=run_id, priority=order.priority, reason=order.reason, by=by, on_behalf_of=on_behalf_of)


def is_so(order: BulkOrder, run: Run) -> bool:
    """Whether a run is already as the command would make it, whoever made it so."""
    paused = run.pause is not None or run.pause_above is not None  # a run that waits for its key is not
    match order.verb:
        case "pause":
            return run.status == "running" and paused
        case "resume":
            return run.status == "running" and not paused
        case "cancel":
            return run.status == "cancelled"
        case "priority":
            return run.status == "running" and run.priority == order.priority
        case "retry" | "signal":
            return False


def request_of(action: BulkAction, tenant_id: UUID, bulk_action_id: UUID, run_id: UUID) -> CommandRequest:
    """The request of the command of one run: of the person who began the bulk action, which is its cause."""
    assert action.order is not None
    command_id, verb = command_id_of(bulk_action_id, run_id), action.order.verb
    entry = RecordAction(
        entry_id=derive_id(command_id, "audit"), tenant_id=tenant_id, action=RIGHTS[verb], operation=OPERATIONS[verb],
        actor=action.by, on_behalf_of=action.on_behalf_of, target_kind="run", target_id=str(run_id), reason=action.order.reason,
        result="done",
    )  # fmt: skip
    return CommandRequest(
        tenant_id, action.by, command_id, run_id, f"{bulk_action_id}:1", checked=True, on_behalf_of=action.on_behalf_of, along=entry
    )
