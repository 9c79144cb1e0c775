"""Retries of the sagas' parked events. The reactions have the same command ids as before, so no reaction takes effect twice."""

from collections.abc import Sequence
from uuid import UUID

from application.engine.catalog import Catalog
from application.engine.commands.loop import CommandLoop
from application.engine.ports.log import EventFeed
from application.engine.ports.parked import ParkedEvents, Retried
from application.engine.ports.queue import WorkQueue
from application.engine.sagas.manager import effects_of


class SagaRetry:
    """Executes the reactions to parked events again. An outage is not waited out: the caller gets the error."""

    def __init__(self, commands: CommandLoop, queue: WorkQueue, catalog: Catalog, feed: EventFeed, parked: ParkedEvents) -> None:
        self._commands = commands
        self._queue = queue
        self._catalog = catalog
        self._feed = feed
        self._parked = parked

    async def retry(self, consumers: Sequence[str], root_id: UUID) -> Retried:
        """Executes the reactions to a root's parked events, in order, up to the first event that fails again.

        Raises Unavailable.
        """
        positions = await self._parked.positions(consumers, root_id)
        if not positions:
            return Retried(root_id, 0)
        done: list[int] = []
        error = None
        for event in await self._feed.at(positions):
            try:
                for effect in effects_of(event, self._catalog, self._commands, self._queue):
                    await effect()
            except Exception as refused:  # noqa: BLE001  # after any error the event stays parked, and the answer has the error
                error = f"{type(refused).__name__}: {refused}"
                break
            done.append(event.position)
        await self._parked.unpark(consumers, root_id, done)
        return Retried(root_id, len(positions), error)
