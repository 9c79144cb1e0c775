"""Tool calls from the worker's side: the worker claims an attempt before it calls the tool, and reports the outcome."""

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import Caller, CommandOutcome
from application.invocations import load_invocation, request_for_invocation
from application.workers.claims import claim_name
from domain.errors import WorkOver
from domain.invocations import ClaimInvocation, CompleteInvocation, FailInvocation, Invocation


class WorkerInvocations:
    def __init__(self, commands: CommandLoop) -> None:
        self._commands = commands

    async def claim(self, caller: Caller, command: ClaimInvocation, claim: str) -> tuple[Invocation, CommandOutcome]:
        """Records the attempt before the tool is called. `claim`: see `claim_name`. Raises NotFound, WorkOver."""
        name = claim_name(command.worker_id, command.dispatch, claim)
        request = await request_for_invocation(self._commands, caller, command.invocation_id, name)
        outcome = await self._commands.execute(request, command)
        state = await load_invocation(self._commands, caller.tenant_id, command.invocation_id)
        if state.status != "started" or state.worker_id != command.worker_id:
            raise WorkOver(f"the invocation is {state.status}, claimed by {state.worker_id}")
        return state, outcome

    async def complete(self, caller: Caller, command: CompleteInvocation) -> CommandOutcome:
        """Raises NotFound, WorkOver, StaleAttempt, RepeatedDifferently."""
        return await self._report(caller, command, f"complete:{command.attempt}")

    async def fail(self, caller: Caller, command: FailInvocation) -> CommandOutcome:
        """Raises NotFound, WorkOver, StaleAttempt, RepeatedDifferently."""
        return await self._report(caller, command, f"fail:{command.attempt}")

    async def _report(self, caller: Caller, command: CompleteInvocation | FailInvocation, name: str) -> CommandOutcome:
        request = await request_for_invocation(self._commands, caller, command.invocation_id, name)
        return await self._commands.execute(request, command)
