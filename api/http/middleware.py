"""One pure ASGI layer around the application: trace, authentication, body limit, metrics. Nothing here waits for a read model."""

import hashlib
import random
import re
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import structlog
from fastapi import FastAPI
from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.container import Container
from api.http.deps import Principal
from api.http.errors import defect_problem, tidelog_problem
from api.meters import REQUEST_SECONDS, REQUESTS
from domain.errors import PayloadTooLarge, TidelogError, Unauthenticated, Unavailable
from projections.tenants import find_key

KEY_CACHE_S = 10.0
"""How long a key is taken for valid after it was looked up: a revoked one works no longer than this."""
KEY_CACHE_SIZE = 10_000
_TRACEPARENT = re.compile(r"^00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}$")


class Authenticator:
    """API key → principal, by the hash of the key; the key itself is neither kept nor logged."""

    def __init__(self, container: Container) -> None:
        self._database = container.database
        self._dependencies = container.dependencies
        self._known: dict[str, tuple[Principal, float]] = {}

    async def __call__(self, headers: dict[bytes, bytes]) -> Principal:
        """Raises Unauthenticated, Unavailable."""
        key = headers.get(b"x-api-key")
        if key is None:
            scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
            key = token.strip() if scheme.lower() == b"bearer" else b""
        if not key:
            raise Unauthenticated("give an API key: `Authorization: Bearer <key>` or `X-API-Key: <key>`")
        digest = hashlib.sha256(key).hexdigest()
        known = self._known.get(digest)
        now = time.monotonic()
        if known is not None and known[1] > now:
            return known[0]
        starting = await self._starting()  # asked first: a key that is issued in between must not be called wrong
        async with self._database.connection() as connection:
            owner = await find_key(connection, digest)
        if owner is None:
            self._known.pop(digest, None)
            raise starting or Unauthenticated("the API key is not valid")
        if len(self._known) >= KEY_CACHE_SIZE:
            self._known.clear()
        principal = Principal(owner.tenant_id, owner.key_id, f"key:{owner.key_id}")
        self._known[digest] = (principal, now + KEY_CACHE_S)
        return principal

    async def _starting(self) -> Unavailable | None:
        """Why an unknown key may be a good one soon: a worker that starts together with us takes a 401 for final."""
        check = self._dependencies.get("setup")
        try:
            if check is not None:
                await check()
        except Unavailable as error:
            return error
        return None


class Gate:
    """The ASGI layer.

    `busy`: by method and path, what is called directly; the framework's own layers cost more than a run's start.
    """

    def __init__(self, app: FastAPI, container: Container, busy: Mapping[tuple[str, str], ASGIApp]) -> None:
        self._app = app
        self._busy = busy
        self._authenticate = Authenticator(container)
        self._max_body = container.settings.max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        state: dict[str, Any] = scope.setdefault("state", {})
        headers = state["headers"] = dict(scope["headers"])
        trace_id = _trace(headers, state)
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"tidelog-trace-id", trace_id.encode())]
            await send(message)

        try:
            try:
                if scope["path"].startswith("/v1/"):
                    principal = state["principal"] = await self._authenticate(headers)
                    structlog.contextvars.bind_contextvars(tenant_id=str(principal.tenant_id), trace_id=trace_id)
                receive = self._bounded(headers, receive)
            except TidelogError as error:
                await tidelog_problem(scope, error)(scope, receive, answer)  # type: ignore[arg-type]  # a Scope is a dict
                return
            except Exception as error:  # noqa: BLE001  # outside of the handlers of the application, and to be seen all the same
                await defect_problem(scope, error)(scope, receive, answer)  # type: ignore[arg-type]
                return
            scope["app"] = self._app
            await self._busy.get((scope["method"], scope["path"]), self._app)(scope, receive, answer)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            count, seconds = _meters(scope["method"], route, status)
            count.inc()
            seconds.observe(time.perf_counter() - started)

    def _bounded(self, headers: dict[bytes, bytes], receive: Receive) -> Receive:
        """Refuses a body over the limit by its announced length, or while it comes in."""
        length = headers.get(b"content-length")
        if length is not None:
            if not length.isdigit() or int(length) > self._max_body:
                raise PayloadTooLarge(f"the body is over the limit of {self._max_body:,} bytes")
            return receive  # the server holds the client to the announced length
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._max_body:
                raise PayloadTooLarge(f"the body is over the limit of {self._max_body:,} bytes")
            return message

        return counted


@lru_cache(maxsize=10_000)
def _meters(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    """The meters of these labels: looking them up costs more than counting."""
    return REQUESTS.labels(method, route, status), REQUEST_SECONDS.labels(route)


def _trace(headers: dict[bytes, bytes], state: dict[str, Any]) -> str:
    """The caller's trace goes on; without one a new one begins. Sets `trace_id` and `traceparent`."""
    given = headers.get(b"traceparent", b"").decode("latin-1")
    match = _TRACEPARENT.match(given)
    trace_id = match[1] if match else f"{random.getrandbits(128):032x}"
    state["trace_id"] = trace_id
    state["traceparent"] = f"00-{trace_id}-{random.getrandbits(64):016x}-01"
    return trace_id
