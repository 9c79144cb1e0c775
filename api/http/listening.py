"""A listening socket of which all waiting connections are accepted together.

uvloop accepts one connection in a turn of its loop, and a turn of a busy server takes tens of milliseconds. Thousands of clients
that connect at once would wait for a minute, and the kernel would reset those beyond its queue (`net.core.somaxconn`, often 4,096).
"""

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Sequence

import structlog

from api.open_files import SPARE_FILES

ACCEPTED_A_TURN = SPARE_FILES // 2
"""Most connections that are accepted in one turn of the loop. They are open files before the door has counted them."""
SHORT_OF = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors of a system without room for another connection."""
PAUSE_S = 0.5
"""Seconds without accepting after such an error. The connections wait in the kernel's queue."""

log = structlog.get_logger(__name__)


class Acceptor:
    """Accepts the connections of one listening socket, until it is closed."""

    def __init__(self, listening: socket.socket, made: Callable[[], asyncio.Protocol], *, backlog: int) -> None:
        """`listening`: bound; the acceptor closes it. `made`: makes the protocol of a connection."""
        self._loop = asyncio.get_running_loop()
        self._socket = listening
        self._made = made
        self._beginning: set[asyncio.Task[tuple[asyncio.Transport, asyncio.Protocol]]] = set()
        self._resuming: asyncio.TimerHandle | None = None
        self.sockets: Sequence[socket.socket] = (listening,)
        listening.setblocking(False)
        listening.listen(backlog)
        self._loop.add_reader(listening, self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_A_TURN):
            try:
                connection, _ = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in SHORT_OF:
                    self._pause(error)
                    return
                continue  # the peer has gone (accept(2) names its errors)
            connection.setblocking(False)
            beginning = self._loop.create_task(self._loop.connect_accepted_socket(self._made, connection), name="connect")
            self._beginning.add(beginning)
            beginning.add_done_callback(self._began)

    def _began(self, beginning: "asyncio.Task[tuple[asyncio.Transport, asyncio.Protocol]]") -> None:
        self._beginning.discard(beginning)
        if not beginning.cancelled() and (error := beginning.exception()) is not None:
            log.warning("connection_not_begun", exc_info=error)

    def _pause(self, error: OSError) -> None:
        log.warning("no_connection_accepted", error=str(error), pause_s=PAUSE_S)
        self._loop.remove_reader(self._socket)
        self._resuming = self._loop.call_later(PAUSE_S, self._resume)

    def _resume(self) -> None:
        self._resuming = None
        self._loop.add_reader(self._socket, self._accept)

    def close(self) -> None:
        """Accepts nothing more. Connections under way go on."""
        if self._resuming is not None:
            self._resuming.cancel()
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()

    async def wait_closed(self) -> None:
        """Returns when the connections that were accepted last have a protocol."""
        if self._beginning:
            await asyncio.wait(self._beginning)


async def bound(host: str, port: int) -> list[socket.socket]:
    """Sockets that are bound to all addresses of the host. Raises OSError: the port is taken, or there is no such address."""
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, host, port, start_serving=False)
    try:
        return [socket.socket(fileno=os.dup(own.fileno())) for own in server.sockets]
    finally:
        server.close()
