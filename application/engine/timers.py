"""Durable timers: a due timer becomes a command whose id is derived from the timer, so that firing twice changes nothing."""

from collections.abc import Mapping
from functools import partial

import structlog

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandRequest
from application.engine.ports.timers import DueTimer, Timers
from application.engine.retry import persistently
from domain.kernel import Command, derive_id

BATCH = 100
LONGEST_WAIT_S = 60.0

log = structlog.get_logger(__name__)


class TimerService:
    """Fires durable timers. Sleeps until the next timer is due or a new one is set."""

    def __init__(self, commands: CommandLoop, timers: Timers, *, kinds: Mapping[str, type[Command]]) -> None:
        """`kinds`: name of a command's class → the class (`Catalog.commands`)."""
        self._commands = commands
        self._timers = timers
        self._kinds = kinds

    async def run(self) -> None:
        while True:
            due = await persistently(lambda: self._timers.due(BATCH))
            if due:
                for timer in due:
                    await self._fire(timer)
                await persistently(partial(self._timers.delete, [timer.timer_id for timer in due]))
                continue
            pause = await persistently(self._timers.seconds_until_next)
            await self._timers.wait_for_change(LONGEST_WAIT_S if pause is None else min(max(pause, 0.0), LONGEST_WAIT_S))

    async def _fire(self, timer: DueTimer) -> None:
        request = CommandRequest(
            tenant_id=timer.tenant_id,
            actor="timer",
            command_id=derive_id(timer.timer_id, "fired"),
            correlation_id=timer.correlation_id,
            causation_id=timer.cause,
        )
        try:
            command = self._kinds[timer.command].model_validate_json(timer.payload)
            await persistently(lambda: self._commands.execute(request, command))
        except Exception as error:  # refused, or a stream that cannot be folded: later timers must still fire
            log.error("timer_dropped", command=timer.command, root_id=str(timer.root_id), exc_info=error)
