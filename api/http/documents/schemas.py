"""The JSON Schemas of every event and version, and of the envelope of events. They need no key, because anybody may read them.

The schemas only change with a release. So they are rendered once, and answered with an ETag, so that a client may cache them.
"""

import hashlib
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from api.http.conventions.routing import DirectRoute
from application.engine.reading.cloudevents import ENVELOPE, ENVELOPE_PATH, schema_path, schema_uri
from domain.errors import NotFound
from domain.event_registry import UnknownEvent
from domain.registry import REGISTRY

router = APIRouter(tags=["documents"], route_class=DirectRoute)

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MEDIA_TYPE = "application/schema+json"
CACHING = "public, max-age=3600"
"""A version of an event may gain an optional field with a release. So a copy is valid for an hour, not for ever."""


def cached_document(request: Request, body: bytes, media_type: str) -> Response:
    """The document, or 304 if the client has it already (RFC 9110, section 13.1.2)."""
    tag = _tag(body)
    headers = {"ETag": tag, "Cache-Control": CACHING}
    known = {part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(",")}
    if tag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(body, 200, headers, media_type)


@lru_cache(maxsize=1_000)  # the documents are few, and rendered once
def _tag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def index() -> dict[str, Any]:
    """The index of schemas: of the envelope, and of each event and version, oldest version first."""
    events = [
        {
            "type": topic,
            "version": version,
            "newest": version == REGISTRY.events[topic].VERSION,
            "schema": schema_path(topic, version),
            "dataschema": schema_uri(topic, version),
        }
        for topic, version in REGISTRY.shapes()
    ]
    return {"cloudevent": ENVELOPE_PATH, "events": events}


def event_schema(topic: str, version: int) -> dict[str, Any]:
    """The JSON Schema of one version of an event. Raises NotFound."""
    try:
        found = REGISTRY.schema(topic, version)
    except UnknownEvent as error:
        raise NotFound(str(error)) from None
    return {"$schema": DIALECT, "$id": schema_uri(topic, version), **found}


@cache  # errors are not cached, so only existing schemas are
def _rendered(make: Callable[..., dict[str, Any]], *arguments: Any) -> bytes:
    return orjson.dumps(make(*arguments))


def _envelope() -> dict[str, Any]:
    return {"$schema": DIALECT, "$id": ENVELOPE_PATH, **ENVELOPE}


@router.get("/schemas", summary="Every event and version, with the path of its JSON Schema")
async def get_index(request: Request) -> Response:
    return cached_document(request, _rendered(index), "application/json")


@router.get(ENVELOPE_PATH, summary="The JSON Schema of the envelope of events")
async def get_envelope(request: Request) -> Response:
    return cached_document(request, _rendered(_envelope), MEDIA_TYPE)


@router.get("/schemas/{topic}/v{version}", summary="The JSON Schema of one version of an event")
async def get_event_schema(request: Request, topic: str, version: int) -> Response:
    """The schema of `data`. A field with a default may be missing in events that were recorded before the field was added."""
    return cached_document(request, _rendered(event_schema, topic, version), MEDIA_TYPE)
