"""The AsyncAPI 3.0 document of the messages of the system: events, their WebSocket, and the session of a worker. It is made from
the registry of events and from the models of messages, so it is always true."""

from functools import cache
from typing import Any

import orjson
from fastapi import APIRouter, Request
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.responses import Response

from api.http.conventions.answers import cached_document
from api.http.conventions.permissions import public
from api.http.conventions.routing import ACTION, DirectRoute
from api.http.documents import openapi, session_messages, socket_messages
from api.http.sessions.limits import OPENING, PATH, PROTOCOL
from api.http.sockets import limits as sockets
from application.engine.reading.cloudevents import CONTENT_TYPE, ENVELOPE, schema_uri
from domain.access import Action, roles_that_may
from domain.kernel import Event
from domain.registry import REGISTRY

router = APIRouter(tags=["documents"], route_class=DirectRoute)

SCHEMAS = "#/components/schemas/{model}"
DESCRIPTION = """
Events of the log as CloudEvents 1.0, in the order in which they were recorded. The application sends, subscribers receive: as
server-sent events over HTTP, over a WebSocket, and, if the fan-out is switched on, as messages of a JetStream stream. Workers get
their work, and report about it, over another WebSocket.
"""
NATS_DESCRIPTION = """
One message for each event, once and in order, in a JetStream stream that keeps messages for a time. Subscribe to subjects with
wildcards; a durable consumer continues where it stopped. The header Tidelog-History names the history of the log that the message
belongs to. Only if the server runs with TIDELOG_FANOUT=true.
"""
NO_DATA = {"type": "object"}
CONTROLS: dict[str, dict[str, Any]] = {
    "reset": {
        "type": "object",
        "properties": {
            "history": {"type": "string", "description": "Id of the present history"},
            "last_common_position": {"type": "integer", "description": "Up to this position the log is unchanged"},
            "reason": {"type": "string"},
        },
        "required": ["history", "last_common_position", "reason"],
    }
}
"""Name → schema of the payload of a message that is not an event."""


def _needs(action: Action) -> dict[str, str]:
    """Fields of an operation: its action, and who may do it."""
    roles = ", ".join(roles_that_may(action))
    return {
        ACTION: action.value,
        "description": f"The key must be allowed `{action}`, else 403; roles that may: {roles}",
    }


