"""Projects of a tenant."""

from collections.abc import Sequence
from uuid import UUID

from pydantic import BaseModel

from domain.kernel import Json, RecordedEvent
from domain.projects import ProjectCreated
from projections.kernel import Connection, Projection, Timestamp, by_topic, decoded, dump_json, load_json, topics_of
from projections.pages import Page, encode_cursor


class ProjectView(BaseModel):
    project_id: UUID
    name: str
    metadata: dict[str, Json]
    created_at: Timestamp


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


PROJECTION = Projection("projects", topics_of(ProjectCreated), ("project",), by_topic((ProjectCreated, on_project_created)))


async def list_projects(connection: Connection, tenant_id: UUID, *, limit: int, after: UUID | None) -> Page[ProjectView]:
    sql = """
    SELECT project_id, name, metadata, created_at FROM project
    WHERE tenant_id = %(tenant)s AND (%(after)s::uuid IS NULL OR project_id > %(after)s) ORDER BY project_id LIMIT %(limit)s
    """
    rows = await (await connection.execute(sql, {"tenant": tenant_id, "after": after, "limit": limit + 1})).fetchall()
    data = [ProjectView(project_id=i, name=n, metadata=load_json(m), created_at=at) for i, n, m, at in rows[:limit]]
    return Page(data, encode_cursor(str(data[-1].project_id)) if len(rows) > limit else None)
