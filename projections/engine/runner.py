"""The projection loop: a batch of the log → rows and checkpoints in one transaction, so that each event takes effect exactly once.

An event that breaks a handler is parked, together with later events of its root, for that projection only. Other events go on.

A transaction for one event costs nearly as much as one for a hundred. So events wait up to `PACE_S` for company, and the first
ones after a quiet time `LINGER_S`. If somebody waits for the position of one of them, the projection that is waited for moves at
once, in a transaction of its own, and the others keep their pace.

A projection for which a batch has nothing stays where it is, within the bounds of `application/engine/staying.py`: each move of a
checkpoint leaves a version of its row behind.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from uuid import UUID

import structlog

from application.engine.asked import AskedPositions
from application.engine.gathering import Gathering
from application.engine.ports.checkpoints import Checkpoint, LostOwnership
from application.engine.ports.log import Subscription
from application.engine.ports.positions import PositionCalls
from application.engine.retry import persistently
from application.engine.staying import STAY_S, Stay
from domain.errors import Unavailable
from domain.kernel import RecordedEvent
from projections.engine import checkpoints
from projections.engine.kernel import Connection, Database, Projection, decoded_once

PACE_S = 0.08
"""Seconds between two transactions that nobody waits for. A read model is about so old under load."""
LINGER_S = 0.03
"""Seconds that the first event after a quiet time waits. On a machine with little to do, a run of a few quick steps is one
transaction so."""
AHEAD = 5
"""Full batches that are read while a transaction is under way. The next transaction has all of them: a row that several of their
events change is read and written once."""
LAST_MOVE_S = 0.5
"""Seconds that the last move of a runner may take that is cancelled."""

log = structlog.get_logger(__name__)


class ProjectionRunner:
    """Moves a group of projections along the log. It owns their checkpoints until another runner takes them."""

    def __init__(
        self,
        projections: Sequence[Projection],
        database: Database,
        subscription: Subscription,
        calls: PositionCalls | None = None,
    ) -> None:
        """`calls`: how others ask for positions at once. None: nobody can, so all projections move with each batch."""
        self._calls = calls
        self._stay = Stay(allowed=calls is not None, seconds=STAY_S)
        self._projections = {projection.name: projection for projection in projections}
        self._database = database
        self._subscription = subscription
        self._known: dict[str, Checkpoint] = {}
        self._in_doubt = False
        """The answer to a commit was lost: the runner must look whether the commit took place."""
        self._parked: set[tuple[str, UUID]] = set()

    @property
    def position(self) -> int:
        """The lowest position among the projections of the group."""
        return min((c.position for c in self._known.values()), default=0)

    async def run(self, until: int | None = None) -> None:
        """Works until cancelled, or until the position; outages are waited out.

        Raises LostOwnership when another process took over.
        """
        await persistently(self._take)
        try:
            await self._work(until)
        except asyncio.CancelledError:
            with suppress(Exception):  # the next owner reads a little more
                async with asyncio.timeout(LAST_MOVE_S):
                    await self._catch_up(self._known)
            raise

    async def _work(self, until: int | None) -> None:
        asked = AskedPositions(self._calls, lambda: {name: known.position for name, known in self._known.items()})
        source = self._subscription.batches(after=self.position, name="projections")
        hurried = frozenset[str]().union(*(projection.hurried for projection in self._projections.values()))
        gathering = Gathering(
            asked, pace_s=PACE_S, linger_s=LINGER_S, hurries=lambda event: event.topic in hurried, early=True, ahead=AHEAD
        )
        async with gathering.of(source) as gathered:
            async for batch in gathered:
                if batch and (first := asked.names(batch[-1].position)):
                    await self.handle(batch, first)
                    await asked.moved()
                if not batch:
                    wanted = self._known if self._stay.is_over() else asked.names(self._stay.passed)
                    await persistently(partial(self._catch_up, wanted))
                elif not gathered.is_early:
                    await self.handle(batch)
                await asked.moved()
                gathered.rest_at = self._stay.until
                if until is not None and max(self.position, self._stay.passed) >= until:
                    await persistently(partial(self._catch_up, self._known))
                    return

    async def _take(self) -> None:
        async with self._database.connection() as connection:
            self._known = await checkpoints.take(connection, list(self._projections))
            cursor = await connection.execute(
                "SELECT DISTINCT consumer, root_id FROM parked_event WHERE consumer = ANY (%s)", [list(self._projections)]
            )
            self._parked = {(row[0], row[1]) for row in await cursor.fetchall()}

    async def handle(self, batch: Sequence[RecordedEvent], names: Collection[str] | None = None) -> None:
        """Applies a batch to every projection that has not applied it yet. `names`: only to these, all of which move.

        Without names, a projection for which the batch has nothing may stay where it is.
        """
        last = batch[-1].position
        behind = {name: c for name, c in self._known.items() if c.position < last and (names is None or name in names)}
        if names is None and self._stay.may_last((c.position for c in behind.values()), last):
            topics = {event.topic for event in batch}
            behind = {name: c for name, c in behind.items() if not topics.isdisjoint(self._projections[name].topics)}
        if behind:
            with decoded_once():
                await self._apply_to_all(behind, batch)
        if names is None:
            self._stay.passed = max(self._stay.passed, last)
        self._note()

    async def _catch_up(self, names: Collection[str]) -> None:
        """Moves projections that have stayed behind to where the others are: up to there the log has nothing more for them."""

        async def nothing(_: Connection, __: dict[str, Checkpoint]) -> bool:
            return False

        await self._move([name for name in names if name in self._known], self._stay.passed, nothing)
        self._note()

    def _note(self) -> None:
        self._stay.note(known.position for known in self._known.values())

    async def _apply_to_all(self, behind: Collection[str], batch: Sequence[RecordedEvent]) -> None:
        try:
            await persistently(lambda: self._apply(behind, batch))
        except (LostOwnership, Unavailable):
            raise
        except Exception as error:  # noqa: BLE001  # a handler failed: the next lines find which one, and at which event
            log.warning(
                "projection_batch_failed",
                first=batch[0].position,
                last=batch[-1].position,
                error=f"{type(error).__name__}: {error}",
            )
            for name in behind:
                await self._apply_alone(name, batch)

    async def _apply(self, names: Collection[str], batch: Sequence[RecordedEvent]) -> None:
        topics = {event.topic for event in batch}

        async def rows(connection: Connection, behind: dict[str, Checkpoint]) -> bool:
            concerned = [(self._projections[name], known) for name, known in behind.items()]
            parked = [
                await self._apply_one(connection, projection, known, batch)
                for projection, known in concerned
                if not topics.isdisjoint(projection.topics)
            ]
            return any(parked)

        await self._move(names, batch[-1].position, rows)

    async def _move(
        self, names: Collection[str], position: int, write: Callable[[Connection, dict[str, Checkpoint]], Awaitable[bool]]
    ) -> None:
        """Writes rows, and moves the checkpoints of the projections that are behind the position, in one transaction.

        `write` answers whether it parked events.
        """
        if self._in_doubt:
            await self._look_again()
        behind = {name: self._known[name] for name in names if self._known[name].position < position}
        if not behind:
            return
        try:
            async with self._database.transaction() as connection:
                parked = await write(connection, behind)
                advanced = await checkpoints.advance(connection, behind, position, flushed=parked)
        except Unavailable:
            self._in_doubt = True
            raise
        self._known |= advanced

    async def _look_again(self) -> None:
        async with self._database.connection() as connection:
            found = await checkpoints.read(connection, list(self._known))
        if (reason := checkpoints.moved_away(self._known, found)) is not None:
            raise reason
        self._known, self._in_doubt = found, False

    async def _apply_one(
        self, connection: Connection, projection: Projection, known: Checkpoint, batch: Sequence[RecordedEvent]
    ) -> bool:
        """Whether events were parked."""
        events = [e for e in batch if e.position > known.position and e.topic in projection.topics]
        if not events:
            return False
        waiting = [e for e in events if (projection.name, e.root_id) in self._parked] if self._parked else []
        for event in waiting:
            await checkpoints.park(connection, projection.name, event, "an earlier event of the same root is parked")
        if waiting:
            events = [e for e in events if (projection.name, e.root_id) not in self._parked]
        if events:
            await projection.apply(connection, events)
        return bool(waiting)

    async def _apply_alone(self, name: str, batch: Sequence[RecordedEvent]) -> None:
        """Applies a batch to one projection. If that fails, applies event by event and parks each event that fails."""
        try:
            await persistently(lambda: self._apply([name], batch))
            return
        except (LostOwnership, Unavailable):
            raise
        except Exception as error:  # noqa: BLE001  # the next lines find the event
            log.warning("projection_falls_back_to_single_events", projection=name, error=f"{type(error).__name__}: {error}")
        for event in batch:
            try:
                await persistently(partial(self._apply, [name], [event]))
            except (LostOwnership, Unavailable):
                raise
            except Exception as error:  # noqa: BLE001  # this event fails: it is parked
                await self._park(name, event, error)

    async def _park(self, name: str, event: RecordedEvent, error: Exception) -> None:
        log.error(
            "event_parked", projection=name, position=event.position, topic=event.topic, root_id=str(event.root_id), exc_info=error
        )

        async def note(connection: Connection, _: dict[str, Checkpoint]) -> bool:
            await checkpoints.park(connection, name, event, f"{type(error).__name__}: {error}")
            return True

        await persistently(lambda: self._move([name], event.position, note))
        self._parked.add((name, event.root_id))
