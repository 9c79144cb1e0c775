"""The compensation of a run: how the effect of a call will be taken back, showing it, beginning it by hand, letting it go on.

The compensating tool is looked up at the call, so that an effect that cannot be taken back is not begun.
"""

from collections.abc import Callable
from itertools import islice
from typing import Any
from uuid import UUID

from application.approvals.needs import Needs
from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandOutcome, CommandRequest
from application.engine.ports.log import EventFeed
from application.engine.ports.pages import encode_cursor
from application.reads import Positioned
from application.runs.lookup import must_be_a_run
from application.tool_calls import declared_cost
from application.views.compensations import CompensationView, EffectView, WaitView
from domain import compensations, invocations, runs, tools
from domain.compensations import BeginCompensation, Effect, ResumeCompensation, RunCompensation, compensation_id_of
from domain.errors import InvalidState, NotFound
from domain.failures import Retry
from domain.invocations import CallCompensation
from domain.tools import ToolDefinition, ToolRegistered, UnknownTool, tool_id_of

MOST_WAITED_FOR = 20
DEFAULT_ARGUMENTS = ("arguments", "result", "invocation_id")
"""Of a compensating tool, as far as it declares them. Expressions know the same names."""

_SHOWN_STATUS: dict[str, Any] = {
    "started": "running",
    "waiting": "retrying",
    "asking": "reconciling",
    "asking_later": "reconciling",
}
"""Statuses of calls that people see by another name."""


async def compensation_of_run(
    commands: CommandLoop, feed: EventFeed, tenant_id: UUID, run_id: UUID, *, limit: int, below: int | None
) -> Positioned[CompensationView]:
    """The compensation with a page of its effects, as the log has it. `below`: only effects of lower numbers.

    Raises NotFound: the tenant has no such run. Unavailable.
    """
    loaded = await commands.load(compensations.DECIDER, tenant_id, compensation_id_of(run_id))
    state: RunCompensation = loaded.state
    position = loaded.position
    if not loaded.version:
        position = (await must_be_a_run(feed, tenant_id, run_id)).position
    first = len(state.effects) if below is None else min(below - 1, len(state.effects))
    last = max(first - limit, 0)
    waits_for = [WaitView(invocation_id=call, status=await _status(commands, tenant_id, call)) for call in _awaited(state)]
    begun = state.begun
    view = CompensationView(
        run_id=run_id,
        status=state.status,
        effects=len(state.effects),
        compensated=state.compensated,
        failed=len(state.failed),
        skipped=state.skipped,
        stopped_on=state.stopped_on,
        waits_for=waits_for,
        needs_person=state.stopped_on is not None or any(call.status == "ambiguous" for call in waits_for),
        version=loaded.version,
        data=[_shown(state.effects[number]) for number in range(first, last, -1)],
        next_cursor=encode_cursor(str(last + 1)) if last else None,
    )
    if begun is not None:
        view.because, view.reason, view.by, view.on_behalf_of = begun.because, begun.reason, begun.by, begun.on_behalf_of
    return Positioned(view, position)


def _awaited(state: RunCompensation) -> list[UUID]:
    """The calls that a compensation under way waits for."""
    if state.status not in ("waiting", "running"):
        return []
    current = state.effects[state.current].compensation_id if state.current else None
    return [*([] if current is None else [current]), *islice(state.open, MOST_WAITED_FOR)][:MOST_WAITED_FOR]


async def _status(commands: CommandLoop, tenant_id: UUID, call: UUID) -> Any:
    state: invocations.Invocation = (await commands.load(invocations.DECIDER, tenant_id, call)).state
    if state.requested is None:  # a child run, or its compensation
        return "running"
    return _SHOWN_STATUS.get(state.status, state.status)


def _shown(effect: Effect) -> EffectView:
    return EffectView(
        number=effect.number,
        invocation_id=effect.invocation_id,
        key=effect.key,
        tool=effect.tool,
        status=effect.status,
        unknown=effect.unknown,
        compensated_by=effect.compensated_by,
        compensation_id=effect.compensation_id,
        round=effect.round,
        error=effect.error if effect.status == "failed" else None,
        reason=effect.reason,
        by=effect.by,
    )


async def begin_compensation(
    commands: CommandLoop, request: CommandRequest, command: BeginCompensation, audited: Callable[[CommandRequest], CommandRequest]
) -> CommandOutcome:
    """Takes the effects of a run back that has ended, also of a completed one. `audited` gives the request its entry in the audit
    trail.

    Raises NotFound; InvalidState: the run goes on, has no such effect, or its compensation has begun.
    """
    run: runs.Run = (await commands.load(runs.DECIDER, request.tenant_id, command.run_id)).state
    if run.status == "absent":
        raise NotFound(f"there is no run {command.run_id}")
    if run.status not in runs.OVER:
        raise InvalidState(f"the run is {run.status}: only the effects of one that has ended are taken back; cancel it first")
    return await commands.execute(audited(request), command)


async def resume_compensation(
    commands: CommandLoop, request: CommandRequest, command: ResumeCompensation, audited: Callable[[CommandRequest], CommandRequest]
) -> CommandOutcome:
    """A person's word on how a compensation goes on. Raises NotFound, InvalidState, InvalidCommand."""
    run: runs.Run = (await commands.load(runs.DECIDER, request.tenant_id, command.run_id, fresh=False)).state
    if run.status == "absent":
        raise NotFound(f"there is no run {command.run_id}")
    return await commands.execute(audited(request), command)


async def compensation_of(commands: CommandLoop, tenant_id: UUID, tool: ToolRegistered, needs: Needs) -> CallCompensation | None:
    """The compensation that a tool declares, with what the compensating tool declares at present. None: the tool declares none.
    `needs`: what the rules say of the call.

    Raises UnknownTool: the compensating tool is not registered. InvalidState: it is a chain.
    """
    declared = tool.rules.compensation
    if declared is None:
        return None
    found: ToolDefinition
    for fresh in (False, True):  # another process may have registered it since
        found = (await commands.load(tools.DECIDER, tenant_id, tool_id_of(tenant_id, declared.tool), fresh=fresh)).state
        if (current := found.current) is not None:
            break
    else:
        raise UnknownTool(f"'{declared.tool}', which takes back what '{tool.name}' does, is not registered", pointer="/tool")
    if current.kind == "chain":
        raise InvalidState(
            f"'{declared.tool}' is a chain of tools, which cannot take back what '{tool.name}' does", pointer="/tool"
        )
    properties = current.parameters.get("properties") if isinstance(current.parameters, dict) else None
    takes = tuple(name for name in DEFAULT_ARGUMENTS if isinstance(properties, dict) and name in properties)
    return CallCompensation(
        tool=declared.tool,
        tool_version=current.version,
        idempotent=current.idempotent,
        timeout_s=current.timeout_s,
        retry=Retry(max_attempts=current.max_attempts),
        reconcile_timeout_s=current.reconcile_timeout_s,
        arguments=declared.arguments,
        takes=takes,
        on_failure=declared.on_failure,
        approval=needs.check(current, tainted=tool.untrusted_output),
        max_cost=declared_cost(current),
    )
