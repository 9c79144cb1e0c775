"""The only path of a request to its endpoint.

A route is declared with FastAPI's decorators, and FastAPI makes the OpenAPI document from these declarations. Requests do not go
through the framework: `RouteTable` finds the route of a method and a path, and the route calls its endpoint. Matching, middleware
and dependencies of the framework would take two thirds of the time of a worker's request. The parameters of a request are read in
parameters.py.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from api.http.conventions.bodies import most_bytes_of
from api.http.conventions.cycle import send_complete
from api.http.conventions.errors import UpgradeRequired
from api.http.conventions.narrowing import must_be_seen
from api.http.conventions.parameters import Parameters
from api.http.conventions.permissions import BY_PATH, Permission
from api.http.sessions import limits as sessions
from api.http.sockets import limits as sockets
from domain.errors import Forbidden

ACTION = "x-action"
"""The field of an operation in the OpenAPI document that has the name of the route's action."""


PROTOCOLS = {sessions.PATH: sessions.PROTOCOL, sockets.PATH: sockets.PROTOCOL}
"""Path of a WebSocket → its subprotocol."""


class DirectRoute(APIRoute):
    """A route whose endpoint is `async def endpoint(request, <parameters of the path and the query>) -> Response`.

    It is the `route_class` of every router. The signature is read once, at start-up, and so is what the endpoint needs
    (permissions.py).
    """

    PARAMETER = "([^/]+)"
    """What a parameter of the path takes."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **documented: Any) -> None:
        """Raises TypeError for an endpoint of another form, or one that does not say what it needs."""
        self.permission = Permission.of(path, endpoint)
        self.most_bytes = most_bytes_of(endpoint)
        if self.permission.action is not None:
            documented["openapi_extra"] = {
                **(documented.get("openapi_extra") or {}), ACTION: str(self.permission.action), **_security(self.permission),
            }  # fmt: skip
        super().__init__(path, endpoint, **documented)
        self._parameters = Parameters(endpoint, self.param_convertors)
        self._reach = self.permission.reach if self.permission.reach in BY_PATH else None

    async def respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application of this route. Raises what the endpoint raises, InvalidParameters, and NotFound for what the key of
        the caller does not see.
        """
        request = _MessageRequest(scope, receive)
        arguments = self._parameters.arguments(request)
        if self._reach is not None and scope["state"]["principal"].projects is not None:
            await must_be_seen(request, self._reach, arguments)
        response: Response = await self.endpoint(request, **arguments)
        if scope["method"] == "HEAD":
            await _send_head(response, send)
        elif not await send_complete(response, scope, send):
            await response(scope, receive, send)


def _security(permission: Permission) -> dict[str, Any]:
    """Of a route that does not take both keys and cookies."""
    if permission.by_endpoint:
        return {"security": []}
    return {"security": [{"bearer": []}, {"apiKey": []}]} if permission.by_key else {}


class DeepRoute(DirectRoute):
    """A route whose parameters of the path take slashes, too."""

    PARAMETER = "(.+)"


async def _send_head(response: Response, send: Send) -> None:
    """Sends the answer without its content. The source of a stream is not even begun."""
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": b""})


class _MessageRequest(Request):
    """Reads its body directly from the messages: nearly always there is one message, and the framework's generators cost more."""

    async def body(self) -> bytes:
        """The bytes of the whole body. Raises ClientDisconnect."""
        if not hasattr(self, "_body"):
            pieces = []
            while True:
                message = await self.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                pieces.append(message.get("body", b""))
                if not message.get("more_body", False):
                    break
            self._body = b"".join(pieces)
        return self._body


