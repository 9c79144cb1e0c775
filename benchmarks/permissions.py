"""What a request costs in Python before its use case: the key, the permission, and the whole way from the gate to the endpoint.

No server and no database: the key is known, as that of every caller but the first request's is. `make bench ARGS=permissions`.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import Response
from starlette.types import Message, Scope

from api.container import Container
from api.http.conventions.callers import Callers
from api.http.conventions.keys import Keys
from api.http.conventions.middleware import Gate
from api.http.conventions.permissions import needs
from api.http.conventions.routing import DirectRoute, RouteTable
from application.reads import KeyOwner, KeysFound
from benchmarks import table
from domain.access import Action, Role

KEY = b"tl_a_key_of_the_benchmark"
HEADERS = [(b"host", b"127.0.0.1"), (b"authorization", b"Bearer " + KEY), (b"content-type", b"application/json")]
TIMES, ROUNDS = 20_000, 7
GOAL_US = 10.0


class OneKey:
    """The port `ApiKeyReads` of a database that knows every key."""

    async def owners(self, sha256s: Sequence[str]) -> KeysFound:
        return KeysFound({sha256: KeyOwner(UUID(int=1), UUID(int=2), Role.DEVELOPER) for sha256 in sha256s}, 0)


class WatchedLog:
    """The live feed of a process that reads the log: nothing happens to the key."""

    closed, is_current, reading, position = False, True, True, 0

    def call(self, *_: Any) -> Callable[[], None]:
        return lambda: None


def endpoint_of(path: str) -> RouteTable:
    router = APIRouter(route_class=DirectRoute)

    @router.post(path)
    @needs(Action.RUNS_START)
    async def endpoint(request: Request) -> Response:
        return Response(b"{}")

    return RouteTable(router.routes)


async def microseconds(what: Callable[[], Awaitable[Any]]) -> float:
    """The median of some rounds."""
    rounds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(TIMES):
            await what()
        rounds.append((time.perf_counter() - began) / TIMES * 1e6)
    return statistics.median(rounds)


async def measure() -> None:
    container = cast(
        Container,
        SimpleNamespace(
            reads=SimpleNamespace(keys=OneKey()), dependencies={}, live=WatchedLog(), commands=None, key_uses=None,
            histories=SimpleNamespace(on_change=lambda told: nullcontext()),
            settings=SimpleNamespace(max_body_bytes=1_000_000, trusted_proxies=()),
        ),
    )  # fmt: skip
    keys, headers, routes = Keys(container), dict(HEADERS), endpoint_of("/v1/things")
    gate = Gate(FastAPI(), routes, routes, container, Callers(keys, cast(Any, None), cast(Any, None), ()))
    principal, _ = await keys.principal(headers)
    permission = cast(Any, routes)._fixed["POST", "/v1/things"].permission

    async def nothing() -> None:
        pass

    async def of_permission() -> None:
        if permission.action is not None:
            permission.check(principal)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"{}"}

    async def send(message: Message) -> None:
        pass

    async def whole() -> None:
        scope: Scope = {
            "type": "http", "method": "POST", "path": "/v1/things", "query_string": b"", "headers": HEADERS, "state": {},
        }  # fmt: skip
        await gate(scope, receive, send)

    loop = await microseconds(nothing)
    key, permitted = await microseconds(lambda: keys.principal(headers)) - loop, await microseconds(of_permission) - loop
    answered = await microseconds(whole) - loop
    await keys.close()
    told = f"the key {key:.2f} µs, the permission {permitted:.2f} µs, a request with an empty endpoint {answered:.1f} µs"
    print(f"  {told}")
    both, beside = key + permitted, f"{answered:.1f} µs with an empty endpoint"
    what = "Python of a request for its key and its permission"
    table.row(what, f"{both:.1f} µs", beside, f"at most {GOAL_US:g} µs", met=both <= GOAL_US)


if __name__ == "__main__":
    asyncio.run(measure())
