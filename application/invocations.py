"""Tool calls: one of a tenant's, the requests of commands for it, and what a person says of an ambiguous one."""

from uuid import UUID

import structlog

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import Caller, CommandOutcome, CommandRequest
from domain import invocations
from domain.errors import NotFound
from domain.kernel import derive_id


async def load_invocation(commands: CommandLoop, tenant_id: UUID, invocation_id: UUID) -> invocations.Invocation:
    """As other processes have left it by now, unless it had its outcome already. Raises Unavailable."""
    loaded = await commands.load(invocations.DECIDER, tenant_id, invocation_id, fresh=False)
    state: invocations.Invocation = loaded.state
    if state.status not in ("succeeded", "failed"):
        state = (await commands.load(invocations.DECIDER, tenant_id, invocation_id)).state
    return state


async def request_for_invocation(commands: CommandLoop, caller: Caller, invocation_id: UUID, name: str) -> CommandRequest:
    """The request of a command for an invocation; `name` makes a repeat of the command the same command. Raises NotFound."""
    loaded = await commands.load(invocations.DECIDER, caller.tenant_id, invocation_id, fresh=False)
    if loaded.state.requested is None:
        raise NotFound(f"there is no invocation {invocation_id}")
    run_id: UUID = loaded.state.requested.run_id
    structlog.contextvars.bind_contextvars(run_id=str(run_id), invocation_id=str(invocation_id))
    return caller.named(derive_id(invocation_id, name), run_id)


async def resolve_invocation(commands: CommandLoop, caller: Caller, command: invocations.ResolveInvocation) -> CommandOutcome:
    """What a person says of an ambiguous call. The first one to say it counts; the same again gets the first answer.

    Raises NotFound, AlreadyResolved for something else, InvalidState.
    """
    request = await request_for_invocation(commands, caller, command.invocation_id, "resolve")
    return await commands.execute(request, command)
