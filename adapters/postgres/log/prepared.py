"""One prepared statement, run on the driver's connection without a cursor.

A cursor costs 85 µs of CPU for a statement and its answer: each parameter is looked at, the socket is put into the event loop and
taken out again, the answer is wrapped. The writer sends one statement all the time, with parameters in the form of the wire. Here
the socket stays in the event loop, and the same statement costs 30 µs.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import errors
from psycopg.adapt import Transformer
from psycopg.pq import ExecStatus, Format, TransactionStatus
from psycopg.pq.abc import PGresult

from adapters.postgres import pool

R = TypeVar("R")

CANCEL_SECONDS = 2.0
"""Seconds for the server to give up a statement whose caller has gone."""


class PreparedStatement:
    """A statement of one connection, one execution at a time. `watch` it before, `unwatch` it at the end."""

    def __init__(self, connection: pool.Connection, name: bytes, parameters: int, on_input: Callable[[], None]) -> None:
        """`name`: of a statement that the connection has prepared. `parameters`: their number; all come in binary form.

        `on_input` is called for input that no execution waits for: notifications, or the end of the connection, after which
        `broken` is true.
        """
        self._connection = connection
        self._pgconn = connection.pgconn
        self._name = name
        self._formats = [Format.BINARY] * parameters
        self._on_input = on_input
        self._rows = Transformer(connection)
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] | None = None
        self._watched: int | None = None
        self.broken = False
        """The connection has ended."""

    def watch(self) -> None:
        """Begins to read what arrives. From a connection that has ended nothing is read."""
        if not self.broken and not self._connection.closed:
            self._watched = self._connection.fileno()
            self._loop.add_reader(self._watched, self._on_readable)

    def unwatch(self) -> None:
        if self._watched is not None:
            self._loop.remove_reader(self._watched)
            self._watched = None

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Leaves the connection to the driver for the time of the block: the driver watches the socket itself."""
        self.unwatch()
        try:
            yield
        finally:
            self.watch()

    async def run(self, values: Sequence[bytes], make_row: Callable[[Sequence[Any]], R]) -> list[R]:
        """The rows, after the end of the transaction. Raises psycopg.Error; after a refusal the connection can go on."""
        results: list[PGresult] = []
        try:
            self._pgconn.send_query_prepared(self._name, values, self._formats, Format.BINARY)
            while self._pgconn.flush():
                await self._until_writable()
            # The last result is none. The transaction ends before, and its commit may fail after the rows are there.
            while (result := await self._next_result()) is not None:
                results.append(result)
        except psycopg.OperationalError:
            if all(result.status == ExecStatus.TUPLES_OK for result in results):
                raise  # else the server has said why the connection ends
        except asyncio.CancelledError:
            await self._cancel()
            raise
        for result in results:
            if result.status != ExecStatus.TUPLES_OK:
                raise _error_of(result)
        [answer] = results
        self._rows.set_pgresult(answer)
        return self._rows.load_rows(0, answer.ntuples, make_row)

    async def _next_result(self) -> PGresult | None:
        while self._pgconn.is_busy():
            await self._until_input()
        return self._pgconn.get_result()

    async def _until_input(self) -> None:
        if self._watched is None:
            raise psycopg.OperationalError("the connection has ended")
        self._ready = self._loop.create_future()
        try:
            await self._ready
        finally:
            self._ready = None

    async def _until_writable(self) -> None:
        """Also returns when something has arrived: the server may have to get rid of it before it reads on."""
        descriptor = self._connection.fileno()
        self._loop.add_writer(descriptor, self._wake)
        try:
            await self._until_input()
        finally:
            self._loop.remove_writer(descriptor)

    def _wake(self, error: psycopg.Error | None = None) -> None:
        if self._ready is None or self._ready.done():
            return
        if error is None:
            self._ready.set_result(None)
        else:
            self._ready.set_exception(error)

    def _on_readable(self) -> None:
        try:
            self._pgconn.consume_input()  # raises at the end of the connection
        except psycopg.OperationalError as error:
            self.broken = True
            self.unwatch()  # the end of a file can be read for ever
            self._wake(error)
        else:
            self._wake()
        if self._ready is None:
            self._on_input()

    async def _cancel(self) -> None:
        """Asks the server to give up the statement. The connection is of no use afterwards."""
        if not self.broken and self._pgconn.transaction_status == TransactionStatus.ACTIVE:
            try:
                await self._connection.cancel_safe(timeout=CANCEL_SECONDS)
            except (psycopg.Error, OSError):
                return  # the connection will be closed, and the server notices that later


def _error_of(result: PGresult) -> psycopg.Error:
    """An error without an SQLSTATE is not the server's: the connection has ended."""
    error = errors.error_from_result(result)
    return error if error.sqlstate else psycopg.OperationalError(str(error))
