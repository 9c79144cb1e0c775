"""The OpenAPI 3.1 document. Routes parse their bodies and headers themselves; the helpers of this file declare them."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import orjson
from fastapi import APIRouter, Request
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict
from pydantic.json_schema import JsonSchemaMode, models_json_schema
from starlette.responses import Response
from starlette.routing import BaseRoute

from api.http.conventions.answers import cached_document
from api.http.conventions.errors import TITLES
from api.http.conventions.permissions import public
from api.http.conventions.routing import ACTION, DirectRoute
from api.http.conventions.sites import COOKIE
from api.http.documents.headers import headers, parameter
from application.engine.reading.cloudevents import CONTENT_TYPE, ENVELOPE
from domain.access import Action, roles_that_may

router = APIRouter(tags=["documents"], route_class=DirectRoute)

REF = "#/components/schemas/{model}"
HOOKS = "/hooks/"
"""How paths begin that need a signature instead of a key."""
_BODIES: dict[str, type[BaseModel]] = {}
_ANSWERS: dict[str, type[BaseModel]] = {}
"""Models by name. Their schemas are made when somebody asks for the document, which takes memory."""

DESCRIPTION = """
Commands append events to the log; all reads are derived from the log.

* **Authentication**: `Authorization: Bearer <key>` or `X-API-Key: <key>`.
  A browser that was signed in by `POST /v1/sessions` asks by its cookie.
* **Permissions**: `x-action` of an operation names what it does, and the role of the key must allow that. A key that may not is
  answered with 403 `forbidden`, with the `action`, the key's `role`, and the `roles` that may.
* **Commands** answer with the `position` of their last event. Give it back in the header `Tidelog-Position` of a read, and the read
  waits until it shows what you wrote.
* **Errors** are problem details (RFC 9457) with a stable `code` and `retryable`.
* **Streams** are server-sent events, described in `/asyncapi.json`; reconnect with `Last-Event-ID`: no event is lost or repeated.
* **Histories**: a log that was restored from a backup has other events after some position. A cursor from before the restore is
  answered with 410 `history-replaced`, or with `event: reset` in a stream; both give the last common position. `Tidelog-History`
  names the current history.