class RouteTable:
    """The ASGI application of all routes: finds the route of a method and a path. If two routes match, the first one answers.

    Each GET route also answers HEAD, and each path answers OPTIONS. Another method is 405 with the path's methods in `Allow`. A
    path with a slash too many at its end is redirected, by a reference that holds behind any proxy. Any other path is 404.
    """

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        """Raises TypeError for a route that is no `DirectRoute`."""
        self._fixed: dict[tuple[str, str], DirectRoute] = {}
        """Routes without parameters in their path."""
        patterns: dict[str, list[DirectRoute]] = {}
        for route in routes:
            if not isinstance(route, DirectRoute):
                raise TypeError(f"{route}: the router of this route has another route_class than DirectRoute")
            for method in _answered(route.methods or ()):
                if route.param_convertors:
                    patterns.setdefault(method, []).append(route)
                else:
                    self._fixed.setdefault((method, route.path), route)
        self._patterns = {method: _Patterns(found) for method, found in patterns.items()}
        self._methods = sorted({method for method, _ in self._fixed} | self._patterns.keys())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises HTTPException (404, 405), NotPermitted, KeyIsNarrowed, Forbidden, and what the route raises."""
        route, scope["path_params"] = self._find(scope["method"], scope["path"])
        if route is None:
            await self._without_route(scope["method"], scope)(scope, receive, send)
        else:
            scope["route"] = route
            if route.permission.action is not None and not route.permission.by_endpoint:
                route.permission.check(scope["state"]["principal"])
                if route.permission.by_key and "session" in scope["state"]:
                    raise Forbidden("this route needs an API key in a header: the cookie of a browser does not count")
            await route.respond(scope, receive, send)

    def route_of(self, scope: Scope) -> DirectRoute | None:
        """The route of a request that has not come to its route."""
        return self._find(scope["method"], scope["path"])[0]

    def _find(self, method: str, path: str) -> "tuple[DirectRoute | None, dict[str, str]]":
        route = self._fixed.get((method, path))
        if route is None and (patterns := self._patterns.get(method)) is not None:
            return patterns.find(path)
        return route, {}

    def _without_route(self, method: str, scope: Scope) -> Response:
        """The answer to a request without a route. Raises HTTPException (404, 405), UpgradeRequired."""
        path: str = scope["path"]
        if (protocol := PROTOCOLS.get(path)) is not None:
            raise UpgradeRequired(f"{path} is a WebSocket with the subprotocol {protocol}")
        methods = self._methods if path == "*" else self._methods_of(path)
        if methods:
            allow = {"Allow": ", ".join(sorted([*methods, "OPTIONS"]))}
            if method == "OPTIONS":
                return Response(status_code=204, headers=allow)
            raise HTTPException(405, f"{path} has no method {method}", allow)
        shorter = path.removesuffix("/")
        if shorter != path and self._methods_of(shorter):
            query = f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else ""
            return RedirectResponse("../" + quote(shorter.rpartition("/")[2]) + query, 307)
        raise HTTPException(404, f"there is no route {path}")

    def _methods_of(self, path: str) -> list[str]:
        return [method for method in self._methods if self._find(method, path)[0] is not None]


def _answered(methods: Iterable[str]) -> set[str]:
    """The methods that a route answers."""
    return {*methods, *(["HEAD"] if "GET" in methods else [])}


class _Patterns:
    """Routes with parameters in their path, as one regular expression. The last group of a match identifies the route."""

    def __init__(self, routes: Iterable[DirectRoute]) -> None:
        self._routes: dict[int, tuple[DirectRoute, list[str]]] = {}
        """By the number of the route's group. The groups of the route's parameters follow the route's group."""
        alternatives, group = [], 1
        for route in routes:
            fixed, names = re.split(r"{\w+}", route.path), re.findall(r"{(\w+)}", route.path)
            alternatives.append("(" + route.PARAMETER.join(map(re.escape, fixed)) + ")")
            self._routes[group] = route, names
            group += 1 + len(names)
        self._pattern = re.compile("|".join(alternatives))

    def find(self, path: str) -> tuple[DirectRoute | None, dict[str, str]]:
        """The route of a path, and its path parameters. None and an empty dict if no route matches."""
        match = self._pattern.fullmatch(path)
        if match is None or match.lastindex is None:
            return None, {}
        route, names = self._routes[match.lastindex]
        return route, {name: match[match.lastindex + i] for i, name in enumerate(names, 1)}
