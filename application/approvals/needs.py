"""Which calls need an approval: the rules of the tool and of the tenant's policies, evaluated where a call is requested.

All is known in memory: the policies of a tenant are one stream, as the tool is. What this process knows may be old, so the append
of the call holds only while the policies are as they were looked at. A tenant without policies costs no look at all: this process
takes an unknown stream to be empty, and the append finds out.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.engine.ports.expressions import Expressions
from application.functions import RuleFunctions
from domain import approval_policies, runs
from domain.agent_runs import AgentRunRequested
from domain.approval_policies import Policies, UsePolicies, policies_id_of
from domain.approval_rules import VARIABLES, ApprovalCheck, BoundRule, Demand, SeenCall, demand_for, notified
from domain.kernel import Command, Json
from domain.notices import BoundNotice, NoticeTool, bound, first_of
from domain.tools import DECIDER as TOOLS
from domain.tools import ToolDefinition, ToolRegistered, tool_id_of


class Asker(NamedTuple):
    """Who asks for a call."""

    run_id: UUID | None = None
    """None: it belongs to no run."""
    agent: AgentRunRequested | None = None
    on_behalf_of: str | None = None
    tainted: bool = False
    """Whether what is asked comes from strangers, although there is no run to say so."""


class Needs:
    """What the rules say of one request of a call, and of what may follow from it."""

    def __init__(
        self, tenant_id: UUID, policies: Policies, run: runs.Run | None, asker: Asker, functions: RuleFunctions, names: Expressions,
        tools: Mapping[str, NoticeTool | None] = {},  # never changed
    ) -> None:  # fmt: skip
        """`tools`: those of notices, as they are declared now."""
        self._policies = policies
        self._run = run
        self._asker = asker
        self._functions = functions
        self._expressions = names
        self._use = UsePolicies(policies_id=policies_id_of(tenant_id), changes=policies.changes)
        self._named_taint = False
        self._tools = tools
        self.tainted = asker.tainted or (run is not None and run.tainted)

    def demand(self, tool: ToolRegistered, arguments: dict[str, Json]) -> Demand | None:
        """What the approval of a call must be. None: it needs none."""
        rules = self._rules(tool)
        if not rules:
            return None
        demand = demand_for(rules, self._seen(tool, tainted=self.tainted), arguments, self._functions)
        return None if demand is None else notified(demand, self.notices(tool.name))

    def check(self, tool: ToolRegistered, *, tainted: bool = False) -> ApprovalCheck | None:
        """What decides it later, of a call whose arguments are not known yet. `tainted`: they come from untrusted output anyway."""
        rules = self._rules(tool)
        if not rules:
            return None
        seen = self._seen(tool, tainted=tainted or self.tainted)
        return ApprovalCheck(rules=rules, seen=seen, notices=self.notices(tool.name))

    def question(self, name: str, demand: Demand) -> Demand:
        """What the answer to a question of an agent must be: as the agent says, with the notices of the house."""
        run = self._run
        said = {"tainted": self.tainted, "project_id": None if run is None else run.project_id, "notices": self.notices(name)}
        return demand.model_copy(update=said)

    def notices(self, name: str) -> tuple[BoundNotice, ...]:
        """Who is told of an approval about a tool or a question of this name."""
        if not self._tools:
            return ()
        project_id = None if self._run is None else self._run.project_id
        return first_of(
            call
            for policy, number, notice in self._policies.notices_about(name, project_id)
            for call in bound(policy.name, policy.version, number, notice, self._tools.get(notice.tool))
        )

    @property
    def conditions(self) -> Sequence[Command]:
        """What must hold for the append of the request: the policies are as they were looked at, and so is the run."""
        run_id = self._asker.run_id
        if not self._named_taint or self.tainted or run_id is None:
            return (self._use,)
        return (self._use, runs.CheckUntainted(run_id=run_id))

    def _rules(self, tool: ToolRegistered) -> tuple[BoundRule, ...]:
        rules: tuple[BoundRule, ...] = ()
        if self._policies.current:
            rules = self._policies.about(tool.name, None if self._run is None else self._run.project_id)
        own = tool.rules.approval
        if own is not None:
            rules = (BoundRule(when=None if own is True else own), *rules)
        for rule in rules:
            if rule.when is not None and "tainted" in self._expressions.look(rule.when, VARIABLES).names:
                self._named_taint = True
        return rules

    def _seen(self, tool: ToolRegistered, *, tainted: bool) -> SeenCall:
        asker, run = self._asker, self._run
        agent, cost = asker.agent, tool.rules.max_cost
        return SeenCall(
            tool=tool.name,
            cost=None if cost is None or cost.money is None else float(cost.money),
            tainted=tainted,
            agent=None if agent is None else {"name": agent.agent, "version": agent.agent_version, "step": agent.step},
            run=None
            if run is None or asker.run_id is None
            else {
                "run_id": str(asker.run_id), "project_id": str(run.project_id), "priority": run.priority, "metadata": run.metadata,
            },
            on_behalf_of=asker.on_behalf_of,
        )  # fmt: skip


class ApprovalNeeds:
    def __init__(self, commands: CommandLoop, expressions: Expressions) -> None:
        self._commands = commands
        self._expressions = expressions
        self._functions = RuleFunctions(expressions)

    async def of(self, tenant_id: UUID, tool: ToolRegistered | None, asker: Asker, *, fresh: bool) -> Needs:
        """`tool`: None for a question of an agent. `fresh`: with what other processes have changed."""
        policies = await self._look(tenant_id, fresh=fresh)
        run = None
        if asker.run_id is not None and (tool is None or policies.current or _may_need_one(tool)):
            run = (await self._commands.load(runs.DECIDER, tenant_id, asker.run_id, fresh=fresh)).state
        tools = await self._tools_of_notices(tenant_id, policies) if policies.notify else {}
        return Needs(tenant_id, policies, run, asker, self._functions, self._expressions, tools)

    async def _tools_of_notices(self, tenant_id: UUID, policies: Policies) -> Mapping[str, NoticeTool | None]:
        """All of them, of which this process knows most. A tool that changes meanwhile is called as it was."""
        found: dict[str, NoticeTool | None] = {}
        for policy in policies.current.values():
            for notice in policy.definition.notices:
                if notice.tool not in found:
                    found[notice.tool] = await notice_tool(self._commands, tenant_id, notice.tool)
        return found

    async def _look(self, tenant_id: UUID, *, fresh: bool) -> Policies:
        policies_id = policies_id_of(tenant_id)
        if fresh:
            found: Policies = (await self._commands.load(approval_policies.DECIDER, tenant_id, policies_id)).state
            return found
        known = self._commands.known(approval_policies.DECIDER, tenant_id, policies_id)
        return Policies() if known is None else known.state


async def notice_tool(commands: CommandLoop, tenant_id: UUID, name: str) -> NoticeTool | None:
    """A tool as a notice calls it. None: there is no such tool."""
    tool: ToolDefinition = (await commands.load(TOOLS, tenant_id, tool_id_of(tenant_id, name), fresh=False)).state
    current = tool.current
    if current is None:
        return None
    builtin = current.builtin if current.kind == "builtin" else None
    return NoticeTool(
        version=current.version, builtin=builtin, idempotent=current.idempotent, timeout_s=current.timeout_s,
        max_attempts=current.max_attempts,
    )  # fmt: skip


def _may_need_one(tool: ToolRegistered) -> bool:
    """Whether a call of the tool, or one that follows from it, may need an approval by what tools declare."""
    rules = tool.rules
    return rules.approval is not None or bool(rules.fallbacks) or rules.compensation is not None or tool.kind == "chain"
