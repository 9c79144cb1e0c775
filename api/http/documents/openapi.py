"""The OpenAPI 3.1 document. Routes parse their bodies themselves (bodies.body_of); this file documents the bodies."""

from functools import cache
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.responses import Response
from starlette.routing import Route

from api.http.documents.schemas import cached_document
from application.engine.reading.cloudevents import CONTENT_TYPE, ENVELOPE

REF = "#/components/schemas/{model}"
_MODELS: dict[str, type[BaseModel]] = {}

DESCRIPTION = """
Commands append events to the log; all reads are derived from the log.

* **Authentication**: `Authorization: Bearer <key>` or `X-API-Key: <key>`.
* **Commands** answer with the `position` of their last event. Give it back in the header `Tidelog-Position` of a read, and the read
  waits until it shows what you wrote.
* **Errors** are problem details (RFC 9457) with a stable `code` and `retryable`.
* **Streams** are server-sent events, described in `/asyncapi.json`; reconnect with `Last-Event-ID`: no event is lost or repeated.
* **Histories**: a log that was restored from a backup has other events after some position. A cursor from before the restore is
  answered with 410 `history-replaced`, or with `event: reset` in a stream; both give the last common position. `Tidelog-History`
  names the current history.
* **Events** are CloudEvents; `dataschema` is the `$id` of the JSON Schema of their `data`, and `/schemas` lists all schemas.
"""


def body(model: type[BaseModel], *examples: dict[str, Any]) -> dict[str, Any]:
    """`openapi_extra` of a route whose body is this model."""
    _MODELS[model.__name__] = model
    content: dict[str, Any] = {"schema": {"$ref": REF.format(model=model.__name__)}}
    if examples:
        content["examples"] = {f"{i + 1}": {"value": example} for i, example in enumerate(examples)}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


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
            "items": {"type": "object", "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}}},
        },
    },
}

_CLOUD_EVENT = {"$ref": REF.format(model="CloudEvent")}
_EVENT_PAGE = {
    "type": "object",
    "properties": {"data": {"type": "array", "items": _CLOUD_EVENT}, "next_cursor": {"type": ["string", "null"]}},
    "required": ["data", "next_cursor"],
}
_EVENT_STREAM = {"type": "string", "description": "Server-sent events; each `data:` is a CloudEvent, see /asyncapi.json"}
_EVENT_ANSWERS: dict[str, dict[str, Any]] = {
    "/v1/events": {"application/json": _EVENT_PAGE, "text/event-stream": _EVENT_STREAM},
    "/v1/runs/{run_id}/events": {"application/json": _EVENT_PAGE, "text/event-stream": _EVENT_STREAM},
    "/v1/events/{position}": {CONTENT_TYPE: _CLOUD_EVENT},
}
"""Route → media type → schema of an answer with events."""


def install(app: FastAPI) -> None:
    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _build(app)
        return app.openapi_schema

    @cache
    def rendered() -> bytes:
        return orjson.dumps(document())

    async def answer(request: Request) -> Response:
        return cached_document(request, rendered(), "application/json")

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way to extend the document
    for i, route in enumerate(app.router.routes):  # the framework's route renders the document for each request
        if isinstance(route, Route) and route.path == app.openapi_url:
            app.router.routes[i] = Route(route.path, answer, include_in_schema=False)


def _build(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(title=app.title, version=app.version, openapi_version="3.1.0", description=DESCRIPTION, routes=app.routes)
    components = schema.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    _, definitions = models_json_schema([(model, "validation") for model in _MODELS.values()], ref_template=REF)
    schemas.update(definitions.get("$defs", {}))
    schemas["Problem"] = PROBLEM
    schemas["CloudEvent"] = {**ENVELOPE, "externalDocs": {"url": "/schemas", "description": "The JSON Schemas of `data`, by type"}}
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    schema["security"] = [{"bearer": []}, {"apiKey": []}]
    problem = {"application/problem+json": {"schema": {"$ref": REF.format(model="Problem")}}}
    for path, answers in _EVENT_ANSWERS.items():
        schema["paths"][path]["get"]["responses"]["200"]["content"] = {kind: {"schema": answers[kind]} for kind in answers}
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = {"description": "Problem details", "content": problem}
            if not path.startswith("/v1/"):
                operation["security"] = []
    return schema
