"""The JSON Schemas of every event and version, and of the envelope of events. They need no key, because anybody may read them.

The schemas only change with a release. So they are rendered once, and answered with an ETag, so that a client may cache them.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import orjson
from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from api.http.conventions.answers import cached_document
from api.http.conventions.permissions import public
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from application.engine.reading.cloudevents import ENVELOPE, ENVELOPE_PATH, schema_path, schema_uri
from domain.errors import NotFound
from domain.event_registry import UnknownEvent
from domain.registry import REGISTRY

router = APIRouter(tags=["documents"], route_class=DirectRoute)

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MEDIA_TYPE = "application/schema+json"


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


class SchemaOfEvent(openapi.Shown):
    type: str
    version: int
    newest: bool
    """Whether events of this type are recorded in this version now."""
    schema_path: str = Field(alias="schema")
    """The path of the JSON Schema."""
    dataschema: str
    """The name of the schema in events, and its `$id`."""


class SchemaIndex(openapi.Shown):
    cloudevent: str
    """The path of the JSON Schema of the envelope."""
    events: list[SchemaOfEvent]


_SCHEMA = openapi.gives_content({MEDIA_TYPE: {"type": "object"}}, "ETag", "Cache-Control", description="The JSON Schema")
_ANSWERS: dict[int | str, Any] = {200: _SCHEMA, 304: openapi.NOT_MODIFIED}
_TAKES = openapi.takes_headers("If-None-Match")


@router.get(
    "/schemas",
    summary="Every event and version, with the path of its JSON Schema",
    responses={200: openapi.gives(SchemaIndex, "ETag", "Cache-Control"), 304: openapi.NOT_MODIFIED},
    openapi_extra=_TAKES,
)
@public
async def get_index(request: Request) -> Response:
    return cached_document(request, _rendered(index), "application/json")


@router.get(ENVELOPE_PATH, summary="The JSON Schema of the envelope of events", responses=_ANSWERS, openapi_extra=_TAKES)
@public
async def get_envelope(request: Request) -> Response:
    return cached_document(request, _rendered(_envelope), MEDIA_TYPE)


@router.get(
    "/schemas/{topic}/v{version}",
    summary="The JSON Schema of one version of an event",
    responses=_ANSWERS,
    openapi_extra=_TAKES,
)
@public
async def get_event_schema(request: Request, topic: str, version: int) -> Response:
    """The schema of `data`. A field with a default may be missing in events that were recorded before the field was added."""
    return cached_document(request, _rendered(event_schema, topic, version), MEDIA_TYPE)
