"""What has come of a trigger, from its stream."""

from typing import Any
from uuid import UUID

from application.engine.ports.log import EventFeed
from application.engine.ports.pages import Page, encode_cursor
from application.views.triggers import FiringView
from domain.event_registry import EventRegistry, UnknownEvent
from domain.kernel import RecordedEvent
from domain.triggers import TriggerFired, TriggerLimited, TriggerMisfired, TriggerPaused

SHOWN = (TriggerFired, TriggerMisfired, TriggerLimited, TriggerPaused)
TOPICS = sorted(event.TOPIC for event in SHOWN)


async def read_firings(
    feed: EventFeed, registry: EventRegistry, tenant_id: UUID, trigger_id: UUID, *, limit: int, before: int | None
) -> Page[FiringView]:
    """The newest first, before a position. Raises Unavailable."""
    found = await feed.read_tenant(
        tenant_id, after=0, until=None if before is None else before - 1, limit=limit + 1, root_id=trigger_id, topics=TOPICS,
        newest_first=True, rooted=True,
    )  # fmt: skip
    data = [_view(registry, event) for event in found[:limit]]
    return Page(data, encode_cursor(str(data[-1].position)) if len(found) > limit else None)


def _view(registry: EventRegistry, recorded: RecordedEvent) -> FiringView:
    said: dict[str, Any] = {"at": recorded.recorded_at, "position": recorded.position, "kind": recorded.topic.partition(".")[2]}
    try:
        event = registry.decoded(recorded)
    except (UnknownEvent, ValueError):  # of a later release, or damaged: its place is shown
        return FiringView(**said)
    if isinstance(event, TriggerPaused):
        return FiringView(**said, code=event.because, error=event.reason)
    fields = event.model_dump(include=FiringView.model_fields.keys())
    return FiringView(**said, **fields)
