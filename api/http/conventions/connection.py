"""One HTTP connection: uvicorn's, with bounds for everything that a peer can send, delay or not read.

uvicorn passes received bytes to a parser that keeps a head until the head is complete, however long it is. Here bytes are counted
before they are parsed, and each phase of a request has a time limit. An invalid request is answered by a problem document or ends
the connection. A request that arrives in one piece arms no timer, and an idle connection causes no wake-ups.
"""

import asyncio
import functools
import random
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote
from uuid import UUID

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from api.http.conventions.cycle import EXTENSIONS, RequestCycle
from api.http.conventions.deadlines import Deadline, SendWatch
from api.http.conventions.door import ConnectionSlot, Door
from api.http.conventions.errors import HeadTooLarge, RequestTimeout, TooManyConnections, not_http_problem, tidelog_problem
from api.http.conventions.websockets import SocketConnection
from api.http.sessions.connection import SessionConnection
from api.http.sessions.limits import PATH as SESSIONS
from api.http.sockets.connection import EventConnection
from api.http.sockets.limits import PATH as EVENTS
from api.metrics import CONNECTIONS, REFUSED
from domain.errors import TidelogError, Unavailable

PIECE = 4_096
"""Bytes that the parser gets at a time. Of pipelined requests only those in one piece are parsed; the others wait unparsed."""

SOCKETS: dict[bytes, type[SocketConnection]] = {SESSIONS.encode(): SessionConnection, EVENTS.encode(): EventConnection}
"""Path of a WebSocket → its connection."""

# The phases of a connection. They are plain numbers because each request compares them about ten times.
IDLE = 0
"""Between two requests, or while a request is answered."""
HEAD = 1
"""A head is being received, or the first head is awaited."""
BODY = 2
OVER = 3
"""Received bytes are ignored."""


class _Refused(Exception):
    """Raised in a callback of the parser to stop the parser. The connection's `_fault` has the reason."""


_WRITABLE = asyncio.Event()
_WRITABLE.set()


class Pipeline(list[Any]):
    """Pipelined requests that wait, the newest first. Nearly always empty, and then a tenth of the size of a deque."""

    __slots__ = ()

    def appendleft(self, request: Any) -> None:
        self.insert(0, request)


class _Flow(FlowControl):
    """Reads nothing while pipelined requests wait. Otherwise a peer could send requests faster than they are answered."""

    def __init__(self, transport: asyncio.Transport, pipeline: "Pipeline") -> None:
        """Without the event that uvicorn makes for each connection: few ever wait for their peers, and thousands may be open."""
        self._transport = transport
        self.read_paused = self.write_paused = False
        self._is_writable_event = _WRITABLE
        self._pipeline = pipeline

    def pause_writing(self) -> None:
        if not self.write_paused:
            self._is_writable_event = asyncio.Event()
        super().pause_writing()

    def resume_reading(self) -> None:
        if not self._pipeline:
            super().resume_reading()


