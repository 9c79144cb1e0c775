"""The form in which events leave the system: CloudEvents 1.0, JSON format, with our extension attributes."""

from typing import Any

import orjson

from domain.kernel import RecordedEvent, timestamp

CONTENT_TYPE = "application/cloudevents+json"
ENVELOPE_PATH = "/schemas/cloudevent"

ENVELOPE: dict[str, Any] = {
    "title": "CloudEvent",
    "description": "An event of the log as a CloudEvents 1.0 JSON object, with our extension attributes. Others may be added.",
    "type": "object",
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {
            "type": "string",
            "pattern": "^[0-9a-f-]{36}:[1-9][0-9]*$",
            "description": "<stream id>:<version>; the same wherever the event is met",
        },
        "source": {"type": "string", "format": "uri-reference", "description": "/tenants/<tenant id>"},
        "type": {"type": "string", "minLength": 1, "description": "The event's topic, such as run.started"},
        "subject": {"type": "string", "format": "uuid", "description": "Id of the stream that the event is of"},
        "time": {"type": "string", "format": "date-time", "description": "When it was recorded, in UTC"},
        "datacontenttype": {"const": "application/json"},
        "dataschema": {
            "type": "string",
            "format": "uri-reference",
            "description": "Path of the JSON Schema of `data`, on the HTTP interface: /schemas/<type>/v<version>",
        },
        "position": {"type": "integer", "minimum": 1, "description": "Place in the total order of the log"},
        "streamversion": {"type": "integer", "minimum": 1, "description": "Place in its stream"},
        "rootid": {"type": "string", "format": "uuid", "description": "The run for everything inside a run, else the stream"},
        "tenantid": {"type": "string", "format": "uuid"},
        "actor": {"type": "string", "description": "Who asked: key:<key id>, saga:<name>, timer, system"},
        "correlationid": {"type": "string", "description": "The same on everything that follows from one request"},
        "causationid": {"type": "string", "description": "What directly caused it: a command's id, or the id of an event"},
        "traceparent": {"type": "string", "description": "W3C trace context, if there was one"},
        "data": {"description": "The event's own fields, as `dataschema` says"},
        "dataref": {
            "type": "string",
            "format": "uri-reference",
            "description": "In place of `data` that is too large for the transport: path of the whole event, on the HTTP interface",
        },
    },
    "required": [
        "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "position", "streamversion",
        "rootid", "tenantid", "actor", "correlationid", "causationid",
    ],
    "oneOf": [{"required": ["data"]}, {"required": ["dataref"]}],
}  # fmt: skip
"""JSON Schema (2020-12) of what `to_cloudevent` makes."""


def schema_path(topic: str, version: int) -> str:
    """Where the HTTP interface serves the JSON Schema of an event's `data`."""
    return f"/schemas/{topic}/v{version}"


def to_cloudevent(recorded: RecordedEvent, *, by_reference: bool = False) -> bytes:
    """One event as a CloudEvents JSON object. `data` is the stored JSON itself, not decoded on the way.

    `by_reference`: without its data, with the path where it can be fetched (the `dataref` extension of CloudEvents).
    """
    metadata = orjson.loads(recorded.metadata)
    event = {
        "specversion": "1.0",
        "id": recorded.name,
        "source": f"/tenants/{recorded.tenant_id}",
        "type": recorded.topic,
        "subject": str(recorded.stream_id),
        "time": timestamp(recorded.recorded_at),
        "datacontenttype": "application/json",
        "dataschema": schema_path(recorded.topic, recorded.schema_version),
        "position": recorded.position,
        "streamversion": recorded.version,
        "rootid": str(recorded.root_id),
        "tenantid": str(recorded.tenant_id),
        "actor": metadata["actor"],
        "correlationid": metadata["correlation_id"],
        "causationid": metadata["causation_id"],
    }
    if metadata.get("traceparent"):
        event["traceparent"] = metadata["traceparent"]
    if by_reference:
        event["dataref"] = f"/v1/events/{recorded.position}"
    else:
        event["data"] = orjson.Fragment(recorded.state)
    return orjson.dumps(event)
