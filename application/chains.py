"""Chains of tools: what is wrong with one that is declared, and what a call of one begins with."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any
from uuid import UUID

from application.approvals.needs import ApprovalNeeds, Asker, Needs
from application.compensations import compensation_of
from application.engine.commands.loop import CommandLoop
from application.engine.ports.expressions import Expressions
from application.suggestions import KnownNames, did_you_mean, names_of
from domain.amounts import MaxCost
from domain.chain_plans import MAX_DEPTH, MOST_TOOLS, VARIABLES, ChainPlan, fault_of_names, kept_by, plan_of
from domain.chains import StartChain
from domain.errors import InvalidCommand
from domain.http_requests import Fault
from domain.invocations import RequestInvocation
from domain.kernel import Command, Json
from domain.tools import DECIDER, ToolDefinition, ToolRegistered, UseTool, faults_of_model, tool_id_of


def faults_of_expressions(expressions: Expressions, plan: ChainPlan) -> Iterator[Fault]:
    """What is wrong with the expressions of a chain, each with the JSON Pointer of its place in the chain."""
    placed = [(n, f"/steps/{n}{place}", text) for n, step in enumerate(plan.steps) for place, text in step.expressions()]
    if plan.result is not None:
        placed.append((len(plan.steps), "/result", plan.result))
    for before, place, text in placed:
        look = expressions.look(text, VARIABLES)
        fault = look.fault or fault_of_names(plan, before, look.names)
        if fault is not None:
            yield place, fault


def kept_of(expressions: Expressions, plan: ChainPlan) -> tuple[str, ...]:
    """The steps whose results the expressions of a chain name."""
    texts = [text for step in plan.steps for _, text in step.expressions()]
    names = [expressions.look(text, VARIABLES).names for text in (*texts, *filter(None, [plan.result]))]
    return kept_by(plan, frozenset().union(*names))


class Chains:
    def __init__(self, commands: CommandLoop, expressions: Expressions, known: KnownNames) -> None:
        """`known`: the names of the registered tools."""
        self._commands = commands
        self._expressions = expressions
        self._known = known
        self.needs = ApprovalNeeds(commands, expressions)
        """What calls need an approval, of chains and of all others."""

    async def begin(
        self, tenant_id: UUID, chain: ToolRegistered, requested: RequestInvocation, needs: Needs, *, fresh: bool = False
    ) -> list[Command]:
        """What goes into the append that requests a call of a chain: the beginning of the chain, with what its tools declare, and
        the condition that they are as they were looked at. `requested` names the chain's stream.

        Raises InvalidCommand for a chain that cannot be called: one of its tools is not there, or is a chain that contains it.
        """
        assert requested.chain_id is not None
        found: dict[str, Any] = {}
        uses: list[Command] = []
        tools: list[ToolRegistered] = []
        await self._gather(tenant_id, chain, (chain.name,), found, uses, fresh, needs, tools)
        tainted = any(tool.untrusted_output for tool in tools)
        for tool in tools:
            if (check := needs.check(tool, tainted=tainted)) is not None:
                found[tool.name]["approval"] = check.model_dump(mode="json", exclude_defaults=True)
        plan = plan_of(chain.chain)
        return [
            StartChain(
                chain_id=requested.chain_id,
                run_id=requested.run_id,
                invocation_id=requested.invocation_id,
                tool=requested.tool,
                tool_version=requested.tool_version,
                arguments=requested.arguments,
                plan=chain.chain,
                kept=kept_of(self._expressions, plan),
                tools=found,
                priority=requested.priority,
                on_behalf_of=requested.on_behalf_of,
                held=requested.approval is not None,
            ),
            *uses,
        ]

    async def _gather(
        self,
        tenant_id: UUID,
        chain: ToolRegistered,
        path: tuple[str, ...],
        found: dict[str, Any],
        uses: list[Command],
        fresh: bool,
        needs: Needs | None = None,
        tools: list[ToolRegistered] | None = None,
    ) -> None:
        """Adds the tools of a chain that are not found yet, with those of the chains in it. `needs`: None, if nothing is called."""
        for step in plan_of(chain.chain).steps:
            name = step.tool
            if name in path:
                raise InvalidCommand(f"the chain '{path[0]}' contains itself: {' → '.join((*path, name))}", pointer="/tool")
            if name in found:
                continue
            if len(found) >= MOST_TOOLS:
                raise InvalidCommand(f"the chain '{path[0]}' has more than {MOST_TOOLS} tools", pointer="/tool")
            tool = await self._tool(tenant_id, name, fresh=fresh)
            if tool.current is None:
                meant = did_you_mean(name, await names_of(self._known, tenant_id))
                where = f"the chain '{path[-1]}', step '{step.key}': "
                raise InvalidCommand(f"{where}no tool '{name}' is registered{meant}", pointer="/tool")
            uses.append(UseTool(tool_id=tool_id_of(tenant_id, name), name=name, changes=tool.changes))
            found[name] = _declared(tool.current)
            if tools is not None:
                tools.append(tool.current)
            asked = needs or await self.needs.of(tenant_id, tool.current, Asker(), fresh=fresh)
            options: dict[str, Any] = {"untrusted": True} if tool.current.untrusted_output else {}
            if (undo := await compensation_of(self._commands, tenant_id, tool.current, asked)) is not None:
                options["compensation"] = undo.model_dump(mode="json", exclude_defaults=True)
            if options:
                found[name]["options"] = options
            if tool.current.kind == "chain":
                if len(path) >= MAX_DEPTH:
                    raise InvalidCommand(f"the chain '{path[0]}' has chains in chains, {MAX_DEPTH} deep", pointer="/tool")
                found[name] |= {"plan": tool.current.chain, "kept": kept_of(self._expressions, plan_of(tool.current.chain))}
                await self._gather(tenant_id, tool.current, (*path, name), found, uses, fresh, needs, tools)

    async def _tool(self, tenant_id: UUID, name: str, *, fresh: bool = False) -> ToolDefinition:
        tool_id = tool_id_of(tenant_id, name)
        tool: ToolDefinition = (await self._commands.load(DECIDER, tenant_id, tool_id, fresh=fresh)).state
        if tool.current is None and not fresh:
            tool = (await self._commands.load(DECIDER, tenant_id, tool_id)).state
        return tool

    async def faults_of(self, tenant_id: UUID, name: str, chain: Json) -> list[Fault]:
        """What is wrong with a chain, as far as its tools tell: each with its JSON Pointer. `name`: of the chain."""
        if chain is None or faults_of_model(ChainPlan, chain):
            return []  # told by the rules of declarations
        faults: list[Fault] = []
        for number, step in enumerate(plan_of(chain).steps):
            if step.tool == name:
                continue
            place = f"/chain/steps/{number}"
            current = (await self._tool(tenant_id, step.tool)).current
            if current is None:
                meant = did_you_mean(step.tool, await names_of(self._known, tenant_id))
                faults.append((f"{place}/tool", f"no tool '{step.tool}' is registered{meant}"))
                continue
            faults += [(place + inner, text) for inner, text in _faults_of_names(current, step.arguments)]
            if current.kind == "chain":
                try:
                    await self._gather(tenant_id, current, (name, step.tool), {}, [], False)
                except InvalidCommand as error:
                    faults.append((f"{place}/tool", error.message))
        return faults


def _declared(tool: ToolRegistered) -> dict[str, Any]:
    """What a chain needs of a tool."""
    return {
        "version": tool.version,
        "idempotent": tool.idempotent,
        "timeout_s": tool.timeout_s,
        "max_attempts": tool.max_attempts,
        "reconcile_timeout_s": tool.reconcile_timeout_s,
        "parameters": tool.parameters,
        **({} if tool.rules.max_cost is None else {"max_cost": [tool.rules.max_cost.micros, tool.rules.max_cost.tokens or 0]}),
    }


def cost_of_chain(chain: StartChain) -> MaxCost | None:
    """What the tools of a chain cost at most, each as often as the chain has it. None: nothing."""
    money, tokens = _cost_of_steps(chain.plan, chain.tools)
    return MaxCost(money=money, tokens=tokens) if money or tokens else None


def _cost_of_steps(plan: Json, tools: Mapping[str, Any]) -> tuple[int, int]:
    money = tokens = 0
    for step in plan_of(plan).steps:
        declared = tools[step.tool]
        most = declared.get("max_cost") or (_cost_of_steps(declared["plan"], tools) if "plan" in declared else (0, 0))
        money, tokens = money + most[0], tokens + most[1]
    return money, tokens


def _faults_of_names(tool: ToolRegistered, arguments: Collection[str]) -> Iterator[Fault]:
    """Arguments that the tool does not take, or that it misses. What its schema says in other words is found at the call."""
    schema = tool.parameters if isinstance(tool.parameters, dict) else {}
    properties, required = schema.get("properties"), schema.get("required")
    if schema.get("additionalProperties") is False and isinstance(properties, dict):
        for name in arguments:
            if name not in properties:
                meant = did_you_mean(name, properties)
                place = name.replace("~", "~0").replace("/", "~1")
                yield f"/arguments/{place}", f"the tool '{tool.name}' has no argument '{name}'{meant}"
    for name in required if isinstance(required, list) else ():
        if isinstance(name, str) and name not in arguments:
            yield "/arguments", f"the tool '{tool.name}' needs an argument '{name}'"
