"""The writer of the log: callers wait while one task writes all waiting appends in one transaction.

A commit costs one disk flush, however many events it holds. So the appends that arrive while one batch is being written make the
next batch. Correctness does not depend on this module: several writers in several processes are safe, because the SQL function
serializes them and knows each command that it recorded.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import psycopg
import structlog

from adapters.postgres import pool
from adapters.postgres.durability import NotDurable
from adapters.postgres.log.append_batch import EncodedAppend, Row, answers
from adapters.postgres.log.session import WriterSession
from application.engine.background import Background
from application.engine.ports.log import AppendResult
from domain.errors import Unavailable

log = structlog.get_logger(__name__)

MAX_BATCH_APPENDS = 1_000
UNDIVIDED = 16
"""Up to so many appends are written at once. Of more, as many wait as are written, see `_Queue`."""
MAX_BATCH_BYTES = 1024 * 1024
FIRST_RETRY_DELAY = 0.02
LAST_RETRY_DELAY = 1.0


Written = Callable[[float, int], None]
"""Called for each batch with the seconds from the first try to the answers, and the number of appends."""


@dataclass(frozen=True, slots=True)
class WriterLimits:
    """Bounds of the writer's queue and of its tries."""

    appends: int = 20_000
    bytes: int = 64 * 1024 * 1024
    retry_seconds: float = 10.0
    """Seconds that an append may wait for a database that is away. Then its caller gets Unavailable."""


@dataclass(slots=True)
class _Waiting:
    append: EncodedAppend
    answer: asyncio.Future[AppendResult]
    give_up_at: float


class GroupCommit:
    """The queue and its writer. `start` and `close` it; `submit` in between."""

    def __init__(self, session: WriterSession, *, limits: WriterLimits | None = None, written: Written | None = None) -> None:
        self._limits = limits or WriterLimits()
        self._queue = _Queue()
        self._writer = _Writer(session, self._queue, written)
        self._writing = Background("group-commit", self._writer.run)
        self.failed = self._writing.failed
        """Raises when the writer has ended before `close`."""

    def start(self) -> None:
        self._writing.start()

    async def close(self, *, drain_seconds: float = 5.0) -> None:
        """Writes the waiting appends, for a bounded time. Appends that still wait then get Unavailable."""
        self._queue.close()
        await self._writing.close(grace_s=drain_seconds)
        for waiting in self._queue.take_all():
            _settle(waiting.answer, Unavailable("the event store is closed"))

    @property
    def waiting(self) -> int:
        """Appends in the queue."""
        return len(self._queue)

    def submit(self, append: EncodedAppend) -> asyncio.Future[AppendResult]:
        """Queues an append. Raises Unavailable when the queue is full or the writer does not run."""
        if self._queue.closed or not self._writing.running:
            raise Unavailable("the event store is not running")
        if len(self._queue) >= self._limits.appends or self._queue.bytes + append.size > self._limits.bytes:
            raise Unavailable(f"{len(self._queue)} appends wait already")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[AppendResult] = loop.create_future()
        self._queue.put(_Waiting(append, answer, loop.time() + self._limits.retry_seconds))
        return answer