class HttpConnection(HttpToolsProtocol):
    """`door`: the server's door. The scope of each request has this connection as `state["connection"]`."""

    __slots__ = (
        "_begun", "_body_due", "_body_follows", "_deadline", "_door", "_fault", "_fields", "_head", "_hosts", "_last_words",
        "_limits", "_muted", "_phase", "_rest", "_sending", "_slot", "_unparsed", "_upgrades",
    )  # fmt: skip
    """Thousands of connections may be open: with slots, uvicorn's attributes are few enough to share their names."""

    def __init__(self, door: Door, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self.pipeline: Pipeline = Pipeline()  # type: ignore[assignment]  # uvicorn's is a deque
        self._door = door
        self._limits = door.limits
        self._slot: ConnectionSlot | None = None
        self._phase = HEAD
        self._deadline = Deadline(self.loop, self._too_slow)
        """The deadline of the phase, if the phase lasts longer than one piece."""
        self._body_due = 0.0
        self._sending: SendWatch = None  # type: ignore[assignment]  # set with the transport
        self._fault: TidelogError | None = None
        self._last_words: bytes | None = None
        """The last answer, sent after the answers under way."""
        self._begun = False
        """Whether a part of the message has arrived."""
        self._head = self._fields = 0
        """Bytes and number of headers of the message, trailers included."""
        self._hosts = 0
        """Number of `Host` headers of the message."""
        self._unparsed = 0
        """Number of bytes that the parser has read without a result."""
        self._rest = b""
        """Bytes that arrived behind pipelined requests, and wait for the answers to those requests."""
        self._body_follows = False
        """The message asks for an upgrade and has a body, which the parser does not expect."""
        self._muted = False
        """The parser reads a made-up head, after which it expects the body."""
        self._upgrades = False
        """The message asks for a WebSocket that there is, and nothing else is under way."""

    # --- beginning and end ------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self._sending = SendWatch(transport, self._limits.send_s, blocked=self._is_blocked, stuck=self._stuck)
        try:
            self._slot = self._door.enter(self.client[0] if self.client else None)
        except (TooManyConnections, Unavailable) as error:
            self._phase = OVER
            REFUSED.labels("too-many-connections").inc()
            transport.write(_raw(error))
            self._close()
            return
        CONNECTIONS.inc()
        self._deadline.set(self.loop.time() + self._limits.first_s)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._deadline.close()
        self._sending.close()
        self._phase, self._rest = OVER, b""
        if self._slot is not None:
            self._door.leave(self._slot)
            self._slot = None
            CONNECTIONS.dec()

    def identify(self, key_id: UUID) -> None:
        """Counts the connection for the valid key of a request. Raises TooManyConnections."""
        if self._slot is not None:
            self._door.identify(self._slot, key_id)

    def admit_stranger(self) -> None:
        """Admits a request that has shown no key and needs none. Raises TooManyConnections."""
        if self._slot is not None:
            self._door.admit_stranger(self._slot)

    @property
    def is_crowded(self) -> bool:
        """Whether this connection is admitted only to show a key."""
        return self._slot is not None and self._door.is_crowded(self._slot)

    # --- receiving --------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._phase == OVER:
            return
        self._feed(data)
        if self._phase == IDLE:
            if self.cycle is not None and not self.cycle.response_complete:
                return
            self._phase = HEAD  # an empty line before a request
        now = self.loop.time()
        if self._phase == HEAD:
            if self._deadline.due is None:
                self._deadline.set(now + self._limits.head_s)
        elif self._phase == BODY:
            if self._deadline.due is None:
                self._body_due = now + self._limits.body_s
            self._deadline.set(min(now + self._limits.body_pause_s, self._body_due))

    def _feed(self, data: bytes) -> None:
        place, size = 0, len(data)
        while place < size and self._phase != OVER:
            if self.pipeline:
                self._rest += data[place:]
                return
            piece = data if size <= PIECE and not place else data[place : place + PIECE]
            place += len(piece)
            self._unparsed += len(piece)
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade as upgrade:
                place += upgrade.args[0] - len(piece)
                if self._upgrades:
                    self._hand_over(early=place < size)
                    return
                self._go_on_without_upgrade()
            except httptools.HttpParserError:
                self._refuse(self._fault)
            else:
                if self._unparsed > self._limits.head_bytes:
                    self._refuse(HeadTooLarge(self._limits.head_bytes, self._limits.headers))

    def _should_upgrade(self) -> bool:
        return self._upgrades

    def _asks_for_socket(self) -> bool:
        """Whether the head asks for a WebSocket that there is, as the next request of a connection on which none is under way."""
        return (
            self.url.partition(b"?")[0] in SOCKETS
            and self.parser.get_method() == b"GET"
            and self._get_upgrade() == b"websocket"
            and not self._has_body()
            and not self.pipeline
            and (self.cycle is None or self.cycle.response_complete)
        )

    def _has_body(self) -> bool:
        return any(
            name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 ")) for name, value in self.headers
        )

    def _hand_over(self, *, early: bool) -> None:
        """The connection becomes a WebSocket. `early`: the peer has sent more before it was let in, which no client may do."""
        self._enter(OVER)
        if early or self._slot is None:
            self._refuse(None)
            return
        head = [b"GET ", self.url, b" HTTP/1.1\r\n", *(b"%s: %s\r\n" % header for header in self.headers), b"\r\n"]
        slot, self._slot = self._slot, None
        self._deadline.close()
        self._sending.close()
        self.connections.discard(self)
        connection = SOCKETS[self.url.partition(b"?")[0]](
            self._door, slot, config=self.config, server_state=self.server_state, app_state=self.app_state, _loop=self.loop
        )
        connection.take_over(self.transport, b"".join(head))

    def _go_on_without_upgrade(self) -> None:
        """Ignores an unknown upgrade (RFC 9110, section 7.8). The parser takes the upgrade for the end of the message."""
        if self._body_follows:
            lengths = [b"%s: %s\r\n" % header for header in self.headers if header[0] in (b"content-length", b"transfer-encoding")]
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self._muted = True
            self.parser.feed_data(b"POST / HTTP/1.1\r\n%s\r\n" % b"".join(lengths))
            self._muted = self._body_follows = False
            self._enter(BODY)
        elif self.scope["method"] == "CONNECT":
            self.cycle.keep_alive = False
            self._phase = OVER

    def _enter(self, phase: int) -> None:
        self._phase, self._deadline.due, self._unparsed = phase, None, 0

    # --- callbacks of the parser ------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._muted:
            return
        super().on_message_begin()
        self.scope["state"]["connection"] = self
        self._begun, self._upgrades = True, False
        self._head = self._fields = self._hosts = self._unparsed = 0
        if self._phase != HEAD:
            self._enter(HEAD)

    def on_url(self, url: bytes) -> None:
        if not self._muted:
            self._count(len(url))
            self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._muted:
            return
        self._fields += 1
        self._count(len(name) + len(value) + 4)
        if self._phase == BODY:
            return  # a trailer must not become a header
        name = name.lower()
        if name == b"host":
            self._hosts += 1
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def _count(self, size: int) -> None:
        self._unparsed = 0
        self._head += size
        if self._head > self._limits.head_bytes or self._fields > self._limits.headers:
            self._fault = HeadTooLarge(self._limits.head_bytes, self._limits.headers)
            raise _Refused

    def on_headers_complete(self) -> None:
        if self._muted:
            return
        version = self.parser.get_http_version()
        if version not in ("1.1", "1.0") or self._hosts > 1 or (not self._hosts and version == "1.1"):  # RFC 9112, section 3.2
            raise _Refused
        upgrade = self.parser.should_upgrade()
        self._upgrades = upgrade and self._asks_for_socket()
        self._begin_request(version)
        self._enter(BODY)
        if upgrade:
            self._body_follows = self._has_body()

    def _begin_request(self, version: str) -> None:
        """As in uvicorn, with a cycle of our own and without uvicorn's limits."""
        scope, url = self.scope, httptools.parse_url(self.url)
        scope["method"], scope["http_version"] = self.parser.get_method().decode("ascii"), version
        if self._upgrades:
            return
        path = url.path.decode("ascii")
        scope["path"], scope["raw_path"], scope["query_string"] = unquote(path) if "%" in path else path, url.path, url.query or b""
        scope["extensions"] = EXTENSIONS
        before = self.cycle
        self.cycle = RequestCycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._body_follows:
            super().on_message_complete()
            self._enter(IDLE)
            self._begun = False

    # --- sending ----------------------------------------------------------------------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._door.turnstile.admit(functools.partial(self._begin_task, cycle, app))

    def _begin_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        task = self.loop.create_task(cycle.run_asgi(app))
        task.add_done_callback(self._on_answered)
        self.tasks.add(task)

    def _on_answered(self, task: "asyncio.Task[None]") -> None:
        self.tasks.discard(task)
        if self.transport.is_closing():
            self._sending.begin()

    def on_response_complete(self) -> None:
        """As in uvicorn, but the wait for the next request has a deadline instead of a new timer."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            if self.pipeline:
                return
        self.flow.resume_reading()
        if self._rest:
            rest, self._rest = self._rest, b""
            self.data_received(rest)
        if not self.cycle.response_complete:
            return
        now = self.loop.time()
        if self._last_words is not None:
            self._end(self._last_words)
        elif self._phase == IDLE:
            self._deadline.set(now + self._limits.idle_s)
        elif self._phase == BODY:  # the request is answered before its body has ended
            self._body_due = now + self._limits.head_s
            self._deadline.set(self._body_due)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._sending.begin()

    def shutdown(self) -> None:
        super().shutdown()
        if self.transport.is_closing():
            self._sending.begin()

    # --- refusing ---------------------------------------------------------------------------------------------------------

    def _refuse(self, error: TidelogError | None) -> None:
        """Answers an invalid request, after the answers under way, and ends the connection.

        `error`: None if the bytes are not HTTP.
        """
        phase = self._phase
        self._enter(OVER)
        self._rest = b""
        REFUSED.labels(type(error).code if error is not None else "not-http").inc()
        said = _raw(error)
        if self.cycle is None or self.cycle.response_complete:
            if phase == BODY:  # answered already
                self._close()
            else:
                self._end(said)
        elif phase != BODY:
            self._last_words = said
        elif self.pipeline or self.cycle.response_started:
            self.transport.abort()
        else:  # the endpoint waits for a body that cannot be read
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self._end(said)

    def _end(self, said: bytes) -> None:
        """Sends the last answer.

        The connection lingers before it is closed: if it were closed at once while more bytes arrive, the kernel would send the
        peer a reset instead of the answer.
        """
        self.transport.write(said)
        self._phase = OVER
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.flow.resume_reading()
            self._deadline.set(self.loop.time() + self._limits.linger_s)
        else:
            self._close()

    def _close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
        self._sending.begin()

    def _too_slow(self) -> None:
        """Ends a phase that has lasted too long."""
        if self._phase == OVER:
            self.transport.abort()
        elif self._phase == BODY and self.flow.read_paused:  # this side does not read
            self._deadline.set(self.loop.time() + self._limits.body_pause_s)
        elif self._phase == IDLE:  # no further request came in time
            self._close()
        elif not self._begun:
            REFUSED.labels("silent").inc()
            self._close()
        else:
            self._refuse(RequestTimeout("head" if self._phase == HEAD else "body"))

    def _is_blocked(self) -> bool:
        return self.flow.write_paused or self.transport.is_closing()

    def _stuck(self) -> None:
        """Ends the connection of a peer that does not read its answers."""
        REFUSED.labels("does-not-read").inc()
        self.transport.abort()


def protocol(door: Door) -> Callable[..., HttpConnection]:
    """The factory with which uvicorn makes a connection."""
    return functools.partial(HttpConnection, door)


def _raw(error: TidelogError | None) -> bytes:
    """The bytes of an answer outside of any request, after which the connection ends.

    `error`: None if the bytes received are not HTTP.
    """
    trace_id = f"{random.getrandbits(128):032x}"
    scope = {"state": {"trace_id": trace_id}}
    response = not_http_problem(scope) if error is None else tidelog_problem(scope, error)
    headers = [*response.raw_headers, (b"connection", b"close"), (b"tidelog-trace-id", trace_id.encode())]
    lines = b"".join(b"%s: %s\r\n" % header for header in headers)
    return b"%s%s\r\n%s" % (STATUS_LINE[response.status_code], lines, bytes(response.body))
