"""Open work over the table that the projection `work` keeps."""

from uuid import UUID

from adapters.postgres.database import Database
from application.engine.ports.queue import WorkItem


class PostgresOpenWork:
    """The `OpenWork` port over the table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def older_than(self, seconds: float, *, after: UUID | None, limit: int) -> list[WorkItem]:
        sql = """
        SELECT tenant_id, kind, pool, work_id, dispatch, root_id, priority FROM open_work
        WHERE (dispatched_at < now() - make_interval(secs => %(seconds)s)
               OR dispatched_at > now() + make_interval(secs => %(seconds)s))
          AND session_id IS NULL
          AND (%(after)s::uuid IS NULL OR work_id > %(after)s)
        ORDER BY work_id LIMIT %(limit)s
        """
        async with self._database.connection() as connection:
            cursor = await connection.execute(sql, {"seconds": seconds, "after": after, "limit": limit})
            return [WorkItem(*row) for row in await cursor.fetchall()]
