"""Calling a tool: the intent in the journal and the request of the invocation, in one append."""

from application.approvals.needs import Asker
from application.budgets.calls import BudgetedCalls
from application.cached_results import AskedAgain, CachedResults
from application.chains import Chains
from application.compensations import compensation_of
from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import Caller
from application.fallbacks import NONE, fallbacks_of
from application.suggestions import KnownNames
from application.tool_calls import MOST_LOOKS, Called, ToolsToCall
from application.tool_schemas import ToolSchemas
from application.workers.agent_runs import load_agent_run, request_for_agent_run
from domain.agent_runs import PortionShort, StartCall
from domain.allowances import AllowanceShort
from domain.approval_policies import PoliciesChanged
from domain.chains import StartChain, chain_id_of
from domain.errors import Unavailable, VersionConflict
from domain.failures import Retry
from domain.invocations import RequestInvocation
from domain.kernel import Command, Json
from domain.runs import GotTainted
from domain.tools import ToolChanged


class Calls:
    def __init__(
        self,
        commands: CommandLoop,
        schemas: ToolSchemas,
        known: KnownNames,
        chains: Chains,
        cached: CachedResults,
        budgets: BudgetedCalls,
    ) -> None:
        """`known`: the names of the registered tools."""
        self._commands = commands
        self._chains = chains
        self._schemas = schemas
        self._tools = ToolsToCall(commands, known)
        self._cached = cached
        self._budgets = budgets

    async def call(self, caller: Caller, command: StartCall, arguments: dict[str, Json]) -> Called:
        """Calls a tool.

        Raises:
            UnknownTool: no such tool is registered, or not the one that takes its effect back.
            InvalidCommand: the arguments do not match the tool's JSON Schema.
            NotFound, WorkOver, StaleAttempt, RepeatedDifferently, Unavailable.
        """
        agent_run_id, key = command.agent_run_id, command.key
        request = await request_for_agent_run(self._commands, caller, agent_run_id, f"call:{command.attempt}:{key}")
        state = await load_agent_run(self._commands, caller.tenant_id, agent_run_id)
        if state.attempt < command.attempt:  # it went on in another process, and calls have other ids since
            state = await load_agent_run(self._commands, caller.tenant_id, agent_run_id, fresh=True)
        assert state.requested is not None
        requested_run = state.requested
        invocation_id = state.call_id(agent_run_id, key)
        uncached = False
        for look in range(MOST_LOOKS):
            tool, current, use = await self._tools.find(caller.tenant_id, command.tool, fresh=look > 0, pointer="/tool")
            self._schemas.check_arguments(current.name, current.parameters, arguments)
            on_behalf_of = requested_run.on_behalf_of
            asker = Asker(requested_run.run_id, requested_run, on_behalf_of)
            needs = await self._chains.needs.of(caller.tenant_id, current, asker, fresh=look > 0)
            demand = needs.demand(current, arguments)
            asked_again = {} if demand is not None or uncached else {0: AskedAgain(arguments, on_behalf_of)}
            answers = await self._cached.find(caller.tenant_id, current, asked_again)
            is_chain = current.kind == "chain" and not answers
            instead = NONE
            if not answers:
                instead = await fallbacks_of(
                    self._commands, self._schemas, caller.tenant_id, current, arguments, needs, fresh=look > 0
                )
            requested = RequestInvocation(
                invocation_id=invocation_id,
                run_id=requested_run.run_id,
                agent_run_id=agent_run_id,
                key=key,
                tool=command.tool,
                tool_version=current.version,
                arguments=arguments,
                idempotent=current.idempotent,
                timeout_s=current.timeout_s,
                retry=Retry(max_attempts=current.max_attempts),
                priority=requested_run.priority,
                on_behalf_of=on_behalf_of,
                reconcile_timeout_s=current.reconcile_timeout_s,
                chain_id=chain_id_of(invocation_id) if is_chain else None,
                fallbacks=instead.tools,
                fallbacks_skipped=instead.skipped,
                compensation=None if answers else await compensation_of(self._commands, caller.tenant_id, current, needs),
                cacheable=current.rules.cache_s is not None,
                cached=answers.get(0),
                approval=demand,
                untrusted=current.untrusted_output,
            )
            begun: list[Command] = []
            if is_chain:
                begun = await self._chains.begin(caller.tenant_id, current, requested, needs, fresh=look > 0)
            paid = await self._budgets.settled(
                caller, state, command, requested, current, instead, begun, in_call=look == 0
            )  # fmt: skip
            if paid.uncached:
                uncached = True
                continue
            if not paid.goes_on:
                begun = []
            if paid.held:
                begun = [each.model_copy(update={"held": True}) if isinstance(each, StartChain) else each for each in begun]
            try:
                outcome = await self._commands.execute(
                    request, *paid.commands, *begun, use, *instead.uses, *needs.conditions, beside=paid.beside
                )  # fmt: skip
            except (ToolChanged, PoliciesChanged, GotTainted, PortionShort, AllowanceShort, VersionConflict) as error:
                if isinstance(error, VersionConflict) and not paid.beside:
                    raise
                # this process had not heard of it, or another call was faster
                state = await load_agent_run(self._commands, caller.tenant_id, agent_run_id, fresh=True)
                continue
            return Called(invocation_id, outcome, tool.warning)
        raise Unavailable(f"the tool '{command.tool}' is being changed: try again")
