"""One prepared statement, run on the driver's connection without a cursor.

The driver's cursor looks at each parameter and wraps the answer, which costs more CPU than the rest of a statement that is alone.
The writer sends one statement all the time, with parameters in the form of the wire.
"""

import asyncio
import socket
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
    """A statement of one connection, one execution at a time. `watch` it before, `close` it at the end.

    Two rules keep a wait from lasting for ever:

    - Each event of the socket ends its registration in the event loop, and the task registers the socket anew. libuv stops a
      registration after an event with an error, and an error may come before the last bytes were read: the server was killed while
      a statement lay unread in its socket. A registration that stays would then never tell of the end.
    - The event loop gets a duplicate of the descriptor. libpq closes its own descriptor in the middle of a call, and the number
      may belong to another connection at once.
    """

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
        self._socket = socket.socket(fileno=socket.dup(connection.fileno()))
        self._descriptor = self._socket.fileno()
        self._watched = False
        self._ready: asyncio.Future[None] | None = None
        self.broken = False
        """The connection is of no use any more."""

    def watch(self) -> None:
        """Begins to notice what arrives. On a broken connection nothing is noticed."""
        if not self._watched and not self.broken:
            self._watched = True
            self._loop.add_reader(self._descriptor, self._on_readable)

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            self._loop.remove_reader(self._descriptor)

    def close(self) -> None:
        """Leaves the connection, which stays open."""
        self._give_up()
        self._socket.close()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Leaves the connection to the driver for the time of the block: the driver watches the socket itself."""
        self._unwatch()
        try:
            yield
        finally:
            self.watch()

    async def run(self, values: Sequence[bytes], make_row: Callable[[Sequence[Any]], R], seconds: float) -> list[R]:
        """The rows, after the end of the transaction. Raises psycopg.Error; after a refusal the connection can go on.

        After `seconds` without an end of the transaction the connection is given up, with an OperationalError.
        """
        if self.broken:
            raise psycopg.OperationalError("the connection has ended")
        timer = self._loop.call_later(seconds, self._give_up)
        try:
            results = await self._results(values)
        finally:
            timer.cancel()
            self.watch()
        for result in results:
            if result.status != ExecStatus.TUPLES_OK:
                raise _error_of(result)
        [answer] = results
        self._rows.set_pgresult(answer)
        return self._rows.load_rows(0, answer.ntuples, make_row)

    async def _results(self, values: Sequence[bytes]) -> list[PGresult]:
        results: list[PGresult] = []
        try:
            self._pgconn.send_query_prepared(self._name, values, self._formats, Format.BINARY)
            while self._pgconn.flush():
                await self._until_writable()
            # The last result is none. The transaction ends before, and its commit may fail after the rows are there.
            while (result := await self._next_result()) is not None:
                results.append(result)
        except psycopg.OperationalError:
            self._give_up()
            if all(result.status == ExecStatus.TUPLES_OK for result in results):
                raise  # else the server has said why the connection ends
        except asyncio.CancelledError:
            self._give_up()
            await self._cancel()
            raise
        return results

    async def _next_result(self) -> PGresult | None:
        while self._pgconn.is_busy():
            await self._until_input()
        return self._pgconn.get_result()

    async def _until_writable(self) -> None:
        """Also returns when something has arrived: the server may have to get rid of it before it reads on."""
        self._loop.add_writer(self._descriptor, self._wake)
        try:
            await self._until_input()
        finally:
            self._loop.remove_writer(self._descriptor)

    async def _until_input(self) -> None:
        """Raises psycopg.OperationalError at the end of the connection."""
        self.watch()
        self._ready = self._loop.create_future()
        try:
            await self._ready
        finally:
            self._ready = None
        if self.broken:
            raise psycopg.OperationalError("the server has not answered in time")
        if not self._watched:
            self._pgconn.consume_input()

    def _on_readable(self) -> None:
        self._unwatch()
        if self._ready is not None:
            self._wake()
            return
        try:
            self._pgconn.consume_input()
        except psycopg.OperationalError:
            self._give_up()
        self._on_input()
        self.watch()

    def _wake(self) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)

    def _give_up(self) -> None:
        self.broken = True
        self._unwatch()
        self._wake()

    async def _cancel(self) -> None:
        """Asks the server to give up the statement."""
        if self._pgconn.transaction_status == TransactionStatus.ACTIVE:
            try:
                await self._connection.cancel_safe(timeout=CANCEL_SECONDS)
            except (psycopg.Error, OSError):
                return  # the connection will be closed, and the server notices that later


def _error_of(result: PGresult) -> psycopg.Error:
    """An error without an SQLSTATE is not the server's: the connection has ended."""
    error = errors.error_from_result(result)
    return error if error.sqlstate else psycopg.OperationalError(str(error))
