"""How far agents are, as they say. Some of it is recorded: the newest, and not too often."""

import time
from collections import OrderedDict
from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import Caller, CommandOutcome
from application.workers.agent_runs import load_agent_run, request_for_agent_run
from domain.agent_runs import ReportProgress

AT_ONCE, A_SECOND = 5.0, 1.0
"""Notes of one agent run that are recorded in a row, and how many more with each second. Workers of the SDK say less."""
MOST_KNOWN = 10_000


class ProgressNotes:
    def __init__(self, commands: CommandLoop) -> None:
        self._commands = commands
        self._left: OrderedDict[UUID, tuple[float, float]] = OrderedDict()
        """Agent run → how many notes are free, and since when."""

    async def report(self, caller: Caller, command: ReportProgress) -> CommandOutcome | None:
        """Records a note, if it says something new. None: notes of the agent run come too often, and this one is left out.

        Raises NotFound, WorkOver, StaleAttempt.
        """
        if not self._is_free(command.agent_run_id):
            return None
        state = await load_agent_run(self._commands, caller.tenant_id, command.agent_run_id)
        name = f"progress:{command.attempt}:{state.version}"
        return await self._commands.execute(
            await request_for_agent_run(self._commands, caller, command.agent_run_id, name), command
        )

    def _is_free(self, agent_run_id: UUID) -> bool:
        now = time.monotonic()
        left, since = self._left.pop(agent_run_id, (AT_ONCE, now))
        left = min(AT_ONCE, left + (now - since) * A_SECOND)
        self._left[agent_run_id] = (left - 1 if left >= 1 else left, now)
        if len(self._left) > MOST_KNOWN:
            self._left.popitem(last=False)
        return left >= 1
