"""What an approval asks about, in words: for notices, and for the page behind a link."""

from uuid import UUID

from application.engine.commands.loop import CommandLoop
from domain import agent_runs, invocations
from domain.approval_rules import Because
from domain.approvals import Approval, ApprovalRequested
from domain.invocations import Invocation
from domain.kernel import Json


async def arguments_asked(commands: CommandLoop, tenant_id: UUID, approval: Approval, *, fresh: bool = False) -> dict[str, Json]:
    """What was asked for: the arguments of the call, or the details of a question. Raises Unavailable."""
    asked = approval.requested
    assert asked is not None
    if asked.invocation_id is None:
        return asked.details
    call: Invocation = (await commands.load(invocations.DECIDER, tenant_id, asked.invocation_id, fresh=fresh)).state
    if call.asked_arguments is not None:  # a person has changed them; they may have been none
        return dict(call.asked_arguments)
    return {} if call.requested is None else call.requested.arguments


async def arguments_now(commands: CommandLoop, tenant_id: UUID, approval: Approval) -> dict[str, Json]:
    """What is asked about now: as a person has changed it, or as it was asked for. Raises Unavailable."""
    if approval.changed is not None:
        return approval.changed
    return await arguments_asked(commands, tenant_id, approval)


async def agent_of(commands: CommandLoop, tenant_id: UUID, asked: ApprovalRequested) -> str:
    """Who asks."""
    if asked.asked_by != "agent_run":
        return f"a {asked.asked_by}"
    state: agent_runs.AgentRun = (await commands.load(agent_runs.DECIDER, tenant_id, asked.agent_run_id, fresh=False)).state
    return "an agent" if state.requested is None else state.requested.agent


def title_of(asked: ApprovalRequested) -> str:
    return asked.title or f"a call of {asked.tool}"


def reason_of(because: Because) -> str:
    """Why an approval is asked for, as one sentence."""
    by = "the tool" if because.policy is None else f"policy {because.policy} v{because.version}"
    if because.expression is None:
        return f"{by}: each call"
    return f"{by}: {because.expression}" + (f" ({because.error})" if because.error else "")
