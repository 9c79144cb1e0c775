"""Durable timers: a due timer becomes a command whose id is derived from the timer, so that firing twice changes nothing.

A command that is refused, or that cannot be made, is parked as the event that set the timer: operators see and retry the event as
they do with parked events of sagas.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from uuid import UUID

import structlog

from application.engine.background import side_by_side
from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandRequest
from application.engine.ports.timers import DueTimer, Timers
from application.engine.retry import persistently
from application.engine.retry_parked import Effect
from domain.kernel import Command, RecordedEvent, derive_id

BATCH = 1_000
MAX_ROOTS_AT_ONCE = 64
LONGEST_WAIT_S = 60.0

Kinds = Mapping[str, type[Command]]
"""Name of a command's class → the class (`Catalog.commands`)."""

log = structlog.get_logger(__name__)


class TimerService:
    """Fires durable timers. Sleeps until the next timer is due or a new one is set.

    Timers of one root fire in the order of their time, different roots side by side.
    """

    def __init__(self, commands: CommandLoop, timers: Timers, *, kinds: Kinds) -> None:
        self._commands = commands
        self._timers = timers
        self._kinds = kinds

    async def run(self) -> None:
        while True:
            due = await persistently(lambda: self._timers.due(BATCH))
            if due:
                await self._fire_all(due)
                continue
            pause = await persistently(self._timers.seconds_until_next)
            await self._timers.wait_for_change(LONGEST_WAIT_S if pause is None else min(max(pause, 0.0), LONGEST_WAIT_S))

    async def _fire_all(self, due: Sequence[DueTimer]) -> None:
        gate = asyncio.Semaphore(MAX_ROOTS_AT_ONCE)
        fired: list[UUID] = []

        async def in_order(timers: Sequence[DueTimer]) -> None:
            async with gate:
                for timer in timers:
                    if await self._fire(timer):
                        fired.append(timer.timer_id)

        by_root = groupby(sorted(due, key=lambda timer: timer.root_id.int), key=lambda timer: timer.root_id)
        await side_by_side(*(in_order(list(timers)) for _, timers in by_root))
        if fired:
            await persistently(partial(self._timers.delete, fired))

    async def _fire(self, timer: DueTimer) -> bool:
        """Whether the timer's command has been executed. If not, the timer is parked."""
        try:
            await persistently(effect_of(timer, self._commands, self._kinds))
        except Exception as error:  # refused, or a stream that cannot be folded: the other timers must still fire
            log.error("timer_parked", command=timer.command, root_id=str(timer.root_id), cause=timer.cause, exc_info=error)
            await persistently(partial(self._timers.park, timer, f"{timer.command}: {type(error).__name__}: {error}"))
            return False
        return True


def effect_of(timer: DueTimer, commands: CommandLoop, kinds: Kinds) -> Effect:
    """What a timer does. May be done again. Raises for a command that this release cannot make."""
    request = CommandRequest(
        tenant_id=timer.tenant_id,
        actor="timer",
        command_id=derive_id(timer.timer_id, "fired"),
        correlation_id=timer.correlation_id,
        causation_id=timer.cause,
        goes_on=True,
    )
    return partial(commands.execute, request, kinds[timer.command].model_validate_json(timer.payload))


def effects_again(
    recorded: RecordedEvent, timer_of: Callable[[RecordedEvent], DueTimer | None], commands: CommandLoop, kinds: Kinds
) -> list[Effect]:
    """What the timer of a parked event does, made anew from the event. `timer_of`: the timer that an event sets."""
    timer = timer_of(recorded)
    if timer is None:
        raise LookupError(f"in this release a {recorded.topic} event sets no timer")
    return [effect_of(timer, commands, kinds)]