* **Events** are CloudEvents; `dataschema` is the `$id` of the JSON Schema of their `data`, and `/schemas` lists all schemas.
"""


OF_COOKIE = (
    "Of a browser, as `POST /v1/sessions` sets it. The name has the port of the address behind it, and `__Host-` before it where "
    "the browser speaks TLS. A request other than GET and HEAD needs an `Origin` or a `Sec-Fetch-Site` of this server."
)


class Shown(BaseModel):
    """The base of a model that only describes an answer. It is built when somebody asks for the document."""

    model_config = ConfigDict(defer_build=True)


def body(model: type[BaseModel], *examples: dict[str, Any], takes: Sequence[str] = ()) -> dict[str, Any]:
    """`openapi_extra` of a route whose body is this model. `takes`: headers that the route reads."""
    _BODIES[model.__name__] = model
    content: dict[str, Any] = {"schema": {"$ref": REF.format(model=model.__name__)}}
    if examples:
        content["examples"] = {f"{i + 1}": {"value": example} for i, example in enumerate(examples)}
    return {"requestBody": {"required": True, "content": {"application/json": content}}, **takes_headers(*takes)}


BINARY: dict[str, Any] = {"type": "string", "format": "binary"}


def takes_content(*, takes: Sequence[str] = ()) -> dict[str, Any]:
    """`openapi_extra` of a route whose body is a content of any type."""
    return {"requestBody": {"required": True, "content": {"*/*": {"schema": BINARY}}}, **takes_headers(*takes)}


def takes_headers(*names: str) -> dict[str, Any]:
    """`openapi_extra` of a route that reads these headers."""
    return {"parameters": [parameter(name) for name in names]}


def gives(model: type[BaseModel], *names: str) -> dict[str, Any]:
    """A value of `responses`: an answer of this model with these headers."""
    assert _ANSWERS.setdefault(model.__name__, model) is model
    return gives_content({"application/json": {"$ref": REF.format(model=model.__name__)}}, *names, description="The answer")


def gives_content(content: dict[str, Any], *names: str, description: str = "The document") -> dict[str, Any]:
    """A value of `responses`: an answer of these media types (each with its schema) with these headers."""
    return {
        "content": {kind: {"schema": schema} for kind, schema in content.items()},
        "headers": headers(*names),
        "description": description,
    }


REDIRECT: dict[str, Any] = {"description": "Where to go on", "headers": headers("Location")}


def still_the_same(*names: str) -> dict[str, Any]:
    """A value of `responses`: 304, with these headers."""
    return {"description": "The document is still the same", "headers": headers(*names)}


NOT_MODIFIED = still_the_same("ETag", "Cache-Control")

VALUES: dict[int | str, dict[str, Any]] = {
    200: gives_content(
        {"application/json": {"description": "The value itself, any JSON"}},
        "Tidelog-Position", "ETag", "Cache-Control", description="The value",
    ),
    304: {"description": "The value is still the same", "headers": headers("Tidelog-Position", "ETag", "Cache-Control")},
}  # fmt: skip
"""`responses` of a route that answers one value of a user."""


PROBLEM = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "code": {"type": "string", "description": "Stable; for programs."},
        "retryable": {"type": "boolean"},
        "trace_id": {"type": ["string", "null"]},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
                "required": ["pointer", "detail"],
            },
        },
        "current_version": {"type": "integer", "description": "With `version-conflict` and `precondition-failed`."},
        "head": {"type": "integer", "description": "With `position-beyond-head`: the newest position."},
        "history": {"type": "string", "description": "With `history-replaced`: id of the present history."},
        "last_common_position": {"type": "integer", "description": "With `history-replaced`."},
        "cursor": {"type": "string", "description": "With `history-replaced`: where to go on."},
        "referred_by": {
            "type": "array",
            "items": {"type": "string", "format": "uuid"},
            "description": "With `blob-in-use`: roots of events that refer to the blob.",
        },
        "action": {"type": "string", "description": "With `forbidden`, if the role of the key does not allow it: the action."},
        "role": {"type": "string", "description": "With `action`: the role of the key."},
        "roles": {"type": "array", "items": {"type": "string"}, "description": "With `action`: the roles that may."},
    },
    "required": ["type", "title", "status", "detail", "instance", "code", "retryable", "trace_id"],
}

CLOUD_EVENT = {"$ref": REF.format(model="CloudEvent")}
EVENT_PAGE = {
    "type": "object",
    "properties": {"data": {"type": "array", "items": CLOUD_EVENT}, "next_cursor": {"type": ["string", "null"]}},
    "required": ["data", "next_cursor"],
}
EVENT_STREAM = {"type": "string", "description": "Server-sent events; each `data:` is a CloudEvent, see /asyncapi.json"}
EVENT = gives_content({CONTENT_TYPE: CLOUD_EVENT}, "Tidelog-History", description="The event")
EVENTS = gives_content(
    {"application/json": EVENT_PAGE, "text/event-stream": EVENT_STREAM},
    "Tidelog-Position", "Tidelog-History", "Link", "Cache-Control", "X-Accel-Buffering", description="A page, or a stream",
)  # fmt: skip


def problem_with(*names: str, description: str) -> dict[str, Any]:
    """A value of `responses`: problem details with these headers."""
    return {
        "description": description,
        "headers": headers(*names),
        "content": {"application/problem+json": {"schema": {"$ref": REF.format(model="Problem")}}},
    }


_PROBLEM_HEADERS = {
    401: ("WWW-Authenticate",), 415: ("Accept", "Accept-Encoding"), 429: ("Retry-After",), 503: ("Retry-After",),
}  # fmt: skip


class Document:
    """The OpenAPI document of routes, built when it is first asked for."""

    def __init__(self, version: str, routes: Sequence[BaseRoute]) -> None:
        self._version = version
        self._routes = routes

    @cached_property
    def rendered(self) -> bytes:
        return orjson.dumps(_build(self._version, self._routes))


@router.get(
    "/openapi.json",
    summary="The OpenAPI document of all routes",
    responses={200: gives_content({"application/json": {"type": "object"}}, "ETag", "Cache-Control"), 304: NOT_MODIFIED},
    openapi_extra=takes_headers("If-None-Match"),
)
@public
async def get_openapi_document(request: Request) -> Response:
    document: Document = request.app.state.openapi
    return cached_document(request, document.rendered, "application/json")


def _build(version: str, routes: Sequence[BaseRoute]) -> dict[str, Any]:
    schema = get_openapi(title="Tidelog", version=version, openapi_version="3.1.0", description=DESCRIPTION, routes=routes)
    components = schema.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "validation") for model in _BODIES.values()]
    models += [(model, "serialization") for model in _ANSWERS.values()]
    _, definitions = models_json_schema(models, ref_template=REF)
    schemas.update(definitions.get("$defs", {}))
    schemas.pop("HTTPValidationError", None)  # FastAPI's own form of a 422, which no route answers
    schemas.pop("ValidationError", None)
    schemas["Problem"] = PROBLEM
    schemas["CloudEvent"] = {**ENVELOPE, "externalDocs": {"url": "/schemas", "description": "The JSON Schemas of `data`, by type"}}
    components["responses"] = {f"Problem{status}": _problem(status) for status in TITLES}
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        "session": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": OF_COOKIE},
    }
    schema["security"] = [{"bearer": []}, {"apiKey": []}, {"session": []}]
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            _complete(path, method, operation)
    return schema


def _problem(status: int | None = None) -> dict[str, Any]:
    return {
        "description": "Problem details" if status is None else TITLES[status],
        "headers": headers(*_PROBLEM_HEADERS.get(status or 0, ())),
        "content": {"application/problem+json": {"schema": {"$ref": REF.format(model="Problem")}}},
    }


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    """Adds the errors of an operation, and removes what FastAPI only guesses."""
    answers = operation["responses"]
    answers.pop("422", None)
    for answer in answers.values():
        content = answer.get("content", {})
        if len(content) > 1:
            answer["content"] = {kind: media for kind, media in content.items() if media.get("schema") != {}}
        answer.setdefault("headers", headers())
    for status in sorted(_errors(path, method, operation)):
        answers.setdefault(str(status), {"$ref": f"#/components/responses/Problem{status}"})
    answers["default"] = _problem()
    if ACTION in operation:
        action = Action(operation[ACTION])
        answers["403"]["description"] = f"The key may not `{action}`; roles that may: {', '.join(roles_that_may(action))}"
    else:
        operation["security"] = []


def _errors(path: str, method: str, operation: dict[str, Any]) -> set[int]:
    """The statuses of errors that an operation may answer."""
    given = {(known["in"], known["name"]) for known in operation.get("parameters", ())}
    found = {422, 429, 500, 503}
    for applies, statuses in (
        (ACTION in operation, (401, 403)),
        (ACTION in operation and method != "get", (409,)),
        (any(place == "path" for place, _ in given), (404,)),
        ("requestBody" in operation, (400, 404, 408, 413, 415)),
        (("header", "If-Match") in given, (412,)),
        (("header", "Tidelog-Position") in given, (410, 504)),
        (("header", "Last-Event-ID") in given, (410,)),
        (("query", "as_of") in given, (413,)),
        (path.startswith("/v1/agent-runs/"), (409,)),
        (path.startswith(HOOKS), (401, 409)),
    ):
        if applies:
            found.update(statuses)
    return found
