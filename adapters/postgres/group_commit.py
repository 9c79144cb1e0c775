"""The writer of the log: callers wait, one task writes all that waits in one transaction.

A commit costs a disk flush however many events it holds, so what arrives while one batch is being written makes the next one.
Correctness does not rest here: several writers in several processes are safe, because the SQL function serializes them and knows
each command that it recorded.
"""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
import structlog

from adapters.postgres import pool
from adapters.postgres.append_batch import APPEND_SQL, EncodedAppend, answers, parameters
from adapters.postgres.arrays import register_arrays
from application.ports import AppendResult
from domain.errors import Unavailable

log = structlog.get_logger(__name__)

MAX_BATCH_APPENDS = 1_000
MAX_BATCH_BYTES = 1024 * 1024
STATEMENT_TIMEOUT = 10.0
"""Seconds for one batch, the wait for other writers included."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the writer's queue, and how long it tries."""

    appends: int = 20_000
    bytes: int = 64 * 1024 * 1024
    retry_seconds: float = 10.0
    """How long an append may wait for a database that is away before its caller gets Unavailable."""


@dataclass(slots=True)
class _Waiting:
    append: EncodedAppend
    answer: asyncio.Future[AppendResult]
    give_up_at: float


class GroupCommit:
    """Owns one connection and one task. `start` and `close` it; `submit` in between."""

    def __init__(self, database_url: str, *, limits: Limits | None = None) -> None:
        self._database_url = database_url
        self._limits = limits or Limits()
        self._queue: deque[_Waiting] = deque()
        self._queued_bytes = 0
        self._arrived = asyncio.Event()
        self._connection: pool.Connection | None = None
        self._cursor: psycopg.AsyncCursor[tuple[Any, ...]] | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="group-commit")

    async def close(self, *, drain_seconds: float = 5.0) -> None:
        """Writes what waits, for a bounded time; what then still waits gets Unavailable."""
        self._closing = True
        if self._task is not None:
            self._arrived.set()
            await asyncio.wait({self._task}, timeout=drain_seconds)
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        self._fail(self._queue, Unavailable("the event store is closed"))
        self._queue.clear()
        await self._disconnect()

    def submit(self, append: EncodedAppend) -> asyncio.Future[AppendResult]:
        """Queues an append. Raises Unavailable when the queue is full or the writer does not run."""
        if self._closing or self._task is None:
            raise Unavailable("the event store is not running")
        if len(self._queue) >= self._limits.appends or self._queued_bytes + append.size > self._limits.bytes:
            raise Unavailable(f"{len(self._queue)} appends wait already")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[AppendResult] = loop.create_future()
        self._queue.append(_Waiting(append, answer, loop.time() + self._limits.retry_seconds))
        self._queued_bytes += append.size
        self._arrived.set()
        return answer

    async def _run(self) -> None:
        while True:
            while not self._queue:
                if self._closing:
                    return
                self._arrived.clear()
                await self._arrived.wait()
            batch = self._take()
            try:
                await self._write(batch)
            except asyncio.CancelledError:
                self._fail(batch, Unavailable("the event store is closing; the append may or may not have been recorded"))
                raise
            except Exception as error:
                # A defect, of ours or in the database. These callers see it; the writer lives on for the others.
                log.exception("append_failed", appends=len(batch))
                self._fail(batch, error)
                await self._disconnect()

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size = 0
        while self._queue and len(batch) < MAX_BATCH_APPENDS:
            waiting = self._queue[0]
            if batch and size + waiting.append.size > MAX_BATCH_BYTES:
                break
            self._queue.popleft()
            self._queued_bytes -= waiting.append.size
            if not waiting.answer.done():  # else its caller has gone
                batch.append(waiting)
                size += waiting.append.size
        return batch

    async def _write(self, batch: Sequence[_Waiting]) -> None:
        """Writes a batch, trying again while the database is away: an answer lost with its connection comes back as a duplicate."""
        delay = 0.02
        while batch := self._still_waiting(batch):
            appends = [waiting.append for waiting in batch]
            try:
                rows = await self._call(appends)
            except (psycopg.Error, OSError) as error:
                if pool.is_transient(error):
                    log.warning("append_retried", appends=len(batch), queued=len(self._queue), error=str(error))
                    await self._disconnect()
                    await asyncio.sleep(delay * random.uniform(0.5, 1))
                    delay = min(delay * 2, 1.0)
                    continue
                await self._write_apart(batch, error)
                return
            for place, result in answers(appends, rows):
                _settle(batch[place].answer, result)
            return

    async def _write_apart(self, batch: Sequence[_Waiting], error: Exception) -> None:
        """One append of the batch is refused by the database itself: halves, until it stands alone and the others are written."""
        if len(batch) == 1:
            log.warning("append_refused", topics=_topics(batch[0].append), error=str(error))
            _settle(batch[0].answer, pool.domain_error(error) or error)
            return
        middle = len(batch) // 2
        await self._write(batch[:middle])
        await self._write(batch[middle:])

    def _still_waiting(self, batch: Sequence[_Waiting]) -> Sequence[_Waiting]:
        """Without those whose callers have gone or whose time is up; those in the queue whose time is up are answered too."""
        now = asyncio.get_running_loop().time()
        late = Unavailable("the database was not available in time; the append may or may not have been recorded")
        while self._queue and self._queue[0].give_up_at < now:
            waiting = self._queue.popleft()
            self._queued_bytes -= waiting.append.size
            _settle(waiting.answer, late)
        self._fail([waiting for waiting in batch if waiting.give_up_at < now], late)
        return [waiting for waiting in batch if not waiting.answer.done()]

    async def _call(self, appends: Sequence[EncodedAppend]) -> list[tuple[Any, ...]]:
        if self._connection is None or self._cursor is None:
            await self._disconnect()
            self._connection = await pool.connect(
                self._database_url, role="append", statement_timeout=STATEMENT_TIMEOUT,
                options={"plan_cache_mode": "force_generic_plan"},  # planning for each batch would cost more than its inserts
            )
            register_arrays(self._connection)
            self._cursor = self._connection.cursor(binary=True)
        with pool.deadline(self._connection, STATEMENT_TIMEOUT + 2):
            await self._cursor.execute(APPEND_SQL, parameters(appends), prepare=True)
            return await self._cursor.fetchall()

    async def _disconnect(self) -> None:
        connection, self._connection, self._cursor = self._connection, None, None
        if connection is not None:
            pool.sever(connection)  # `close` sends a farewell; to a half-open peer that could block
            await connection.close()

    def _fail(self, waiting: Sequence[_Waiting] | deque[_Waiting], error: BaseException) -> None:
        for one in waiting:
            _settle(one.answer, error)


def _settle(answer: asyncio.Future[AppendResult], result: AppendResult | BaseException) -> None:
    if answer.done():  # its caller was cancelled, or it was answered before
        return
    if isinstance(result, AppendResult):
        answer.set_result(result)
    else:
        # One error object for many callers would grow a traceback for each of them.
        answer.set_exception(type(result)(result.message) if type(result) is Unavailable else result)


def _topics(append: EncodedAppend) -> list[str]:
    return [event.topic for stream in append.request.streams for event in stream.events][:10]
