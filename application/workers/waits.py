"""Waits of agents: beginning one, and the agent run that leaves its worker meanwhile."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import Caller, CommandOutcome
from application.workers.agent_runs import load_agent_run, request_for_agent_run
from domain import agent_runs
from domain.agent_runs import OpenReceive, StartWait, SuspendAgentRun


class AgentWaits:
    def __init__(self, commands: CommandLoop) -> None:
        self._commands = commands

    async def start(self, caller: Caller, command: StartWait) -> CommandOutcome:
        """Begins a wait, once for its key. Raises NotFound, WorkOver, StaleAttempt, InvalidState, InvalidCommand."""
        name = f"wait:{command.attempt}:{command.key}"
        request = await request_for_agent_run(self._commands, caller, command.agent_run_id, name)
        return await self._commands.execute(request, command)

    async def suspend(
        self,
        caller: Caller,
        agent_run_id: UUID,
        attempt: int,
        seen: int,
        receives: Sequence[tuple[str, float | None, str | None]],
    ) -> tuple[bool, CommandOutcome]:
        """The agent run leaves its worker. False: something has come that the worker has not heard of, and the worker goes on.

        `receives`: key, seconds left and sender of each open `receive`. Raises NotFound, WorkOver, StaleAttempt, InvalidState.
        """
        now = datetime.now(UTC)
        command = SuspendAgentRun(
            agent_run_id=agent_run_id,
            attempt=attempt,
            seen=seen,
            receives=tuple(
                OpenReceive(key=key, until=None if left is None else now + timedelta(seconds=left), sender=sender)
                for key, left, sender in receives
            ),
        )
        request = await request_for_agent_run(self._commands, caller, agent_run_id, f"suspend:{attempt}")
        outcome = await self._commands.execute(request, command)
        state = await load_agent_run(self._commands, caller.tenant_id, agent_run_id, fresh=outcome.duplicate)
        goes_on = state.status == "running" and state.attempt == attempt
        return not goes_on and state.status not in agent_runs.TERMINAL, outcome
