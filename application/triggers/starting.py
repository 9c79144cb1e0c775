"""Starting what a trigger names (`domain.starting.Target`): a run, or a call of a tool without a run. Or a signal to a run."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from application.budgets.books import given_budget
from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandOutcome, CommandRequest
from application.plans.capabilities import KnownAgents
from application.runs.admission import RunAdmission
from application.runs.signals import signal_of
from application.runs.start import StartedDifferently
from application.runs.terms import Terms
from application.starting import plan_of
from application.workflows import AskedWorkflow, Workflows
from domain import runs
from domain.errors import AlreadyExists, NotFound, RepeatedDifferently
from domain.kernel import Command, Json
from domain.starting import Target

if TYPE_CHECKING:
    from application.calls import ClientCalls


class StartedTarget(NamedTuple):
    id: UUID
    """Of the run or the call."""
    outcome: CommandOutcome | None
    """None: it was started before, by the same cause and in another form. The first start stands."""


class Starter:
    """Starts targets. The id of what is started is made by the caller, of the cause, so each cause starts it once."""

    def __init__(
        self,
        commands: CommandLoop,
        agents: KnownAgents,
        admission: RunAdmission,
        workflows: Workflows,
        calls: "Callable[[], ClientCalls]",
    ) -> None:
        """`agents`: the names of the registered agents, for the refusal of a misspelt one. `calls`: asked for with the first call,
        since what checks arguments is large."""
        self._commands = commands
        self._agents = agents
        self._admission = admission
        self._workflows = workflows
        self._calls = calls

    async def start(
        self, request: CommandRequest, target: Target, input: Json, *, id: UUID, project_id: UUID, origin: runs.Origin
    ) -> StartedTarget:
        """Starts the target with an input. What goes along with the request goes into the same append. `origin`: what starts it.

        Raises what `Workflows.start` and `ClientCalls.call` raise, but nothing for a start that was recorded before.
        """
        try:
            if target.tool is not None:
                outcome = await self._call(request, target.tool, target, input, id, tainted=origin.kind == "webhook")
            else:
                outcome = await self._run(request, target, input, id, project_id, origin)
        except (StartedDifferently, RepeatedDifferently):
            return StartedTarget(id, None)
        except AlreadyExists:
            if (await self._commands.history(request.tenant_id, id)) and request.command_id == id:
                return StartedTarget(id, None)  # of the same cause, so long ago that the log has forgotten the command
            raise
        return StartedTarget(outcome.begun(id)[0], outcome)

    async def signal(
        self, request: CommandRequest, target: Target, payload: Json, run_id: UUID, *, id: UUID, project_id: UUID,
        origin: runs.Origin,
    ) -> StartedTarget:  # fmt: skip
        """Sends a run of the project the signal of the target, once for its id. What a webhook brings is untrusted.

        Raises NotFound, InvalidState: the run has ended; TooManySignals, InvalidCommand.
        """
        signal = target.signal
        assert signal is not None
        run: runs.Run = (await self._commands.load(runs.DECIDER, request.tenant_id, run_id)).state
        if run.project_id != project_id:
            raise NotFound(f"there is no run {run_id} in the project of the trigger")
        of = signal_of(run_id, signal.name, payload, signal.step, None, id)
        commands: list[Command] = [of.model_copy(update={"depth": origin.depth})]
        if origin.kind == "webhook":
            commands.insert(0, runs.TaintRun(run_id=run_id, invocation_id=of.signal_id, key=f"signal:{signal.name}"))
        try:
            outcome = await self._commands.execute(request, *commands)
        except RepeatedDifferently:
            return StartedTarget(run_id, None)
        return StartedTarget(run_id, outcome)

    async def _run(
        self, request: CommandRequest, target: Target, input: Json, run_id: UUID, project_id: UUID, origin: runs.Origin
    ) -> CommandOutcome:
        terms = Terms(target.deadline_s, target.concurrency)
        budget = await given_budget(self._commands, request.tenant_id, target.budget)
        if target.workflow is not None:
            asked = AskedWorkflow(
                target.workflow, target.version, input, target.priority, target.compensate, target.metadata or None
            )  # fmt: skip
            return await self._workflows.start(
                request, asked, run_id=run_id, project_id=project_id, origin=origin, terms=terms, budget=budget, known=self._agents,
                admission=self._admission,
            )  # fmt: skip
        return await self._workflows.start_plan(
            request,
            run_id=run_id,
            project_id=project_id,
            plan=plan_of(target),
            input=input,
            metadata=target.metadata,
            priority=target.priority or "normal",
            compensate=target.compensate or "never",
            origin=origin,
            terms=terms,
            budget=budget,
            known=self._agents,
            admission=self._admission,
        )

    async def _call(
        self, request: CommandRequest, tool: str, target: Target, input: Json, id: UUID, *, tainted: bool
    ) -> CommandOutcome:
        from application.calls import WantedCall

        wanted = WantedCall(request, id, str(id), input, target.priority or "normal", tainted=tainted)
        return (await self._calls().call(tool, wanted)).outcome