class _Queue:
    """Appends that wait for the writer, oldest first.

    Callers that wait for an answer before they append again would all meet in the same batch. Then this process would idle while
    the database works, and the database while this process works. So a batch takes half of the appends that are in turn: while one
    half is written, the callers of the other half get their answers and come back. Appends of callers that do not wait are taken
    whole: as many wait as were written before. If other processes write in turn with this one, a batch takes all appends, because
    the others write while this process answers.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._last = 0
        self._shared = False
        self._waiting: deque[_Waiting] = deque()
        self._changed = asyncio.Event()
        self.closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, waiting: _Waiting) -> None:
        self._waiting.append(waiting)
        self.bytes += waiting.append.size
        self._changed.set()

    def written(self, *, others: bool) -> None:
        """Notes that a batch was written. `others`: another process has written since the batch before."""
        self._shared = others

    def close(self) -> None:
        """Lets the writer end once the queue is empty."""
        self.closed = True
        self._changed.set()

    async def next_batch(self) -> list[_Waiting]:
        """Takes the waiting appends that fit one batch; waits for the first.

        Empty when the queue is closed and has nothing left.
        """
        while True:
            if batch := self._take():
                return batch
            if self.closed:
                return []
            self._changed.clear()
            await self._changed.wait()

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size = 0
        half = max(UNDIVIDED, (len(self._waiting) + self._last + 1) // 2)
        most = MAX_BATCH_APPENDS if self._shared else min(MAX_BATCH_APPENDS, half)
        while self._waiting and len(batch) < most:
            if batch and size + self._waiting[0].append.size > MAX_BATCH_BYTES:
                break
            waiting = self._pop()
            if not waiting.answer.done():  # else the caller has gone
                batch.append(waiting)
                size += waiting.append.size
        self._last = len(batch)
        return batch

    def take_late(self, now: float) -> list[_Waiting]:
        """Takes the appends whose time is up."""
        late: list[_Waiting] = []
        while self._waiting and self._waiting[0].give_up_at < now:
            late.append(self._pop())
        return late

    def take_all(self) -> list[_Waiting]:
        return [self._pop() for _ in range(len(self._waiting))]

    def _pop(self) -> _Waiting:
        waiting = self._waiting.popleft()
        self.bytes -= waiting.append.size
        return waiting


class _Writer:
    """The loop that writes batches on one session.

    A second writer on the same queue was measured and is no faster: the batches get smaller, and only one transaction at a time
    writes the log.
    """

    def __init__(self, session: WriterSession, queue: _Queue, written: Written | None) -> None:
        self._session = session
        self._queue = queue
        self._written = written
        self._position: int | None = None

    async def run(self) -> None:
        try:
            while batch := await self._queue.next_batch():
                began = time.monotonic()
                try:
                    await self._write(batch)
                except asyncio.CancelledError:
                    _fail(batch, Unavailable("the event store is closing; the append may or may not have been recorded"))
                    raise
                except Exception as error:
                    # A defect, of Tidelog or of the database. The callers of this batch see it; the writer goes on for the others.
                    log.exception("append_failed", appends=len(batch))
                    _fail(batch, error)
                    await self._session.close()
                if self._written is not None:
                    self._written(time.monotonic() - began, len(batch))
        finally:
            await self._session.close()

    async def _write(self, batch: Sequence[_Waiting]) -> None:
        """Writes a batch, and tries again while the database is away. If an answer is lost, the next try finds a duplicate.

        An append is given up only after a try that failed: a crowd in front of it is no outage.
        """
        delay = FIRST_RETRY_DELAY
        while batch:
            appends = [waiting.append for waiting in batch]
            try:
                rows = await self._session.append(appends)
            except NotDurable as error:  # the connection is kept, and checked again before the next batch
                _fail(batch, error)
                return
            except (psycopg.Error, OSError) as error:
                if pool.is_transient(error):
                    log.warning("append_retried", appends=len(batch), queued=len(self._queue), error=str(error))
                    await self._session.close()
                    await asyncio.sleep(delay * random.uniform(0.5, 1))
                    delay = min(delay * 2, LAST_RETRY_DELAY)
                    batch = self._still_waiting(batch)
                    continue
                await self._write_apart(batch, error)
                return
            self._note_others(rows)
            for place, result in answers(appends, rows):
                _settle(batch[place].answer, result)
            return

    def _note_others(self, rows: Sequence[Row]) -> None:
        """Whether this batch follows the batch before it without a gap. Only a batch without a refusal can tell."""
        first = rows[0]
        if first.request == 0:
            self._queue.written(others=self._position not in (None, first.last_position - first.event_count))
            self._position = first.last_position
        else:
            self._position = None

    async def _write_apart(self, batch: Sequence[_Waiting], error: Exception) -> None:
        """The database refuses one append of the batch:

        halves the batch until that append stands alone and the others are written.
        """
        if len(batch) == 1:
            topics = [placed.event.topic for placed in batch[0].append.request.events]
            log.warning("append_refused", topics=topics[:10], error=str(error))
            _settle(batch[0].answer, pool.domain_error(error) or error)
            return
        middle = len(batch) // 2
        await self._write(batch[:middle])
        await self._write(batch[middle:])

    def _still_waiting(self, batch: Sequence[_Waiting]) -> Sequence[_Waiting]:
        """The batch without appends whose callers have gone or whose time is up.

        Appends in the queue whose time is up get an answer too.
        """
        now = asyncio.get_running_loop().time()
        late = [*self._queue.take_late(now), *(waiting for waiting in batch if waiting.give_up_at < now)]
        _fail(late, Unavailable("the database was not available in time; the append may or may not have been recorded"))
        return [waiting for waiting in batch if not waiting.answer.done()]


def _fail(waiting: Iterable[_Waiting], error: BaseException) -> None:
    for one in waiting:
        _settle(one.answer, error)


def _settle(answer: asyncio.Future[AppendResult], result: AppendResult | BaseException) -> None:
    if answer.done():  # the caller was cancelled, or has its answer
        return
    if isinstance(result, AppendResult):
        answer.set_result(result)
    else:
        # Many callers get the same error object, and each raise would lengthen its traceback.
        answer.set_exception(type(result)(result.message) if isinstance(result, Unavailable) else result)
