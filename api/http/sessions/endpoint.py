"""The WebSocket of workers: who may connect, and the life of a connection."""

import asyncio
from contextvars import Context, copy_context
from functools import partial
from typing import Any

import structlog
from starlette.types import Receive, Scope, Send
from uuid_utils.compat import uuid7

from api.container import Container
from api.http.conventions import behalf
from api.http.conventions.audit import COUNTED, count_refusal
from api.http.conventions.errors import status_of
from api.http.conventions.keys import Keys
from api.http.conventions.middleware import must_be_single
from api.http.conventions.request import Principal
from api.http.conventions.websockets import must_be_of_this_site, refuse
from api.http.sessions.answers import Answers
from api.http.sessions.connection import SessionConnection
from api.http.sessions.frames import Unreadable, read
from api.http.sessions.limits import OPENING, PATH, PROTOCOL
from api.http.sessions.offers import read_offers
from api.http.sessions.outbox import Outbox
from api.metrics import REQUESTS, SESSION_MESSAGES, SESSION_SLOTS, SESSIONS, TOOL_PERMITS, TOOL_TOKENS, TOOL_WAITING
from application.engine.background import end
from application.engine.commands.request import Caller, request_of_entrance
from application.engine.ports import log_context
from application.workers.hosting.credit import KINDS
from application.workers.hosting.messages import MalformedMessage, Refused, Saying
from application.workers.hosting.session import HostedSession, Visitor
from domain.access import KeyIsNarrowed, NotPermitted, Role, may, must_be_allowed
from domain.errors import InvalidCommand, TidelogError, Unauthenticated, Unavailable

log = structlog.get_logger(__name__)
_RECEIVED = SESSION_MESSAGES.labels("received")


class Sessions:
    """The ASGI application of `PATH`. The gate has put the headers and the trace into the scope."""

    def __init__(self, container: Container, keys: Keys) -> None:
        self._container = container
        self._keys = keys
        for kind in KINDS:
            SESSION_SLOTS.labels(kind).set_function(partial(container.hosting.free, kind))
        gates = container.hosting.gates
        TOOL_PERMITS.set_function(lambda: gates.counts.permits)
        TOOL_WAITING.set_function(lambda: gates.counts.waiting)
        TOOL_TOKENS.set_function(lambda: gates.counts.tokens)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state: dict[str, Any] = scope["state"]
        connection: SessionConnection = state["connection"]
        try:
            principal = await self._admitted(scope, connection)
        except Exception as error:  # noqa: BLE001  # every error gets an answer
            await refuse(self._container, scope, send, error, path=PATH, opening=OPENING)
            return
        REQUESTS.labels("GET", PATH, 101).inc()
        await receive()  # `websocket.connect`
        trace = [(b"tidelog-trace-id", state["trace_id"].encode())]
        await send({"type": "websocket.accept", "subprotocol": PROTOCOL, "headers": trace})
        SESSIONS.inc()
        try:
            await self._serve(principal, scope, connection, receive, send)
        finally:
            SESSIONS.dec()

    async def _admitted(self, scope: Scope, connection: SessionConnection) -> Principal:
        """Raises TidelogError if the caller may not connect."""
        state, headers = scope["state"], scope["state"]["headers"]
        if self._container.live.closed:
            raise Unavailable("the process stops")
        must_be_single(scope["headers"])
        if scope["query_string"]:
            raise InvalidCommand("a session takes no parameters")
        if behalf.NAME in headers:
            raise InvalidCommand("a session is for all runs: its reports say for whom each run is, and Tidelog-On-Behalf-Of cannot")
        must_be_of_this_site(headers)
        only = {b"authorization": headers.get(b"authorization", b"")}  # no other header, which another site could have set
        principal, state["key"] = await self._keys.principal(only)
        state["principal"] = principal
        connection.identify(principal.key_id)
        must_be_allowed(principal.role, OPENING)
        if principal.projects is not None:
            raise KeyIsNarrowed(OPENING)
        if PROTOCOL not in scope["subprotocols"]:
            raise InvalidCommand(f"the subprotocol of a session is {PROTOCOL}: give it in Sec-WebSocket-Protocol")
        log_context.of_request(principal.tenant_id, state["trace_id"])
        return principal

    async def _serve(self, principal: Principal, scope: Scope, connection: SessionConnection, receive: Receive, send: Send) -> None:
        state: dict[str, Any] = scope["state"]
        answers = Answers(state["trace_id"], self._container.settings.max_event_bytes)
        outbox = Outbox(send, answers, connection.abort, connection.write)
        session = self._container.hosting.open(_visitor(principal), outbox)
        outbox.on_relief = session.relieved
        outbox.on_refusal = partial(_count, self._container, scope)
        connection.stopping = session.drain
        connection.on_frame = partial(_take_at_once, copy_context(), session, outbox, principal.role)
        ended = Unauthenticated("the API key is not valid any more")
        release = self._keys.hold(state["key"], lambda: session.revoke(ended))  # also so that the key counts as used
        writing = asyncio.create_task(outbox.run(), name="session-outbox")
        try:
            while (message := await receive())["type"] != "websocket.disconnect":
                if not outbox.ended:
                    _take(session, outbox, principal.role, message.get("text"))
                await outbox.relieved.wait()
        finally:
            release()
            connection.on_frame = None
            outbox.close()
            await session.close()
            await end(writing)


def _visitor(principal: Principal) -> Visitor:
    tenant_id, actor = principal.tenant_id, principal.actor
    return Visitor(
        Caller(tenant_id, actor),
        principal.key_id,
        lambda: request_of_entrance(tenant_id, actor, None, uuid7(), None, repeatable=False),
        partial(read_offers, tenant_id),
    )


def _take(session: HostedSession, outbox: Outbox, role: Role, text: str | None) -> None:
    """Takes one frame. None: it is no text."""
    try:
        if text is None:
            raise MalformedMessage("frames are text, not binary")
        found = read(text)
        _RECEIVED.inc(len(found))
        size = len(text) // max(1, len(found))
        for said in found:
            if isinstance(said, Unreadable):
                outbox.put(Refused(said.id, said.error))
            elif not may(role, said.ACTION):
                _forbid(outbox, said, NotPermitted(role, said.ACTION))
            else:
                session.take(said, size)
    except MalformedMessage as error:
        outbox.end("malformed", error)


def _count(container: Container, scope: Scope, error: Exception) -> None:
    """Counts a refused message as a request would be: the key may not say it, or the token is not the one of the work."""
    if isinstance(error, TidelogError) and status_of(error) in COUNTED:
        count_refusal(container, scope, error.action if isinstance(error, NotPermitted) else OPENING)


def _forbid(outbox: Outbox, said: Saying, error: NotPermitted) -> None:
    """Refuses a message by its id. Without one nobody could be told, and the session ends."""
    id = getattr(said, "id", None)
    if id is None:
        outbox.on_refusal(error)
        outbox.end("forbidden", error)
    else:
        outbox.put(Refused(id, error))


def _take_at_once(context: Context, session: HostedSession, outbox: Outbox, role: Role, text: str) -> bool:
    """Takes one frame in the callback of the socket, unless too much waits to be sent. `context`: of the session's task."""
    if outbox.ended:
        return True
    if not outbox.relieved.is_set():
        return False
    context.run(_take, session, outbox, role, text)
    return True
