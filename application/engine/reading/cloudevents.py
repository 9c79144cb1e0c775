"""The form in which events leave the system: CloudEvents 1.0, JSON format, with our extension attributes."""

import re
from base64 import b64encode
from collections.abc import Container
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import orjson

from domain import values
from domain.kernel import RecordedEvent, timestamp

CONTENT_TYPE = "application/cloudevents+json"
ENVELOPE_PATH = "/schemas/cloudevent"
SCHEMA_BASE = "urn:tidelog:"
"""`dataschema` is this and a path of the HTTP interface without its first slash. CloudEvents wants an absolute URI, and an event is
the same wherever it is met: so no host stands in it."""
NOT_IN_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
"""Characters that an attribute of a CloudEvent must not have (CloudEvents 1.0, section "Type System")."""
UNKNOWN = "unknown"
MOST_SHARED, MOST_SHARED_BYTES = 256, 16 * 1024
"""How many encoded events are remembered, and up to which size."""

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
        "datacontenttype": {"enum": ["application/json", "application/octet-stream"]},
        "dataschema": {
            "type": "string",
            "format": "uri",
            "pattern": "^urn:tidelog:schemas/.+/v[0-9]+$",
            "description": "The `$id` of the JSON Schema of `data`: urn:tidelog:schemas/<type>/v<version>. The HTTP interface "
            "serves the schema under the path /schemas/<type>/v<version>",
        },
        "position": {
            "type": "integer",
            "minimum": 1,
            "description": "Place in the total order of the log. It may need more than the 32 bits of an Integer of CloudEvents",
        },
        "streamversion": {"type": "integer", "minimum": 1, "description": "Place in its stream"},
        "rootid": {"type": "string", "format": "uuid", "description": "The run for everything inside a run, else the stream"},
        "tenantid": {"type": "string", "format": "uuid"},
        "actor": {"type": "string", "description": "key:<key id>, saga:<name>, trigger:<name>, timer, system; or unknown"},
        "onbehalfof": {
            "type": "string",
            "minLength": 1,
            "description": "For whom the actor asked, as the caller said. Missing: for nobody",
        },
        "correlationid": {"type": "string", "description": "The same on everything that follows from one request"},
        "causationid": {"type": "string", "description": "What directly caused it: the id of a command or event, or unknown"},
        "traceparent": {"type": "string", "description": "W3C trace context, if there was one"},
        "data": {"description": "The event's own fields, as `dataschema` says"},
        "data_base64": {"type": "string", "description": "In place of `data` that is not JSON: of those who only use the log"},
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
    "oneOf": [{"required": ["data"]}, {"required": ["data_base64"]}, {"required": ["dataref"]}],
}  # fmt: skip
"""JSON Schema (2020-12) of what `CloudEventEncoder` makes."""


def schema_path(topic: str, version: int) -> str:
    """Where the HTTP interface serves the JSON Schema of an event's `data`."""
    return f"/schemas/{topic}/v{version}"


@lru_cache(maxsize=1_000)
def schema_uri(topic: str, version: int) -> str:
    """The absolute URI of the JSON Schema of an event's `data`: its `dataschema`, and the `$id` of the schema."""
    return SCHEMA_BASE + quote(schema_path(topic, version)[1:], safe="/.")


class CloudEventEncoder:
    """Makes CloudEvents of recorded events.

    `topics`: topics of the product's own events. Their data is certainly JSON and need not be checked.
    """

    def __init__(self, topics: Container[str]) -> None:
        self._topics = topics
        self._recent: dict[int, tuple[RecordedEvent, bytes]] = {}
        """By position, oldest first."""

    def shared(self, recorded: RecordedEvent) -> bytes:
        """As `encode`, and remembered for a while: all readers of a process that follow the log get the same event, with whatever
        filters."""
        found = self._recent.get(recorded.position)
        if found is not None and found[0] is recorded:
            return found[1]
        made = self.encode(recorded)
        if len(made) <= MOST_SHARED_BYTES:
            if len(self._recent) >= MOST_SHARED:
                del self._recent[next(iter(self._recent))]
            self._recent[recorded.position] = recorded, made
        return made

    def encode(self, recorded: RecordedEvent, *, by_reference: bool = False) -> bytes:
        """One event as a CloudEvents JSON object. `data` is the stored JSON, byte for byte.

        A program that only uses the log may write events without our metadata, with text that no attribute may have, or with data
        that is not JSON. Such events are encoded, too: an attribute that cannot be used is `unknown`, and a character of the type
        that must not be there is replaced.

        `by_reference`: without the data, with the path where the event can be fetched (the `dataref` extension of CloudEvents).
        """
        ours = recorded.topic in self._topics
        metadata = _metadata(recorded.metadata, ours)
        event = {
            "specversion": "1.0",
            "id": recorded.name,
            "source": f"/tenants/{recorded.tenant_id}",
            "type": recorded.topic if ours else NOT_IN_TEXT.sub("\ufffd", recorded.topic) or UNKNOWN,
            "subject": str(recorded.stream_id),
            "time": timestamp(recorded.recorded_at),
            "datacontenttype": "application/json",
            "dataschema": schema_uri(recorded.topic, recorded.schema_version),
            "position": recorded.position,
            "streamversion": recorded.version,
            "rootid": str(recorded.root_id),
            "tenantid": str(recorded.tenant_id),
            "actor": metadata.get("actor", UNKNOWN),
            "correlationid": metadata.get("correlation_id", str(recorded.root_id)),
            "causationid": metadata.get("causation_id", UNKNOWN),
        }
        for name, attribute in (("on_behalf_of", "onbehalfof"), ("traceparent", "traceparent")):
            if metadata.get(name):
                event[attribute] = metadata[name]
        if by_reference:
            event["dataref"] = f"/v1/events/{recorded.position}"
        elif ours or _is_json(recorded.state):
            event["data"] = orjson.Fragment(recorded.state)
        else:
            event["datacontenttype"] = "application/octet-stream"
            event["data_base64"] = b64encode(recorded.state).decode()
        return orjson.dumps(event)


def _metadata(text: str, ours: bool) -> dict[str, Any]:
    """The metadata. Of events that are not `ours`, only values that an attribute may have."""
    try:
        metadata = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(metadata, dict):
        return {}
    return metadata if ours else {name: value for name, value in metadata.items() if _is_text(value)}


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != "" and NOT_IN_TEXT.search(value) is None


def _is_json(state: bytes) -> bool:
    try:
        if b"NaN" in state or b"Infinity" in state:  # these names are no JSON, and `values.read` takes them as numbers
            orjson.loads(state)
        values.read(state)
    except ValueError:
        return False
    return True
