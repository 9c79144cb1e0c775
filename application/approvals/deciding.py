"""The word of a person on what waits for an approval, and an approval as the log has it.

Who started the run is read where four eyes are asked for. Changed arguments are checked as those of any call: by the tool's schema,
and by all rules as they are now. With them the call must need no more than what is being decided.
"""

from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

from application.approvals.asked import arguments_asked
from application.approvals.needs import Asker
from application.chains import Chains
from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandOutcome, CommandRequest
from application.engine.ports.log import EventFeed
from application.reads import ApprovalReads, Positioned
from application.tool_schemas import ToolSchemas
from application.views.approvals import ApprovalView
from application.views.budgets import waiting_view
from application.views.large import path_of_call, put_value
from domain import agent_runs, allowances, approvals, runs, tenants, tools
from domain.agent_runs import AgentRun
from domain.approval_policies import PoliciesChanged
from domain.approval_rules import arguments_hash
from domain.approvals import AlreadyDecided, Approval, DecideApproval, NotAnApprover
from domain.errors import InvalidCommand, InvalidState, NotFound, Unavailable
from domain.kernel import Command, Json, who_asked
from domain.plans import MAX_DEPTH
from domain.runs import GotTainted
from domain.tenants import Tenant
from domain.tools import ToolDefinition, tool_id_of

MOST_LOOKS = 5


class Approver(NamedTuple):
    """Who decides."""

    by: str
    """The actor of the key."""
    role: str
    on_behalf_of: str | None = None


