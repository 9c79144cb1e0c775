"""The projection loop: a batch of the log → rows and checkpoints in one transaction. That is the exactly-once effect.

An event that breaks a handler is parked together with later ones of its root, for that projection only; the rest goes on.
"""

from collections.abc import Sequence
from uuid import UUID

import structlog

from application.patience import persistently
from application.ports import Checkpoint, LostOwnership, Subscription
from domain.errors import Unavailable
from domain.kernel import RecordedEvent
from projections import checkpoints
from projections.kernel import Connection, Database, Projection

log = structlog.get_logger(__name__)


class ProjectionRunner:
    """Moves a group of projections along the log. The owner of their checkpoints; a second runner takes them away from it."""

    def __init__(self, projections: Sequence[Projection], database: Database, subscription: Subscription) -> None:
        self._projections = {projection.name: projection for projection in projections}
        self._database = database
        self._subscription = subscription
        self._known: dict[str, Checkpoint] = {}
        self._parked: set[tuple[str, UUID]] = set()

    @property
    def position(self) -> int:
        """The position that all projections of the group have reached."""
        return min((c.position for c in self._known.values()), default=0)

    async def run(self) -> None:
        """Works until cancelled; outages are waited out. Raises LostOwnership when another process took over."""
        await persistently(self._take)
        async for batch in self._subscription.batches(after=self.position, name="projections"):
            await self.handle(batch)

    async def _take(self) -> None:
        async with self._database.connection() as connection:
            self._known = await checkpoints.take(connection, list(self._projections))
            cursor = await connection.execute(
                "SELECT DISTINCT consumer, root_id FROM parked_event WHERE consumer = ANY (%s)", [list(self._projections)]
            )
            self._parked = {(row[0], row[1]) for row in await cursor.fetchall()}

    async def handle(self, batch: Sequence[RecordedEvent]) -> None:
        """Applies a batch to every projection that has not had it yet."""
        behind = {name: c for name, c in self._known.items() if c.position < batch[-1].position}
        if not behind:
            return
        try:
            await persistently(lambda: self._apply(behind, batch))
        except (LostOwnership, Unavailable):
            raise
        except Exception as error:  # noqa: BLE001  # some handler broke on something: find out which and on what
            log.warning("projection_batch_failed", first=batch[0].position, last=batch[-1].position, error=str(error))
            for name, known in behind.items():
                await self._apply_alone(name, known, batch)

    async def _apply(self, behind: dict[str, Checkpoint], batch: Sequence[RecordedEvent]) -> None:
        async with self._database.transaction() as connection:
            for name, known in behind.items():
                await self._apply_one(connection, self._projections[name], known, batch)
            advanced = await checkpoints.advance(connection, behind, batch[-1].position)
        self._known |= advanced

    async def _apply_one(
        self, connection: Connection, projection: Projection, known: Checkpoint, batch: Sequence[RecordedEvent]
    ) -> None:
        events = [e for e in batch if e.position > known.position and e.topic in projection.topics]
        if not events:
            return
        waiting = [e for e in events if (projection.name, e.root_id) in self._parked] if self._parked else []
        for event in waiting:
            await checkpoints.park(connection, projection.name, event, "an earlier event of the same root is parked")
        if waiting:
            events = [e for e in events if (projection.name, e.root_id) not in self._parked]
        if events:
            await projection.apply(connection, events)

    async def _apply_alone(self, name: str, known: Checkpoint, batch: Sequence[RecordedEvent]) -> None:
        """One projection by itself; where even that fails, event by event, parking what breaks."""
        try:
            await persistently(lambda: self._apply({name: known}, batch))
            return
        except (LostOwnership, Unavailable):
            raise
        except Exception as error:  # noqa: BLE001  # narrowed down in the next lines
            log.warning("projection_falls_back_to_single_events", projection=name, error=str(error))
        for event in batch:
            current = self._known[name]
            if event.position <= current.position:
                continue
            try:
                await persistently(lambda current=current, event=event: self._apply({name: current}, [event]))  # type: ignore[misc]
            except (LostOwnership, Unavailable):
                raise
            except Exception as error:  # noqa: BLE001  # this is the event: put it aside
                await persistently(lambda current=current, event=event, error=error: self._park(name, current, event, error))  # type: ignore[misc]

    async def _park(self, name: str, known: Checkpoint, event: RecordedEvent, error: Exception) -> None:
        log.error(
            "event_parked", projection=name, position=event.position, topic=event.topic, root_id=str(event.root_id), exc_info=error
        )
        async with self._database.transaction() as connection:
            await checkpoints.park(connection, name, event, f"{type(error).__name__}: {error}")
            advanced = await checkpoints.advance(connection, {name: known}, event.position)
        self._known |= advanced
        self._parked.add((name, event.root_id))
