"""What a trigger is about: one event of the log, or one delivery of a webhook, as expressions see it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from application.engine.reading.cloudevents import CloudEventEncoder
from domain.kernel import Json, RecordedEvent
from domain.starting import id_at

OF_EVENTS = ("event",)
OF_HOOKS = ("body", "headers")
"""The values that expressions may use."""


@dataclass(frozen=True, slots=True)
class Occurrence:
    tenant_id: UUID
    at: datetime
    """When the event was recorded, or the delivery came."""
    values: Mapping[str, Json]
    correlation_id: UUID
    causation_id: str
    traceparent: str | None = None
    on_behalf_of: str | None = None
    event: str | None = None
    delivery: str | None = None
    position: int | None = None
    depth: int = 0
    """How many firings of triggers led here."""

    @property
    def minute(self) -> int:
        return int(self.at.timestamp() // 60)

    @property
    def name(self) -> str:
        """The same for the same event, whenever it is looked at."""
        return self.event or f"delivery:{self.delivery}"

    def id_for(self, trigger_id: UUID, what: str = "") -> UUID:
        """An id that follows from the trigger and the occurrence."""
        return id_at(self.at, trigger_id, f"{self.name}{what}")


def values_of(encoder: CloudEventEncoder, recorded: RecordedEvent) -> dict[str, Json]:
    """What expressions see of an event: the CloudEvent that everybody gets."""
    return {"event": json.loads(encoder.encode(recorded))}


def occurrence_of(recorded: RecordedEvent, values: Mapping[str, Json], depth: int) -> Occurrence:
    event = values["event"]
    return Occurrence(
        tenant_id=recorded.tenant_id,
        at=recorded.recorded_at,
        values=values,
        correlation_id=_uuid(event["correlationid"]) or recorded.root_id,
        causation_id=recorded.name,
        traceparent=event.get("traceparent"),
        on_behalf_of=event.get("onbehalfof"),
        event=recorded.name,
        position=recorded.position,
        depth=depth,
    )


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
