"""Composition of the replay of a whole log: the database, and the processes that fold ranges of the log side by side.

Each of these processes imports this module. So the top of this file imports only the modules that they need.
"""

import gc
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import asynccontextmanager
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from adapters.postgres.log.ranges import PostgresStreamRanges
from application.catalog import CATALOG
from application.engine.ports.log import StreamRange
from application.engine.reading.replay import RANGE_EVENTS, Replayed, StreamFolder
from domain.errors import Unavailable

if TYPE_CHECKING:
    from api.settings import Settings

ATTEMPTS = 5
PAUSE_S = 1.0
"""Attempts to fold a range, and seconds between them. A range is folded again from its begin after an outage of the database."""

T = TypeVar("T")

Progress = Callable[[Replayed, int], None]
"""Called with the result so far and the head of the log."""


@asynccontextmanager
async def database(settings: "Settings") -> AsyncIterator[str]:
    """URL of the log's database: from the settings, or of the embedded server, which is started for the block if it does not run.

    Raises SettingsError, SupervisorError.
    """
    from adapters.embedded import EmbeddedError, EmbeddedServices
    from adapters.embedded.access import running_database_url
    from adapters.telemetry.logging import configure_logging
    from api.settings import SettingsError
    from api.supervisor import state
    from api.supervisor.errors import SupervisorError

    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    if not state.has_data(settings.data_dir):
        raise SettingsError(f"there is no log in {settings.data_dir}: set TIDELOG_DATABASE_URL or TIDELOG_DATA_DIR")
    configure_logging("warning", settings.log_format, role="replay")
    running = state.running(settings.data_dir)
    try:
        if running is not None:
            url = running_database_url(running.embedded or {})
            if url is None:
                raise SettingsError("the running server has a database of its own: set TIDELOG_DATABASE_URL")
            yield url
            return
        own = EmbeddedServices(settings.data_dir, postgres_bin=settings.postgres_bin, want_nats=False, account=settings.run_as)
        await own.start()
    except EmbeddedError as error:
        raise SupervisorError(str(error)) from error
    try:
        yield own.database_url
    finally:
        await own.stop()


def replay(
    database_url: str, *, processes: int, tenant_id: UUID | None = None, progress: Progress | None = None
) -> tuple[int, Replayed]:
    """Folds all streams of the log. Blocks. Returns the head of the log at the begin, and the result at that position.

    With `processes=1` the calling process folds. Raises Unavailable.
    """
    folder = _Folder(database_url)
    try:
        head, parts = folder.cut()
    finally:
        folder.close()
    total = Replayed()
    for done in _folded(database_url, parts, head, tenant_id, min(processes, len(parts))):
        total.add(done)
        if progress is not None:
            progress(total, head)
    total.failures.sort(key=lambda failure: failure.stream_id)
    return head, total


def _folded(database_url: str, parts: list[StreamRange], head: int, tenant_id: UUID | None, processes: int) -> Iterator[Replayed]:
    if processes == 1:
        folder = _Folder(database_url)
        try:
            for part in parts:
                yield folder.fold(part, head, tenant_id)
        finally:
            folder.close()
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn, initializer=_begin, initargs=(database_url,)) as pool:
        pending = [pool.submit(_fold, part, head, tenant_id) for part in parts]
        try:
            for future in as_completed(pending):
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class _Folder:
    """Folds ranges over one connection. A lost connection is opened again."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._streams = StreamFolder(CATALOG)
        self._log: PostgresStreamRanges | None = None

    def cut(self) -> tuple[int, list[StreamRange]]:
        return self._patiently(lambda log: log.cut(size=RANGE_EVENTS))

    def fold(self, part: StreamRange, head: int, tenant_id: UUID | None) -> Replayed:
        return self._patiently(lambda log: self._streams.fold_range(log, part, until=head, tenant_id=tenant_id))

    def close(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None

    def _patiently(self, work: Callable[[PostgresStreamRanges], T]) -> T:
        for attempts_left in reversed(range(ATTEMPTS)):
            try:
                if self._log is None:
                    self._log = PostgresStreamRanges.open(self._database_url)
                return work(self._log)
            except Unavailable:
                self.close()
                if not attempts_left:
                    raise
                time.sleep(PAUSE_S)
        raise AssertionError("the last attempt returns or raises")


_folder: _Folder | None = None
"""The folder of this process, if it belongs to the pool."""


def _begin(database_url: str) -> None:
    """Sets up a process of the pool: it ignores interrupts, which are for the parent, and ends with the parent."""
    global _folder
    _folder = _Folder(database_url)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)  # states are trees: nearly all memory is freed without the collector


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    try:
        wait([parent.sentinel])
    finally:  # a parent that cannot be watched counts as gone
        os._exit(1)


def _fold(part: StreamRange, head: int, tenant_id: UUID | None) -> Replayed:
    assert _folder is not None
    return _folder.fold(part, head, tenant_id)
