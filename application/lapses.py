"""Lapses: the commands that take work away from the session that claimed it, for the sweeper and for the sessions themselves."""

from application.engine.commands.request import CommandRequest
from application.engine.ports.sessions import HeldWork, LapsedWork
from domain.agent_runs import LapseClaim
from domain.failures import LapseReason
from domain.invocations import LapseAttempt
from domain.kernel import Command, derive_id


def lapse_of(work: HeldWork, reason: LapseReason) -> Command:
    """The command that takes a piece of work away from its session."""
    if work.kind == "agent":
        return LapseClaim(agent_run_id=work.work_id, attempt=work.attempt, reason=reason)
    return LapseAttempt(invocation_id=work.work_id, attempt=work.attempt, reason=reason)


def lapse_request(work: HeldWork) -> CommandRequest:
    """The request of `lapse_of`. An attempt lapses once, whoever says so first."""
    return CommandRequest(
        tenant_id=work.tenant_id,
        actor="system",
        command_id=derive_id(work.work_id, f"lapse:{work.attempt}"),
        correlation_id=work.root_id,
        causation_id=f"session:{work.session_id}",
        checked=True,
        goes_on=True,
    )


def lapsing(lapsed: LapsedWork) -> tuple[CommandRequest, Command]:
    """What the sweeper does with the work of a session that is over."""
    return lapse_request(lapsed.work), lapse_of(lapsed.work, lapsed.reason)
