"""What operators do with read models: the port `ProjectionOperations`, over the database of the read models."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from application.engine.ports.log import EventFeed
from application.engine.ports.parked import Retried
from application.engine.ports.positions import ConsumerPositions
from application.engine.ports.projections import Kind, PreviousView, ProblemView, ProjectionView, Purpose
from application.engine.staying import asked_to_move
from domain.errors import NotFound
from projections.engine import checkpoints, parked
from projections.engine.kernel import Connection, Database, Projection
from projections.engine.plugins import Discovery
from projections.engine.rebuild import jobs


class Operations:
    """The port `ProjectionOperations`. `ours`: read models of this distribution; `plugins`: what installed distributions bring."""

    def __init__(
        self, database: Database, feed: EventFeed, ours: Sequence[Projection], plugins: Discovery, calls: ConsumerPositions
    ) -> None:
        self._calls = calls
        self._database = database
        self._feed = feed
        self._ours = tuple(ours)
        self._plugins = plugins

    def must_know(self, name: str) -> None:
        self._known(name)

    def problems(self) -> list[ProblemView]:
        return [ProblemView(entry_point=p.entry_point, distribution=p.distribution, error=p.error) for p in self._plugins.problems]

    async def list(self) -> Sequence[ProjectionView]:
        return await self._views(self._all())

    async def view(self, name: str) -> ProjectionView:
        [view] = await self._views([self._known(name)])
        return view

    async def ask(self, name: str, kind: Kind, *, swap: bool = False) -> ProjectionView:
        projection = self._known(name)
        async with self._database.connection() as connection, connection.transaction():
            await jobs.ask(connection, projection, kind, swap=swap)
        return await self.view(name)

    async def ask_swap(self, name: str) -> ProjectionView:
        self.must_know(name)
        async with self._database.connection() as connection, connection.transaction():
            await jobs.ask_swap(connection, name)
        return await self.view(name)

    async def cancel(self, name: str, purpose: Purpose) -> ProjectionView:
        projection = self._known(name)
        async with self._database.connection() as connection, connection.transaction():
            await jobs.cancel(connection, projection, purpose)
        return await self.view(name)

    async def drop_previous(self, name: str) -> ProjectionView:
        projection = self._known(name)
        async with self._database.connection() as connection, connection.transaction():
            await jobs.drop_previous(connection, projection)
        return await self.view(name)

    async def retry_parked(self, name: str, root_id: UUID) -> Retried:
        return await parked.retry(self._database, self._feed, self._known(name), root_id)

    def _all(self) -> tuple[Projection, ...]:
        return self._ours + self._plugins.projections

    def _known(self, name: str) -> Projection:
        for projection in self._all():
            if projection.name == name:
                return projection
        raise NotFound(f"there is no projection '{name}'")

    async def _views(self, projections: Sequence[Projection]) -> Sequence[ProjectionView]:
        head = await self._feed.head()
        async with self._database.connection() as connection:
            found = await checkpoints.positions(connection)
        await asked_to_move(self._calls, {p.name: found.get(p.name, 0) for p in projections}, head)
        async with self._database.connection() as connection:
            return await _views(connection, head, projections, self._plugins.sources)


async def _views(
    connection: Connection, head: int, projections: Sequence[Projection], sources: dict[str, str]
) -> list[ProjectionView]:
    positions, waiting = await checkpoints.positions(connection), await checkpoints.parked(connection)
    under_way = {(build.projection, build.purpose): jobs.view_of(build) for build in await jobs.every(connection)}
    kept = await jobs.kept(connection)
    return [
        ProjectionView(
            name=p.name, tables=list(p.tables), plugin=sources.get(p.name), position=positions.get(p.name, 0),
            lag=max(head - positions.get(p.name, 0), 0), parked=waiting.get(p.name, 0), build=under_way.get((p.name, "version")),
            check=under_way.get((p.name, "check")), previous=_previous(kept.get(p.name)),
        )
        for p in projections
    ]  # fmt: skip


def _previous(kept: tuple[int, datetime] | None) -> PreviousView | None:
    return PreviousView(position=kept[0], replaced_at=kept[1]) if kept is not None else None
