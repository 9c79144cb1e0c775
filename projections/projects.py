"""Projects of a tenant."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from application.engine.ports.pages import Page, encode_cursor
from application.reads import Positioned
from application.views.projects import ProjectView
from domain.kernel import Json, RecordedEvent
from domain.projects import ProjectCreated, ProjectRemoved
from projections.engine.checkpoints import reading
from projections.kernel import (
    Connection,
    Database,
    Projection,
    by_topic,
    decoded,
    dump_json,
    listed,
    load_json,
    topics_of,
)


async def on_project_created(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    sql = """
    INSERT INTO project (project_id, tenant_id, name, metadata, created_at)
    SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::text[], %s::text[], %s::timestamptz[])
    """
    projects = [decoded(e) for e in batch]
    await connection.execute(
        sql,
        (
            [e.stream_id for e in batch],
            [e.tenant_id for e in batch],
            [p.name for p in projects],
            [dump_json(p.metadata) for p in projects],
            [e.recorded_at for e in batch],
        ),
    )


async def on_project_removed(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    """The list has the projects in which runs can be started. The events keep the others."""
    await connection.execute("DELETE FROM project WHERE project_id = ANY (%s)", ([e.stream_id for e in batch],))


PROJECTION = Projection(
    "projects",
    topics_of(ProjectCreated, ProjectRemoved),
    ("project",),
    by_topic((ProjectCreated, on_project_created), (ProjectRemoved, on_project_removed)),
)


async def list_projects(
    connection: Connection, tenant_id: UUID, *, limit: int, after: UUID | None, within: Sequence[UUID] | None = None
) -> Page[ProjectView]:
    sql = """
    SELECT project_id, name, metadata, created_at FROM project
    WHERE tenant_id = %(tenant)s AND (%(after)s::uuid IS NULL OR project_id > %(after)s)
    AND (%(within)s::uuid[] IS NULL OR project_id = ANY (%(within)s)) ORDER BY project_id LIMIT %(limit)s
    """
    wanted = {"tenant": tenant_id, "after": after, "limit": limit + 1, "within": None if within is None else list(within)}
    rows = await (await connection.execute(sql, wanted)).fetchall()
    data = [_listed(row) for row in rows[:limit]]
    return Page(data, encode_cursor(str(data[-1].project_id)) if len(rows) > limit else None)


def _listed(row: Sequence[Any]) -> ProjectView:
    def view(metadata: dict[str, Json], *, unreadable: bool = False) -> ProjectView:
        return ProjectView(project_id=row[0], name=row[1], metadata=metadata, created_at=row[3], unreadable=unreadable)

    return listed("project", row[0], lambda: view(load_json(row[2])), lambda: view({}, unreadable=True))


class ProjectQueries:
    """The port `ProjectReads`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(
        self, tenant_id: UUID, *, limit: int, after: UUID | None, within: Sequence[UUID] | None = None
    ) -> Positioned[Page[ProjectView]]:
        async with reading(self._database, PROJECTION.name, tenant_id) as (connection, position):
            return Positioned(await list_projects(connection, tenant_id, limit=limit, after=after, within=within), position)
