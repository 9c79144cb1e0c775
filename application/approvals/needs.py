"""Which calls need an approval: the rules of the tool and of the tenant's policies, evaluated where a call is requested.

All is known in memory: the policies of a tenant are one stream, as the tool is. What this process knows may be old, so the append
of the call holds only while the policies are as they were looked at. A tenant without policies costs no look at all: this process
takes an unknown stream to be empty, and the append finds out.
"""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.engine.ports.expressions import Expressions
from application.functions import RuleFunctions
from domain import approval_policies, runs
from domain.agent_runs import AgentRunRequested
from domain.approval_policies import Policies, UsePolicies, policies_id_of
from domain.approval_rules import VARIABLES, ApprovalCheck, BoundRule, Demand, SeenCall, demand_for
from domain.kernel import Command, Json
from domain.tools import ToolRegistered


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
        self, tenant_id: UUID, policies: Policies, run: runs.Run | None, asker: Asker, functions: RuleFunctions, names: Expressions
    ) -> None:
        self._policies = policies
        self._run = run
        self._asker = asker
        self._functions = functions
        self._expressions = names
        self._use = UsePolicies(policies_id=policies_id_of(tenant_id), changes=policies.changes)
        self._named_taint = False
        self.tainted = asker.tainted or (run is not None and run.tainted)

    def demand(self, tool: ToolRegistered, arguments: dict[str, Json]) -> Demand | None:
        """What the approval of a call must be. None: it needs none."""
        rules = self._rules(tool)
        return demand_for(rules, self._seen(tool, tainted=self.tainted), arguments, self._functions) if rules else None

    def check(self, tool: ToolRegistered, *, tainted: bool = False) -> ApprovalCheck | None:
        """What decides it later, of a call whose arguments are not known yet. `tainted`: they come from untrusted output anyway."""
        rules = self._rules(tool)
        return ApprovalCheck(rules=rules, seen=self._seen(tool, tainted=tainted or self.tainted)) if rules else None

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

    async def of(self, tenant_id: UUID, tool: ToolRegistered, asker: Asker, *, fresh: bool) -> Needs:
        """`fresh`: with what other processes have changed."""
        policies = await self._look(tenant_id, fresh=fresh)
        run = None
        if asker.run_id is not None and (policies.current or _may_need_one(tool)):
            run = (await self._commands.load(runs.DECIDER, tenant_id, asker.run_id, fresh=fresh)).state
        return Needs(tenant_id, policies, run, asker, self._functions, self._expressions)

    async def _look(self, tenant_id: UUID, *, fresh: bool) -> Policies:
        policies_id = policies_id_of(tenant_id)
        if fresh:
            found: Policies = (await self._commands.load(approval_policies.DECIDER, tenant_id, policies_id)).state
            return found
        known = self._commands.known(approval_policies.DECIDER, tenant_id, policies_id)
        return Policies() if known is None else known.state


def _may_need_one(tool: ToolRegistered) -> bool:
    """Whether a call of the tool, or one that follows from it, may need an approval by what tools declare."""
    rules = tool.rules
    return rules.approval is not None or bool(rules.fallbacks) or rules.compensation is not None or tool.kind == "chain"