def build(version: str) -> dict[str, Any]:
    """The document. It is the same for all callers, so a variable stands for the server's address."""
    found = REGISTRY.shapes()
    events = {_key(topic, number): (topic, number) for topic, number in found}
    controls = {
        "end": "The run has ended, and all events were sent.",
        "resync": "The client was too slow: reconnect with the last id.",
        "reset": "The log was restored: drop all events after `last_common_position`, and reconnect with this id.",
    }
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Tidelog events", "version": version, "description": DESCRIPTION.strip()},
        "defaultContentType": CONTENT_TYPE,
        "servers": _servers(),
        "channels": {
            "tenantEvents": _sse("/v1/events", "All events of the key's tenant", [*events, "resync", "reset"]),
            "runEvents": _sse("/v1/runs/{run_id}/events", "Events of one run, until it has ended", [*events, "end", "reset"])
            | {"parameters": {"run_id": {"description": "Id of the run, a UUID"}}},
            "subjects": _subjects(found),
            "eventSocket": _event_socket(),
            "workerSession": _session(),
        },
        "operations": {
            "streamTenantEvents": _operation("tenantEvents", [*events, "resync", "reset"], http=True) | _needs(Action.EVENTS_READ),
            "streamRunEvents": _operation("runEvents", [*events, "end", "reset"], http=True) | _needs(Action.EVENTS_READ),
            "publishEvents": _operation("subjects", [*events], http=False),
            "sendOnSocket": _operation("eventSocket", socket_messages.names(socket_messages.SERVER), http=False)
            | _needs(sockets.OPENING),
            "receiveOnSocket": _operation("eventSocket", socket_messages.names(socket_messages.CLIENT), http=False)
            | {"action": "receive"}
            | _needs(sockets.OPENING),
            "sendToWorker": _operation("workerSession", _said_by("server"), http=False) | _needs(OPENING),
            "receiveFromWorker": _operation("workerSession", _said_by("worker"), http=False)
            | {"action": "receive"}
            | _needs(OPENING),
        },
        "components": {
            "messages": {
                **{key: _message(*event) for key, event in events.items()},
                **{
                    name: {"name": name, "summary": text, "payload": CONTROLS.get(name, NO_DATA)} for name, text in controls.items()
                },
                **socket_messages.messages(),
                **{key: {"contentType": "application/json", **said} for key, said in session_messages.messages().items()},
            },
            "schemas": {**_schemas(found), **socket_messages.schemas(), **session_messages.schemas()},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "httpApiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _key(topic: str, version: int) -> str:
    return f"{topic}.v{version}"


def _reference(*place: str) -> dict[str, str]:
    return {"$ref": "#/" + "/".join(place)}


def _servers() -> dict[str, Any]:
    host = {"description": "Host and port that this document came from", "default": "127.0.0.1:8700"}
    address = {"description": "Host and port of the NATS server", "default": "127.0.0.1:4222"}
    bearer = [_reference("components", "securitySchemes", "bearer")]
    http = {
        "host": "{host}",
        "description": "Server-sent events, with `Accept: text/event-stream`",
        "variables": {"host": host},
        "security": [_reference("components", "securitySchemes", name) for name in ("bearer", "apiKey")],
    }
    return {
        "http": {**http, "protocol": "http"},
        "https": {**http, "protocol": "https", "description": "The same behind a proxy that speaks TLS"},
        "ws": {**http, "protocol": "ws", "description": "WebSocket of the workers", "security": bearer},
        "wss": {**http, "protocol": "wss", "description": "The same behind a proxy that speaks TLS", "security": bearer},
        "eventWs": {**http, "protocol": "ws", "description": "WebSocket of event streams"},
        "eventWss": {**http, "protocol": "wss", "description": "The same behind a proxy that speaks TLS"},
        "nats": {"host": "{address}", "protocol": "nats", "variables": {"address": address}},
    }


def _sse(address: str, title: str, messages: list[str]) -> dict[str, Any]:
    return {
        "address": address,
        "title": title,
        "description": "`id:` is a cursor, `event:` the message's name, `data:` its payload. Reconnect with `Last-Event-ID`.",
        "servers": [_reference("servers", "http"), _reference("servers", "https")],
        "messages": {key: _reference("components", "messages", key) for key in messages},
    }


def _subjects(found: dict[tuple[str, int], type[Event]]) -> dict[str, Any]:
    slices, happened = ({topic.split(".")[part] for topic, _ in found} for part in (0, 1))
    return {
        "address": "tidelog.{log}.{tenant}.{slice}.{event}",
        "title": "Events on NATS",
        "description": NATS_DESCRIPTION.strip(),
        "servers": [_reference("servers", "nats")],
        "messages": {_key(*event): _reference("components", "messages", _key(*event)) for event in found},
        "parameters": {
            "log": {"description": "Id of the log, as in the name of the stream, TIDELOG_EVENTS_<log id>; * for any"},
            "tenant": {"description": "Id of the tenant, a UUID", "location": "$message.payload#/tenantid"},
            "slice": {"description": "The type up to its dot", "enum": sorted(slices)},
            "event": {"description": "The type after its dot", "enum": sorted(happened)},
        },
    }


def _session() -> dict[str, Any]:
    return {
        "address": PATH,
        "title": "The session of a worker",
        "description": f"Subprotocol `{PROTOCOL}`. A frame is a JSON array of messages. Reference: worker-sessions.md",
        "servers": [_reference("servers", "ws"), _reference("servers", "wss")],
        "messages": {key: _reference("components", "messages", key) for key in session_messages.messages()},
        "bindings": {"ws": {"method": "GET", "bindingVersion": "0.1.0"}},
    }


def _event_socket() -> dict[str, Any]:
    return {
        "address": sockets.PATH,
        "title": "Event streams over a WebSocket",
        "description": f"Subprotocol `{sockets.PROTOCOL}`. A frame is one JSON object. Reference: streams.md",
        "servers": [_reference("servers", name) for name in ("eventWs", "eventWss")],
        "messages": {key: _reference("components", "messages", key) for key in socket_messages.messages()},
        "bindings": {"ws": {"method": "GET", "bindingVersion": "0.1.0"}},
    }


def _said_by(side: str) -> list[str]:
    return [key for key in session_messages.messages() if key.startswith(f"{side}.")]


def _operation(channel: str, messages: list[str], *, http: bool) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "action": "send",
        "channel": _reference("channels", channel),
        "messages": [_reference("channels", channel, "messages", key) for key in messages],
    }
    if http:
        operation["bindings"] = {"http": {"method": "GET", "bindingVersion": "0.3.0"}}
    return operation


def _message(topic: str, version: int) -> dict[str, Any]:
    """The envelope with the type, schema and data of one event. Further fields are allowed: a newer server may send them."""
    particular = {
        "properties": {
            "type": {"const": topic},
            "dataschema": {"const": schema_uri(topic, version)},
            "data": _reference("components", "schemas", _key(topic, version)),
        }
    }
    return {
        "name": topic,
        "title": f"{topic}, version {version}",
        "contentType": CONTENT_TYPE,
        "payload": {"allOf": [_reference("components", "schemas", "CloudEvent"), particular]},
    }


def _schemas(found: dict[tuple[str, int], type[Event]]) -> dict[str, Any]:
    """The schemas by name: the envelope, each event under its topic and version, and the values in events under their own names."""
    models: list[tuple[type[BaseModel], Any]] = [(shape, "validation") for shape in found.values()]
    references, definitions = models_json_schema(models, ref_template=SCHEMAS)
    values = dict(definitions.get("$defs", {}))
    events = {}
    for (topic, version), shape in found.items():
        name = references[shape, "validation"]["$ref"].rpartition("/")[2]
        events[_key(topic, version)] = values.pop(name)
    return {"CloudEvent": ENVELOPE, **events, **values}


@router.get(
    "/asyncapi.json",
    summary="The AsyncAPI document of the event streams",
    responses={
        200: openapi.gives_content({"application/json": {"type": "object"}}, "ETag", "Cache-Control"), 304: openapi.NOT_MODIFIED
    },
    openapi_extra=openapi.takes_headers("If-None-Match"),
)  # fmt: skip
@public
async def get_asyncapi(request: Request) -> Response:
    """The events of each stream and NATS subject, with their schemas."""
    return cached_document(request, _rendered(request.app.version), "application/json")


@cache
def _rendered(version: str) -> bytes:
    return orjson.dumps(build(version))
