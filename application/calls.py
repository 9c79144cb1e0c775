"""Calling a tool without a run: by a person or a program, through the same ledger as the call of an agent.

The call is its own root, and the name of the stream that asked is the call's own. Nobody waits for it but who asked. Calls that are
asked for together go into one append as far as they fit, and each has an answer of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from application.approvals.needs import Asker, Needs
from application.budgets.calls import BudgetedCalls, CallWithBudget
from application.cached_results import AskedAgain, CachedResults
from application.chains import Chains
from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandOutcome, CommandRequest
from application.fallbacks import NONE, Fallbacks, fallbacks_of
from application.suggestions import KnownNames
from application.tool_calls import MOST_LOOKS, Called, KnownTool, ToolsToCall
from application.tool_schemas import ToolSchemas
from domain.allowances import AllowanceShort
from domain.approval_policies import PoliciesChanged
from domain.chains import chain_id_of
from domain.errors import InvalidCommand, TidelogError, Unavailable, VersionConflict
from domain.failures import Retry
from domain.invocations import RequestInvocation
from domain.kernel import Command, Json, Priority
from domain.tools import ToolChanged


@dataclass(frozen=True, slots=True)
class WantedCall:
    """A call as somebody asks for it."""

    request: CommandRequest
    invocation_id: UUID
    """A new id. A repeat gets the id that was made for the first request."""
    key: str
    arguments: dict[str, Json]
    priority: Priority = "normal"
    timeout_s: float | None = None
    """The limit of one attempt. None: as the tool declares."""
    cache: bool = True
    """Whether a result of before may answer the call."""
    tainted: bool = False
    """Whether the arguments come from strangers."""


class ClientCalls:
    """Calls of tools that belong to no run."""

    def __init__(
        self, commands: CommandLoop, schemas: ToolSchemas, known: KnownNames, chains: Chains, cached: CachedResults,
        budgets: BudgetedCalls,
    ) -> None:  # fmt: skip
        """`known`: the names of the registered tools."""
        self._commands = commands
        self._schemas = schemas
        self._chains = chains
        self._tools = ToolsToCall(commands, known)
        self._cached = cached
        self._budgets = budgets

    async def call(self, name: str, wanted: WantedCall) -> Called:
        """Calls a tool.

        Raises:
            UnknownTool: no such tool is registered.
            InvalidCommand: the arguments do not match the tool's JSON Schema, or the time-out is over the tool's.
            RepeatedDifferently, Unavailable.
        """
        [answer] = await self.call_each(wanted.request.tenant_id, name, [wanted])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def call_each(self, tenant_id: UUID, name: str, wanted: Sequence[WantedCall]) -> list[Called | Exception]:
        """Calls a tool several times. Each call has its own answer: what came of it, or what `call` would raise.

        Raises UnknownTool: there is no such tool, so none was called. Unavailable: none was called.
        """
        answers: dict[int, Called | Exception] = {}
        for look in range(MOST_LOOKS):
            tool = await self._tools.find(tenant_id, name, fresh=look > 0)
            left = [number for number in range(len(wanted)) if number not in answers]
            commands: dict[int, RequestInvocation] = {}
            for number in left:
                try:
                    commands[number] = self._command(name, wanted[number], tool)
                except InvalidCommand as error:
                    answers[number] = error
            if commands:
                needs = {n: await self._needs(tenant_id, tool, wanted[n], fresh=look > 0) for n in commands}
                for number, command in commands.items():
                    demand = needs[number].demand(tool.current, command.arguments)
                    if demand is not None:
                        commands[number] = command.model_copy(update={"approval": demand})
                commands |= await self._answered(tenant_id, tool, wanted, commands)
                requests: list[tuple[CommandRequest, Sequence[Command]]] = []
                beside: Sequence[UUID] = ()
                for number, command in commands.items():
                    request = wanted[number].request
                    begun = await self._begun(request, tool, command, needs[number], fresh=look > 0)
                    beside = beside or begun.beside
                    requests.append((request, (*begun.commands, tool.use, *needs[number].conditions)))
                outcomes = await self._commands.execute_all(requests, beside=beside)
                for (number, command), outcome in zip(commands.items(), outcomes, strict=True):
                    drawn = isinstance(outcome, AllowanceShort) or (beside and isinstance(outcome, VersionConflict))
                    if not drawn and not isinstance(outcome, ToolChanged | PoliciesChanged):
                        answers[number] = _called(command, outcome, tool)  # else this process had not heard of the change
            if len(answers) == len(wanted):
                break
        changed = Unavailable(f"the tool '{name}' is being changed: try again")
        return [answers.get(number, changed) for number in range(len(wanted))]

    async def _needs(self, tenant_id: UUID, tool: KnownTool, wanted: WantedCall, *, fresh: bool) -> Needs:
        asker = Asker(on_behalf_of=wanted.request.on_behalf_of, tainted=wanted.tainted)
        return await self._chains.needs.of(tenant_id, tool.current, asker, fresh=fresh)

    async def _begun(
        self, request: CommandRequest, tool: KnownTool, command: RequestInvocation, needs: Needs, *, fresh: bool
    ) -> CallWithBudget:
        """The request of a call with its draw of the budgets, the beginning of a chain of tools, and the condition that its other
        tools are as looked at.

        Raises InvalidCommand for a chain that cannot be called.
        """
        tenant_id, instead = request.tenant_id, NONE
        begun: list[Command] = [command]
        if command.cached is None:
            instead, begun = await self._carried_out(tenant_id, tool, command, needs, fresh=fresh)
        return await self._budgets.of_client(request, begun, tool.current, instead, fresh=fresh)

    async def _carried_out(
        self, tenant_id: UUID, tool: KnownTool, command: RequestInvocation, needs: Needs, *, fresh: bool
    ) -> tuple[Fallbacks, list[Command]]:
        instead = await fallbacks_of(self._commands, self._schemas, tenant_id, tool.current, command.arguments, needs, fresh=fresh)
        also = {"fallbacks": instead.tools, "fallbacks_skipped": instead.skipped}
        if tool.current.kind != "chain":
            return instead, [command.model_copy(update=also) if instead is not NONE else command, *instead.uses]
        of_chain = command.model_copy(update={"chain_id": chain_id_of(command.invocation_id), **also})
        begun = await self._chains.begin(tenant_id, tool.current, of_chain, needs, fresh=fresh)
        return instead, [of_chain, *begun, *instead.uses]

    async def _answered(
        self, tenant_id: UUID, tool: KnownTool, wanted: Sequence[WantedCall], commands: Mapping[int, RequestInvocation]
    ) -> dict[int, RequestInvocation]:
        """The calls that a result of before answers, with it."""
        asked = {
            n: AskedAgain(each.arguments, each.on_behalf_of)
            for n, each in commands.items()
            if wanted[n].cache and each.approval is None
        }
        found = await self._cached.find(tenant_id, tool.current, asked)
        return {number: commands[number].model_copy(update={"cached": result}) for number, result in found.items()}

    def _command(self, name: str, wanted: WantedCall, tool: KnownTool) -> RequestInvocation:
        """Raises InvalidCommand."""
        current = tool.current
        self._schemas.check_arguments(current.name, current.parameters, wanted.arguments)
        if wanted.timeout_s is not None and wanted.timeout_s > current.timeout_s:
            told = f"an attempt of the tool '{name}' may take {current.timeout_s:g} seconds at most, as it declares"
            raise InvalidCommand(told, pointer="/timeout_s")
        return RequestInvocation(
            invocation_id=wanted.invocation_id,
            run_id=wanted.invocation_id,
            agent_run_id=wanted.invocation_id,
            key=wanted.key,
            tool=name,
            tool_version=current.version,
            arguments=wanted.arguments,
            idempotent=current.idempotent,
            timeout_s=wanted.timeout_s or current.timeout_s,
            retry=Retry(max_attempts=current.max_attempts),
            priority=wanted.priority,
            on_behalf_of=wanted.request.on_behalf_of,
            reconcile_timeout_s=current.reconcile_timeout_s,
            asked_by="client",
            cacheable=current.rules.cache_s is not None,
            untrusted=current.untrusted_output,
        )


def _called(command: RequestInvocation, outcome: CommandOutcome | Exception, tool: KnownTool) -> Called | Exception:
    if isinstance(outcome, TidelogError):
        return outcome
    if isinstance(outcome, Exception):  # a defect is one of the whole request
        raise outcome
    return Called(outcome.begun(command.invocation_id)[0], outcome, tool.definition.warning)
