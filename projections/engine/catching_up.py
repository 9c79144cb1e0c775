"""Read models of one process, as one group that reads the log once. A read model that is far behind first catches up by itself.

A group reads from the position of its hindmost read model, so all others would stand still until a new one has read the whole log.
"""

import asyncio
from collections.abc import Sequence

import structlog

from application.engine.background import end
from application.engine.ports.log import Subscription
from application.engine.ports.positions import PositionCalls
from application.engine.retry import persistently
from projections.engine import checkpoints
from projections.engine.kernel import Database, Projection
from projections.engine.runner import ProjectionRunner

FAR_BEHIND = 5_000
"""Events. A group reads so many again in a moment."""

log = structlog.get_logger(__name__)


class ReadModels:
    """Runs read models. The process may run others in other objects, but each read model once."""

    def __init__(
        self,
        projections: Sequence[Projection],
        database: Database,
        subscription: Subscription,
        calls: PositionCalls | None = None,
    ) -> None:
        """`calls`: how others ask for positions at once. None: nobody can."""
        self._calls = calls
        self._projections = projections
        self._database = database
        self._subscription = subscription

    async def run(self) -> None:
        """Works until cancelled; outages are waited out. Raises LostOwnership when another process took over."""
        while True:
            positions = await persistently(self._positions)
            foremost = max(positions.values(), default=0)
            late = [p for p in self._projections if foremost - positions[p.name] > FAR_BEHIND]
            if not late:
                await self._runner(self._projections).run()
                return  # a runner ends only with its subscription
            names = [projection.name for projection in late]
            log.info("read_models_catch_up", read_models=names, until=foremost)
            await self._catch_up(late, [p for p in self._projections if p.name not in names], foremost)

    async def _catch_up(self, late: Sequence[Projection], others: Sequence[Projection], until: int) -> None:
        """Runs the late ones until the position, and the others meanwhile."""
        rear = asyncio.create_task(self._runner(late).run(until=until), name="read models that catch up")
        front = asyncio.create_task(self._runner(others).run(), name="read models")
        try:
            await asyncio.wait({rear, front}, return_when=asyncio.FIRST_COMPLETED)
            for task in (rear, front):
                if task.done():
                    task.result()
        finally:
            await end(rear, front)

    def _runner(self, projections: Sequence[Projection]) -> ProjectionRunner:
        return ProjectionRunner(projections, self._database, self._subscription, self._calls)

    async def _positions(self) -> dict[str, int]:
        async with self._database.connection() as connection:
            found = await checkpoints.positions(connection)
        return {projection.name: found.get(projection.name, 0) for projection in self._projections}
