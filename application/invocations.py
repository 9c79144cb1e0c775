"""Tool calls: loading one call of a tenant, showing a call now or as of a position or time, making the requests of the call's
commands, and resolving an ambiguous call.
"""

from collections.abc import Callable
from typing import Literal
from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import Caller, CommandOutcome, CommandRequest
from application.engine.ports.log import EventFeed
from application.engine.ports.log_context import about
from application.engine.reading.as_of import position_as_of
from application.engine.reading.history_keeper import HistoryKeeper
from application.reads import InvocationReads, Positioned
from application.tool_results import ToolResults
from application.views.invocations import InvocationView
from domain import invocations
from domain.errors import InvalidCommand, NotFound
from domain.kernel import Json, derive_id

MOST_TOLD = 10
"""Faults of a result that a refusal describes."""


def known_outcome(commands: CommandLoop, tenant_id: UUID, invocation_id: UUID) -> invocations.Invocation | None:
    """The state of an invocation that has an outcome, if this process knows it."""
    known = commands.known(invocations.DECIDER, tenant_id, invocation_id)
    return known.state if known is not None and known.state.status in ("succeeded", "failed") else None


async def load_invocation(commands: CommandLoop, tenant_id: UUID, invocation_id: UUID) -> invocations.Invocation:
    """The present state of an invocation. A cached state is good enough if it has an outcome. Raises Unavailable."""
    if (known := known_outcome(commands, tenant_id, invocation_id)) is not None:
        return known
    state: invocations.Invocation = (await commands.load(invocations.DECIDER, tenant_id, invocation_id)).state
    return state


async def invocation_as_of(
    commands: CommandLoop,
    reads: InvocationReads,
    feed: EventFeed,
    histories: HistoryKeeper,
    tenant_id: UUID,
    invocation_id: UUID,
    as_of: str | None,
) -> Positioned[InvocationView]:
    """The call with its values, folded from its events, and the position of the last of them. `as_of`: None for now.

    Raises:
        InvalidCommand: `as_of` is neither a position nor a time.
        NotFound: the tenant has, or had, no such call.
        Unavailable.
    """
    events = await commands.history(tenant_id, invocation_id)
    if as_of is not None:
        until = await position_as_of(feed, histories, tenant_id, as_of)
        events = [event for event in events if event.position <= until]
    view = reads.replay(events)
    if view is None:
        raise NotFound(f"there is no invocation {invocation_id}" + (f" as of {as_of}" if as_of is not None else ""))
    return Positioned(view, events[-1].position)


def value_of(call: InvocationView, field: Literal["arguments", "result", "error", "evidence"]) -> Json:
    """A value of the call. Raises NotFound if the call has no such value, or none yet."""
    match field:
        case "arguments":
            return call.arguments
        case "result" if call.status == "succeeded":
            return call.result
        case "error" if call.error is not None:
            return call.error.model_dump(mode="json")
        case "evidence" if call.resolution is not None and call.resolution.evidence is not None:
            return call.resolution.evidence
    raise NotFound(f"invocation {call.invocation_id} has no {field}: it is {call.status}")


async def request_for_invocation(commands: CommandLoop, caller: Caller, invocation_id: UUID, name: str) -> CommandRequest:
    """The request of a worker's command. Commands with the same `name` are repeats of one command. Raises NotFound."""
    return caller.reporting(derive_id(invocation_id, name), await _run_of(commands, caller.tenant_id, invocation_id))


async def _run_of(commands: CommandLoop, tenant_id: UUID, invocation_id: UUID) -> UUID:
    """The run of an invocation. Raises NotFound."""
    loaded = await commands.load(invocations.DECIDER, tenant_id, invocation_id, fresh=False)
    if loaded.state.requested is None:
        raise NotFound(f"there is no invocation {invocation_id}")
    run_id: UUID = loaded.state.requested.run_id
    about(run_id=run_id, invocation_id=invocation_id)
    return run_id


async def resolve_invocation(
    commands: CommandLoop,
    results: ToolResults,
    caller: Caller,
    command: invocations.ResolveInvocation,
    audited: Callable[[CommandRequest], CommandRequest] = lambda request: request,
) -> CommandOutcome:
    """Records how an ambiguous call ended, or that it had no effect, as a person says.

    `audited` gives the request its entry in the audit trail. The first resolution counts. The same resolution again gets the first
    answer. Raises NotFound, AlreadyResolved for another resolution, InvalidState; InvalidCommand for a result that does not fit
    what the tool declared when it was called.
    """
    run_id = await _run_of(commands, caller.tenant_id, command.invocation_id)
    if command.error is None and not command.not_happened:
        await _must_fit(commands, results, caller.tenant_id, command)
    name = "resolve"
    if command.not_happened:  # may be said of each attempt
        state: invocations.Invocation = (await commands.load(invocations.DECIDER, caller.tenant_id, command.invocation_id)).state
        name = f"not happened:{state.called if command.attempt is None else command.attempt}"
    request = caller.named(derive_id(command.invocation_id, name), run_id)
    return await commands.execute(audited(request), command)


async def _must_fit(commands: CommandLoop, results: ToolResults, tenant_id: UUID, command: invocations.ResolveInvocation) -> None:
    """Raises InvalidCommand, with all faults. What the agent gets on with is what the tool could have answered."""
    loaded = await commands.load(invocations.DECIDER, tenant_id, command.invocation_id, fresh=False)
    requested: invocations.InvocationRequested = loaded.state.requested
    if faults := await results.faults_of(tenant_id, requested, command.result):
        places = [(f"/result{place}", text) for place, text in faults]
        told = "; ".join(f"{place}: {text}" for place, text in places[:MOST_TOLD])
        raise InvalidCommand(
            f"the result does not fit what tool '{requested.tool}' declares: {told}", pointer=places[0][0], faults=places
        )
