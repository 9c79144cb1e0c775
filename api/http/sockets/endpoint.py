"""The WebSocket of event streams: who may connect, and the life of a connection."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from starlette.types import Receive, Scope, Send

from api.container import Container
from api.http.conventions.callers import Callers
from api.http.conventions.middleware import must_be_single
from api.http.conventions.request import Principal
from api.http.conventions.websockets import refuse
from api.http.sockets.beats import Beats
from api.http.sockets.connection import EventConnection
from api.http.sockets.limits import HEARTBEAT_S, OPENING, PATH, PROTOCOL
from api.http.sockets.socket import WELCOME, EventSocket
from api.metrics import REQUESTS, SOCKETS
from application.engine.ports import log_context
from application.narrowing import Narrowed, ProjectsOfRoots
from domain.access import must_be_allowed
from domain.errors import InvalidCommand, Unauthenticated, Unavailable
from domain.kernel import RecordedEvent


class EventSockets:
    """The ASGI application of `PATH`. The gate has put the headers and the trace into the scope."""

    def __init__(
        self, container: Container, callers: Callers, of_roots: ProjectsOfRoots, *, heartbeat_s: float = HEARTBEAT_S
    ) -> None:
        self._container = container
        self._callers = callers
        self._of_roots = of_roots
        self._beats = Beats(heartbeat_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state: dict[str, Any] = scope["state"]
        connection: EventConnection = state["connection"]
        try:
            principal = await self._admitted(scope, connection)
        except Exception as error:  # noqa: BLE001  # every error gets an answer
            await refuse(self._container, scope, send, error, path=PATH, opening=OPENING)
            return
        REQUESTS.labels("GET", PATH, 101).inc()
        await receive()  # `websocket.connect`
        trace = [(b"tidelog-trace-id", state["trace_id"].encode())]
        await send({"type": "websocket.accept", "subprotocol": PROTOCOL, "headers": trace})
        connection.forget_request()
        SOCKETS.inc()
        try:
            await self._serve(principal, scope, connection, receive)
        finally:
            SOCKETS.dec()

    async def _admitted(self, scope: Scope, connection: EventConnection) -> Principal:
        """Raises TidelogError if the caller may not connect."""
        state: dict[str, Any] = scope["state"]
        if self._container.live.closed:
            raise Unavailable("the process stops")
        must_be_single(scope["headers"])
        if scope["query_string"]:
            raise InvalidCommand("the WebSocket takes no parameters: a filter is in the message `subscribe`")
        self._callers.must_be_of_this_site(scope)
        principal = await self._callers.admit(scope)
        connection.identify(principal.key_id)
        must_be_allowed(principal.role, OPENING)
        if PROTOCOL not in scope["subprotocols"]:
            raise InvalidCommand(f"the subprotocol is {PROTOCOL}: give it in Sec-WebSocket-Protocol")
        log_context.of_request(principal.tenant_id, state["trace_id"])
        return principal

    async def _serve(self, principal: Principal, scope: Scope, connection: EventConnection, receive: Receive) -> None:
        container = self._container
        seen = None
        if principal.projects is not None:
            seen = Narrowed(principal.tenant_id, principal.projects, self._of_roots, container.feed)
        socket = EventSocket(
            connection, container.live, container.feed, container.histories, container.replays,
            tenant_id=principal.tenant_id, seen=seen, trace_id=scope["state"]["trace_id"], encoded=self._encoded,
        )  # fmt: skip
        ended = Unauthenticated("the API key is not valid any more, or the browser was signed out")
        release = self._callers.hold(scope, partial(socket.end_with, 4401, "key", ended))
        connection.write(WELCOME)
        self._beats.add(socket)
        try:
            while (message := await receive())["type"] != "websocket.disconnect":
                await socket.take(message.get("text"))
        finally:
            release()
            await socket.close()

    def _encoded(self, events: Sequence[RecordedEvent]) -> bytes:
        encoded = self._container.cloud_events.shared
        return b"".join([b"%s," % encoded(event) for event in events])
