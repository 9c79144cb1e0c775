"""The end of an attempt: a worker reports the result or the failure of an agent run."""

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import Caller, CommandOutcome, CommandRequest
from application.workers.agent_runs import load_agent_run, request_for_agent_run
from domain.agent_runs import TERMINAL, CompleteAgentRun, FailAgentRun


class Outcomes:
    def __init__(self, commands: CommandLoop) -> None:
        self._commands = commands

    async def complete(self, caller: Caller, command: CompleteAgentRun) -> CommandOutcome:
        """Records the result. Raises NotFound, WorkOver, StaleAttempt, RepeatedDifferently."""
        name = f"complete:{command.attempt}"
        request = await request_for_agent_run(self._commands, caller, command.agent_run_id, name)
        return await self._ended(request, command)

    async def fail(self, caller: Caller, command: FailAgentRun) -> tuple[CommandOutcome, bool]:
        """Records the failure. Also returns whether another attempt follows. A repeated report gets the same answer.

        Raises NotFound, WorkOver, StaleAttempt, RepeatedDifferently.
        """
        request = await request_for_agent_run(self._commands, caller, command.agent_run_id, f"fail:{command.attempt}")
        outcome = await self._ended(request, command)
        state = await load_agent_run(self._commands, caller.tenant_id, command.agent_run_id)
        return outcome, state.attempt > command.attempt or state.status not in TERMINAL

    async def _ended(self, request: CommandRequest, command: CompleteAgentRun | FailAgentRun) -> CommandOutcome:
        """The budgets of days hear in the same append of what the agent run has spent of them, unless many append to them now."""
        state = await load_agent_run(self._commands, request.tenant_id, command.agent_run_id)
        roots = state.shared_roots if state.purses else ()
        if roots and self._commands.is_crowded(request.tenant_id, roots[0]):
            roots = ()
        return await self._commands.execute(request, command, beside=roots)
