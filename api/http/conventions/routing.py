"""The only path of a request to its endpoint.

A route is declared with FastAPI's decorators, and FastAPI makes the OpenAPI document from these declarations. Requests do not go
through the framework: `RouteTable` finds the route of a method and a path, and the route calls its endpoint. Matching, middleware
and dependencies of the framework would take two thirds of the time of a worker's request.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from api.http.conventions.errors import InvalidParameters


class DirectRoute(APIRoute):
    """A route whose endpoint is `async def endpoint(request, <parameters of the path and the query>) -> Response`.

    It is the `route_class` of every router. The signature is read once, at start-up.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **documented: Any) -> None:
        super().__init__(path, endpoint, **documented)
        self._parameters = _parameters_of(endpoint, self.param_convertors)
        self.app = self.respond  # called by the framework if it matched the path

    async def respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application of this route. Raises what the endpoint raises, InvalidParameters."""
        request = _MessageRequest(scope, receive)
        arguments = _arguments(self._parameters, request) if self._parameters else {}
        response: Response = await self.endpoint(request, **arguments)
        await response(scope, receive, send)


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


@dataclass(frozen=True, slots=True)
class _Parameter:
    """A parameter of an endpoint, in the path or in the query."""

    name: str
    in_path: bool
    type: TypeAdapter[Any]
    default: Any
    """`inspect.Parameter.empty` if the parameter is required."""


def _parameters_of(endpoint: Callable[..., Any], in_path: Iterable[str]) -> tuple[_Parameter, ...]:
    """The parameters of an endpoint, path parameters first. Raises TypeError if its first parameter is not the request."""
    hints = get_type_hints(endpoint, include_extras=True)
    first, *others = inspect.signature(endpoint).parameters.values()
    if hints[first.name] is not Request:
        raise TypeError(f"{endpoint.__name__}: the first parameter of an endpoint is the request")
    found = [_Parameter(p.name, p.name in in_path, TypeAdapter(hints[p.name]), p.default) for p in others]
    return tuple(sorted(found, key=lambda parameter: not parameter.in_path))


def _arguments(parameters: Iterable[_Parameter], request: Request) -> dict[str, Any]:
    """The arguments of an endpoint by name. Raises InvalidParameters."""
    query: Mapping[str, str] = request.query_params if request.scope["query_string"] else {}
    arguments: dict[str, Any] = {}
    problems: list[Any] = []
    for parameter in parameters:
        text = (request.path_params if parameter.in_path else query).get(parameter.name)
        if text is None and parameter.default is not inspect.Parameter.empty:
            arguments[parameter.name] = parameter.default
        elif text is None:
            problems.append({"loc": (parameter.name,), "msg": "Field required"})
        else:
            try:
                arguments[parameter.name] = parameter.type.validate_python(text)
            except ValidationError as error:
                found = error.errors(include_url=False, include_context=False)
                problems += [{"loc": (parameter.name, *problem["loc"]), "msg": problem["msg"]} for problem in found]
    if problems:
        raise InvalidParameters(problems)
    return arguments


class RouteTable:
    """The ASGI application of all routes: finds the route of a method and a path. If two routes match, the first one answers.

    All other requests go to `otherwise`, the framework's router: another method (405), an unknown path (404), the framework's own
    pages.
    """

    def __init__(self, routes: Iterable[BaseRoute], otherwise: ASGIApp) -> None:
        """Raises TypeError for a route that is no `DirectRoute`."""
        self._otherwise = otherwise
        self._fixed: dict[tuple[str, str], DirectRoute] = {}
        """Routes without parameters in their path."""
        patterns: dict[str, list[DirectRoute]] = {}
        for route in routes:
            if not isinstance(route, DirectRoute):
                raise TypeError(f"{route}: the router of this route has another route_class than DirectRoute")
            for method in route.methods or ():
                if route.param_convertors:
                    patterns.setdefault(method, []).append(route)
                else:
                    self._fixed.setdefault((method, route.path), route)
        self._patterns = {method: _Patterns(found) for method, found in patterns.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        route = self._fixed.get((method, path))
        if route is None and (patterns := self._patterns.get(method)) is not None:
            route, scope["path_params"] = patterns.find(path)
        if route is None:
            await self._otherwise(scope, receive, send)
        else:
            scope["route"] = route
            await route.respond(scope, receive, send)


class _Patterns:
    """Routes with parameters in their path, as one regular expression. The last group of a match identifies the route."""

    def __init__(self, routes: Iterable[DirectRoute]) -> None:
        self._routes: dict[int, tuple[DirectRoute, list[str]]] = {}
        """By the number of the route's group. The groups of the route's parameters follow the route's group."""
        alternatives, group = [], 1
        for route in routes:
            fixed, names = re.split(r"{\w+}", route.path), re.findall(r"{(\w+)}", route.path)
            alternatives.append("(" + "([^/]+)".join(map(re.escape, fixed)) + ")")
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
