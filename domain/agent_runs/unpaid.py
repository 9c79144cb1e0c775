"""Calls that are held until their budgets have enough: nothing is set aside of a purse before all of them have.

Each budget says so for itself, or that nobody gives more. The last one that has enough pays the call: then it begins.
"""

from domain.agent_runs import purse
from domain.agent_runs.commands import GrantPortion, PayCall
from domain.agent_runs.events import CallCovered, CallPaid, CallUnpaid, PortionGranted
from domain.agent_runs.state import AgentRun
from domain.kernel import Event


def pay(run: AgentRun, command: PayCall) -> list[Event]:
    """Nothing, for a call that has ended, or for a budget that has said so before."""
    waits = run.unpaid.get(command.key)
    if waits is None or waits.invocation_id != command.invocation_id or command.allowance_id not in waits.missing:
        return []
    if len(waits.missing) > 1:
        return [CallCovered(key=command.key, allowance_id=command.allowance_id)]
    grant = GrantPortion(
        agent_run_id=command.agent_run_id, attempt=run.attempt, allowances=waits.allowances, amounts=waits.amounts, exact=True
    )
    granted = purse.grant(run.purses, run.newest_purse, grant)
    last = granted[-1]
    assert isinstance(last, PortionGranted)
    paid = CallPaid(key=command.key, invocation_id=command.invocation_id, hold=waits.hold, purse=last.purse, reserved=waits.amounts)
    return [*granted, paid]


def dropped(run: AgentRun, key: str) -> list[Event]:
    """What the budgets of a held call are to know that has ended."""
    waits = run.unpaid.get(key)
    if waits is None:
        return []
    return [CallUnpaid(key=key, invocation_id=waits.invocation_id, allowances=waits.allowances, amounts=waits.amounts)]


def closing(run: AgentRun) -> list[Event]:
    return [event for key in sorted(run.unpaid) for event in dropped(run, key)]
