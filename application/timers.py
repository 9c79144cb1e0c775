"""Durable timers: due ones become commands, each with an id derived from the timer, so that firing twice is firing once."""

import asyncio
from collections.abc import Mapping
from functools import partial

import structlog

from application.dispatch import CommandLoop, Request
from application.patience import persistently
from application.ports import DueTimer, OpenWork, Timers, WorkQueue
from application.routes import ROUTES
from domain.kernel import Command, derive_id

COMMANDS = {command.__name__: command for command in ROUTES}
BATCH = 100
LONGEST_WAIT_S = 60.0
SWEEP_EVERY_S = 30.0
SWEEP_OLDER_THAN_S = 15.0
SWEEP_PAGE = 500

log = structlog.get_logger(__name__)


class TimerService:
    """Fires durable timers. Sleeps until the next one is due or a new one is set."""

    def __init__(self, commands: CommandLoop, timers: Timers, *, kinds: Mapping[str, type[Command]] = COMMANDS) -> None:
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
        request = Request(
            tenant_id=timer.tenant_id,
            actor="timer",
            command_id=derive_id(timer.timer_id, "fired"),
            correlation_id=timer.correlation_id,
            causation_id=timer.cause,
        )
        try:
            command = self._kinds[timer.command].model_validate_json(timer.payload)
            await persistently(lambda: self._commands.execute(request, command))
        except Exception as error:  # refused, or a stream that cannot be folded: later timers must fire
            log.error("timer_dropped", command=timer.command, root_id=str(timer.root_id), exc_info=error)


class WorkSweeper:
    """Puts open work on the queue again, in case the queue lost it. What still waits there is left alone by the queue itself."""

    def __init__(self, open_work: OpenWork, queue: WorkQueue) -> None:
        self._open_work = open_work
        self._queue = queue

    async def run(self) -> None:
        while True:
            await persistently(self.sweep)
            await asyncio.sleep(SWEEP_EVERY_S)

    async def sweep(self) -> None:
        after = None
        while True:
            page = await self._open_work.older_than(SWEEP_OLDER_THAN_S, after=after, limit=SWEEP_PAGE)
            if not page:
                return
            await self._queue.publish(page)
            after = page[-1].work_id
