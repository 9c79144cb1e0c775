"""Sessions of workers as two processes see them, in memory and on PostgreSQL."""

from typing import Any, Protocol
from uuid import UUID

from adapters.postgres.database import PostgresDatabase
from adapters.postgres.pool import Pool
from adapters.postgres.read_models.open_work import PostgresOpenWork
from adapters.postgres.worker_sessions import PostgresWorkerSessions
from application.engine.ports.queue import OpenWork, WorkItem
from application.engine.ports.sessions import WorkerSessions
from tests.kit.memory import ManualClock, MemoryLog, MemoryOpenWork, MemoryWorkerSessions, SessionBoard


class SessionSide(Protocol):
    """Sessions as two processes see them, the work that sessions have claimed, and the time that passes."""

    one: WorkerSessions
    other: WorkerSessions
    open_work: OpenWork

    async def claimed(self, item: WorkItem, session_id: UUID, attempt: int = 1) -> None:
        """The read model learns that a session has claimed a piece of work, dispatched at this moment."""
        ...

    async def waits(self, item: WorkItem) -> None:
        """The read model learns that a piece of work was dispatched at this moment."""
        ...

    async def closed(self, work_id: UUID) -> None: ...

    async def pass_time(self, seconds: float) -> None: ...


class MemorySessionSide:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.open_work = MemoryOpenWork(MemoryLog(self.clock))
        board = SessionBoard(self.open_work)
        self.one, self.other = MemoryWorkerSessions(board), MemoryWorkerSessions(board)

    async def claimed(self, item: WorkItem, session_id: UUID, attempt: int = 1) -> None:
        self.open_work.open(item, self.clock.now())
        self.open_work.claim(item.work_id, session_id, attempt)

    async def waits(self, item: WorkItem) -> None:
        self.open_work.open(item, self.clock.now())

    async def closed(self, work_id: UUID) -> None:
        self.open_work.close(work_id)

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)


class PostgresSessionSide:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.one, self.other = (PostgresWorkerSessions(PostgresDatabase(pool)) for _ in range(2))
        self.open_work = PostgresOpenWork(PostgresDatabase(pool))

    async def _sql(self, statement: str, *values: Any) -> None:
        async with self._pool.connection() as connection:
            await connection.execute(statement.encode(), values or None)

    async def waits(self, item: WorkItem) -> None:
        await self._open(item, None, None)

    async def claimed(self, item: WorkItem, session_id: UUID, attempt: int = 1) -> None:
        await self._open(item, session_id, attempt)

    async def _open(self, item: WorkItem, session_id: UUID | None, attempt: int | None) -> None:
        await self._sql(
            """INSERT INTO open_work (work_id, tenant_id, root_id, kind, pool, dispatch, dispatched_at, session_id, attempt)
               VALUES (%s, %s, %s, %s, %s, %s, now(), %s, %s)""",
            item.work_id, item.tenant_id, item.root_id, item.kind, item.pool, item.dispatch, session_id, attempt,
        )  # fmt: skip

    async def closed(self, work_id: UUID) -> None:
        await self._sql("DELETE FROM open_work WHERE work_id = %s", work_id)

    async def pass_time(self, seconds: float) -> None:
        await self._sql(
            """UPDATE worker_session SET (since, seen_at, ended_at) = (since - past, seen_at - past, ended_at - past)
               FROM make_interval(secs => %s) AS past""",
            seconds,
        )
        await self._sql("UPDATE open_work SET dispatched_at = dispatched_at - make_interval(secs => %s)", seconds)
        await self._sql("UPDATE session_host SET ready_at = ready_at - make_interval(secs => %s)", seconds)
