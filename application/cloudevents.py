"""The form in which events leave the system: CloudEvents 1.0, JSON format, with our extension attributes."""

import orjson

from domain.kernel import RecordedEvent, timestamp


def to_cloudevent(recorded: RecordedEvent) -> bytes:
    """One event as a CloudEvents JSON object. `data` is the stored JSON itself, not decoded on the way."""
    metadata = orjson.loads(recorded.metadata)
    event = {
        "specversion": "1.0",
        "id": recorded.name,
        "source": f"/tenants/{recorded.tenant_id}",
        "type": recorded.topic,
        "subject": str(recorded.stream_id),
        "time": timestamp(recorded.recorded_at),
        "datacontenttype": "application/json",
        "dataschema": f"/schemas/{recorded.topic}/{recorded.schema_version}",
        "position": recorded.position,
        "streamversion": recorded.version,
        "rootid": str(recorded.root_id),
        "tenantid": str(recorded.tenant_id),
        "actor": metadata["actor"],
        "correlationid": metadata["correlation_id"],
        "causationid": metadata["causation_id"],
        "data": orjson.Fragment(recorded.state),
    }
    if metadata.get("traceparent"):
        event["traceparent"] = metadata["traceparent"]
    return orjson.dumps(event)
