"""Retries of parked events whose effects are commands or work: those of sagas, and those whose timers could not fire.

The effects have the same command ids as before, so none takes effect twice.
"""

from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from application.engine.ports.log import EventFeed
from application.engine.ports.parked import ParkedEvents, Retried
from domain.kernel import RecordedEvent

Effect = Callable[[], Awaitable[object]]


class EffectRetry:
    """Brings about the effects of parked events again. An outage is not waited out: the caller gets the error."""

    def __init__(self, effects_of: Callable[[RecordedEvent], list[Effect]], feed: EventFeed, parked: ParkedEvents) -> None:
        """`effects_of`: what is to be done because of an event, in order. It may raise anything."""
        self._effects_of = effects_of
        self._feed = feed
        self._parked = parked

    async def retry(self, consumers: Sequence[str], root_id: UUID) -> Retried:
        """Brings about the effects of a root's parked events, in order, up to the first event that fails again.

        Raises Unavailable.
        """
        positions = await self._parked.positions(consumers, root_id)
        if not positions:
            return Retried(root_id, 0)
        done: list[int] = []
        error = None
        for event in await self._feed.at(positions):
            try:
                for effect in self._effects_of(event):
                    await effect()
            except Exception as refused:  # noqa: BLE001  # after any error the event stays parked, and the answer has the error
                error = f"{type(refused).__name__}: {refused}"
                break
            done.append(event.position)
        await self._parked.unpark(consumers, root_id, done)
        return Retried(root_id, len(positions), error)