class Decisions:
    def __init__(self, commands: CommandLoop, feed: EventFeed, reads: ApprovalReads, schemas: ToolSchemas, chains: Chains) -> None:
        self._commands = commands
        self._feed = feed
        self._reads = reads
        self._schemas = schemas
        self._chains = chains

    async def decide(
        self, request: CommandRequest, command: DecideApproval, audited: Callable[[CommandRequest], CommandRequest]
    ) -> CommandOutcome:
        """Records the word. `audited` gives the request its entry in the audit trail.

        Raises:
            NotFound: the tenant has no such approval.
            NotAnApprover: the key does not decide this one.
            AlreadyDecided: it was decided before, in another way.
            InvalidCommand: the changed arguments do not fit the tool, or need more than this approval.
            InvalidState, Unavailable.
        """
        tenant_id = request.tenant_id
        for look in range(MOST_LOOKS):
            approval = await self._load(tenant_id, command.approval_id, fresh=True)
            assert approval.requested is not None
            conditions: tuple[Command, ...] = ()
            command = command.model_copy(update={"also": await self._also(tenant_id, command.by)})
            if approval.requested.demand.four_eyes:
                command = command.model_copy(update={"started_by": await self._starters(tenant_id, approval.requested)})
            if (changed := command.arguments) is not None and approval.status == "open" and approval.requested.kind == "call":
                command = command.model_copy(update={"new_hash": arguments_hash(changed)})
                conditions = await self._checked(tenant_id, approval.requested, changed, fresh=look > 0)
            try:
                return await self._commands.execute(audited(request), command, *conditions)
            except (PoliciesChanged, GotTainted):  # this process had not heard of it
                continue
        raise Unavailable("the approval policies are being changed: try again")

    async def status(self, tenant_id: UUID, approval_id: UUID) -> str:
        return (await self._load(tenant_id, approval_id, fresh=False)).status

    async def view(self, tenant_id: UUID, approval_id: UUID, decider: Approver) -> Positioned[ApprovalView]:
        """The approval with the arguments of its call. Raises NotFound, Unavailable."""
        events = await self._commands.history(tenant_id, approval_id)
        found = self._reads.replay(events)
        if found is None:
            raise _no_approval(approval_id)
        approval = await self._load(tenant_id, approval_id, fresh=False)
        asked = await arguments_asked(self._commands, tenant_id, approval, fresh=True)
        view = ApprovalView(**found.model_dump(), arguments=asked if approval.changed is None else approval.changed)
        if found.invocation_id is None:
            view.arguments = asked
        view.asked_arguments = None if approval.changed is None else asked
        if approval.changed is None and found.invocation_id is not None:
            put_value(view, "arguments", asked, path_of_call(found.invocation_id), events[-1].position, empty={})
        if approval.requested is not None and (of_budget := approval.requested.budget) is not None and found.status == "open":
            place = of_budget.allowance.allowance_id
            view.waiting = waiting_view(place, (await self._commands.load(allowances.DECIDER, tenant_id, place)).state)
        view.why_not = await self._why_not(tenant_id, approval, approval_id, decider)
        view.may_decide = view.why_not is None
        return Positioned(view, events[-1].position)

    async def _why_not(self, tenant_id: UUID, approval: Approval, approval_id: UUID, decider: Approver) -> str | None:
        assert approval.requested is not None
        starters = await self._starters(tenant_id, approval.requested) if approval.requested.demand.four_eyes else ()
        trial = DecideApproval(
            approval_id=approval_id, decision="approve", arguments_hash=approval.arguments_hash, started_by=starters,
            also=await self._also(tenant_id, decider.by), **decider._asdict(),
        )  # fmt: skip
        try:
            if approvals.DECIDER.decide(approval, trial):
                return None
        except (AlreadyDecided, NotAnApprover, InvalidState) as error:
            return error.message
        return "you have decided before"

    async def _load(self, tenant_id: UUID, approval_id: UUID, *, fresh: bool) -> Approval:
        approval: Approval = (await self._commands.load(approvals.DECIDER, tenant_id, approval_id, fresh=fresh)).state
        if approval.requested is None:
            raise _no_approval(approval_id)
        return approval

    async def _also(self, tenant_id: UUID, by: str) -> tuple[str, ...]:
        """The names of the keys of whoever decides, where one took the place of another."""
        kind, _, key_id = by.partition(":")
        if kind != "key":
            return ()
        try:
            key = UUID(key_id)
        except ValueError:
            return ()
        tenant: Tenant = (await self._commands.load(tenants.DECIDER, tenant_id, tenant_id, fresh=False)).state
        return tuple(sorted(f"key:{one}" for one in tenant.same_holder(key) - {key}))

    async def _starters(self, tenant_id: UUID, requested: approvals.ApprovalRequested) -> tuple[str, ...]:
        """Who started the run, or the call without a run, and for whom it works; with the runs above."""
        found = {requested.on_behalf_of}
        root: UUID | None = requested.run_id
        for _ in range(MAX_DEPTH + 1):
            if root is None:
                break
            for event in await self._feed.read_roots([(tenant_id, root, 0)], limit=1, tenant_id=tenant_id):
                found |= set(who_asked(event.metadata))
            run: runs.Run = (await self._commands.load(runs.DECIDER, tenant_id, root, fresh=False)).state
            root = None if run.parent is None else run.parent.run_id
        return tuple(sorted(each for each in found if each is not None))

    async def _checked(
        self, tenant_id: UUID, requested: approvals.ApprovalRequested, arguments: dict[str, Json], *, fresh: bool
    ) -> tuple[Command, ...]:
        """What must hold for the decision. Raises InvalidCommand, InvalidState."""
        name = requested.tool
        tool: ToolDefinition = (await self._commands.load(tools.DECIDER, tenant_id, tool_id_of(tenant_id, name))).state
        current = tool.current
        if current is None or current.version != requested.tool_version:
            raise InvalidState(
                f"the tool '{name}' has changed since the call: its arguments cannot be changed any more", pointer="/arguments"
            )
        try:
            self._schemas.check_arguments(name, current.parameters, arguments)
        except InvalidCommand as error:
            raise InvalidCommand(error.message, pointer=error.pointer or "/arguments", faults=error.faults) from error
        asker = await self._asker(tenant_id, requested)
        needs = await self._chains.needs.of(tenant_id, current, asker, fresh=fresh)
        demand = needs.demand(current, arguments)
        if demand is not None and not demand.asks_no_more_than(requested.demand):
            raise InvalidCommand(
                "with these arguments the call needs more than this approval: deny it, and let it be asked for anew",
                pointer="/arguments",
            )
        return tuple(needs.conditions)

    async def _asker(self, tenant_id: UUID, requested: approvals.ApprovalRequested) -> Asker:
        tainted, for_whom = requested.demand.tainted, requested.on_behalf_of
        if requested.demand.project_id is None:
            return Asker(on_behalf_of=for_whom, tainted=tainted)
        agent = None
        if requested.asked_by == "agent_run":
            state: AgentRun = (await self._commands.load(agent_runs.DECIDER, tenant_id, requested.agent_run_id, fresh=False)).state
            agent = state.requested
        return Asker(requested.run_id, agent, for_whom, tainted)


def _no_approval(approval_id: UUID) -> NotFound:
    return NotFound(f"there is no approval {approval_id}")
