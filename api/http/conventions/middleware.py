"""One pure ASGI layer around the application: trace, authentication, body limit, metrics. Nothing here waits for a read model."""

import asyncio
import random
import re
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from fastapi import FastAPI
from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.container import Container
from api.http.conventions.audit import COUNTED, action_of, count_refusal
from api.http.conventions.behalf import on_behalf_of
from api.http.conventions.callers import Callers
from api.http.conventions.connection import HttpConnection
from api.http.conventions.cycle import STARTS
from api.http.conventions.errors import TooManyConnections, defect_problem, response_to, tidelog_problem
from api.http.conventions.permissions import KEYLESS, PROTECTED
from api.http.conventions.routing import RouteTable
from api.http.conventions.sites import prefix_of
from api.metrics import REQUEST_SECONDS, REQUESTS
from application.engine.ports import log_context
from domain.errors import InvalidCommand, PayloadTooLarge, TidelogError, Unavailable

SINGLE = frozenset(
    name.encode() for name in (
        "authorization", "x-api-key", "content-type", "content-encoding", "idempotency-key", "if-match", "tidelog-position",
        "last-event-id", "tidelog-on-behalf-of", "tidelog-reason", "cookie", "origin", "sec-fetch-site",
    )
)  # fmt: skip
"""Headers that have one value."""
_TRACEPARENT = re.compile(r"^00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}$")


class Gate:
    """The ASGI layer around `routes` and `sockets`. `app`: the `request.app` of endpoints."""

    def __init__(
        self, app: FastAPI, routes: RouteTable, sockets: Mapping[str, ASGIApp], container: Container, callers: Callers
    ) -> None:
        """`sockets`: the applications of WebSockets by their paths. They let their callers in themselves."""
        self._app = app
        self._routes = routes
        self._sockets = sockets
        self._callers = callers
        self._container = container
        self._live = container.live
        self._max_body = container.settings.max_body_bytes
        self._proxies = container.settings.trusted_proxies

    async def close(self) -> None:
        """Ends the look-up of callers."""
        await self._callers.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state: dict[str, Any] = scope.setdefault("state", {})
        state["headers"], state["container"] = dict(scope["headers"]), self._container
        _trace(state["headers"], state)
        await (self._answer if scope["type"] == "http" else self._sockets[scope["path"]])(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        began = time.perf_counter()
        state: dict[str, Any] = scope["state"]
        headers: dict[bytes, bytes] = state["headers"]
        trace_id: str = state["trace_id"]
        status, started, closing = 500, False, False
        prefix = prefix_of(scope, headers, self._proxies) if self._proxies else b""
        connection: HttpConnection | None = state.get("connection")

        async def answer(message: Message) -> None:
            nonlocal status, started
            if message["type"] in STARTS:
                status, started = message["status"], True
                message["headers"] = [*message["headers"], (b"tidelog-trace-id", trace_id.encode())]
                if prefix:
                    message["headers"] = [_prefixed(header, prefix) for header in message["headers"]]
                if closing:
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            try:
                if len(headers) != len(scope["headers"]):
                    must_be_single(scope["headers"])
                if scope["path"].startswith(PROTECTED) and scope["path"] not in KEYLESS:
                    principal = await self._callers.admit(scope)
                    if connection is not None:
                        connection.identify(principal.key_id)
                    log_context.of_request(principal.tenant_id, trace_id)
                    state["on_behalf_of"] = on_behalf_of(headers)
                elif connection is not None:
                    connection.admit_stranger()
                receive = self._bounded(scope, headers, receive)
            except TidelogError as error:
                closing = isinstance(error, TooManyConnections) or (connection is not None and connection.is_crowded)
                await tidelog_problem(scope, error)(scope, receive, answer)  # type: ignore[arg-type]  # a Scope is a dict
                return
            except Exception as error:  # noqa: BLE001  # a defect, logged like others
                await defect_problem(scope, error)(scope, receive, answer)  # type: ignore[arg-type]
                return
            scope["app"] = self._app
            try:
                await self._routes(scope, receive, answer)
            except Exception as error:  # noqa: BLE001  # every error gets an answer
                response = response_to(scope, error)  # type: ignore[arg-type]
                # An answer that failed half-way is not completed. So the server closes the connection.
                if not started:
                    await response(scope, receive, answer)
        except asyncio.CancelledError:
            if not self._live.closed:
                raise
            if not started:
                stopped = Unavailable("the process stops; the request may or may not have been carried out")
                await tidelog_problem(scope, stopped)(scope, receive, answer)  # type: ignore[arg-type]
        finally:
            self._count(scope, status, time.perf_counter() - began)

    def _count(self, scope: Scope, status: int, took_s: float) -> None:
        """Counts an answer."""
        route = getattr(scope.get("route"), "path", "other")
        count, seconds = _meters(scope["method"], route, status)
        count.inc()
        seconds.observe(took_s)
        if status in COUNTED:
            count_refusal(self._container, scope, action_of(scope.get("route") or self._routes.route_of(scope)))

    def _bounded(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> Receive:
        """Refuses a body over the limit: by its announced length, or while it is received. Raises PayloadTooLarge."""
        length = headers.get(b"content-length")
        if length is not None:
            if not length.isdigit() or len(length) > 18 or int(length) > self._max_body:
                self._must_fit(scope, int(length) if length.isdigit() and len(length) <= 18 else 10**18)
            return receive  # the server enforces the announced length
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._max_body:
                self._must_fit(scope, taken)
            return message

        return counted

    def _must_fit(self, scope: Scope, size: int) -> None:
        """Raises PayloadTooLarge if a body is larger than its route takes."""
        route = scope.get("route") or self._routes.route_of(scope)
        most = (None if route is None else route.most_bytes) or self._max_body
        if size > most:
            raise PayloadTooLarge(f"the body is over the limit of {most:,} bytes")


def must_be_single(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raises InvalidCommand if a header that has one value is given twice: either value would be as good a guess."""
    seen: set[bytes] = set()
    for name, _ in headers:
        if name in seen and name in SINGLE:
            raise InvalidCommand(f"the header {name.decode()} is given more than once")
        seen.add(name)


def _prefixed(header: tuple[bytes, bytes], prefix: bytes) -> tuple[bytes, bytes]:
    """A header of an answer. The path in a `Location` gets the prefix; a reference relative to the request needs none."""
    name, value = header
    return (name, prefix + value) if name == b"location" and value.startswith(b"/") else header


@lru_cache(maxsize=10_000)
def _meters(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    """The metrics with these labels. Cached, because a look-up costs more than counting."""
    return REQUESTS.labels(method, route, status), REQUEST_SECONDS.labels(route)


def _trace(headers: dict[bytes, bytes], state: dict[str, Any]) -> None:
    """Sets `trace_id` and `traceparent` in the state. The trace id is of the caller's trace, or of a new trace."""
    given = headers.get(b"traceparent", b"").decode("latin-1")
    match = _TRACEPARENT.match(given)
    trace_id = match[1] if match else f"{random.getrandbits(128):032x}"
    state["trace_id"] = trace_id
    state["traceparent"] = f"00-{trace_id}-{random.getrandbits(64):016x}-01"
