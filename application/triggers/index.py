"""The triggers on events by tenant and topic, as they are at one place of the log."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

import structlog
from pydantic import ValidationError

from application.reads import StoredTrigger
from application.triggers.firing import KnownTrigger
from domain import triggers
from domain.event_registry import EventRegistry
from domain.kernel import Json, RecordedEvent
from domain.triggers import EventFilter, TriggerDefinition

SHAPING = frozenset(
    event.TOPIC
    for event in (
        triggers.TriggerCreated, triggers.TriggerChanged, triggers.TriggerPaused, triggers.TriggerResumed, triggers.TriggerRemoved,
    )
)  # fmt: skip
"""Events that change what a trigger is."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Kept:
    known: KnownTrigger
    active: bool
    since: int
    topics: frozenset[str]


class TriggerIndex:
    def __init__(self, registry: EventRegistry) -> None:
        self._registry = registry
        self._kept: dict[UUID, _Kept] = {}
        self._by_topic: dict[str, dict[UUID, dict[UUID, _Kept]]] = {}
        """Topic → tenant → the active triggers that name it. Nearly every event ends with the first look-up."""
        self.signalling: set[UUID] = set()
        """Tenants that have, or had, a trigger that sends signals."""

    def put(self, stored: StoredTrigger) -> None:
        """Takes a trigger as it is stored."""
        self._set(
            stored.tenant_id, stored.trigger_id, stored.name, stored.definition, stored.hook_id, stored.within, stored.since,
            active=stored.status == "active",
        )  # fmt: skip

    def concerns(self, recorded: RecordedEvent) -> bool:
        """Whether there may be something to do for an event."""
        return recorded.topic in self._by_topic or recorded.topic in SHAPING

    def of(self, recorded: RecordedEvent) -> list[KnownTrigger]:
        """The active triggers that name the topic of an event and were as they are when it was recorded."""
        named = self._by_topic.get(recorded.topic)
        if named is None:
            return []
        own = named.get(recorded.tenant_id)
        return [] if own is None else [kept.known for kept in own.values() if kept.since < recorded.position]

    def learn(self, recorded: RecordedEvent) -> None:
        """Takes an event that changes a trigger. Raises ValueError, UnknownEvent."""
        if recorded.topic not in SHAPING:
            return
        kept = self._kept.get(recorded.stream_id)
        if kept is not None and recorded.position <= kept.since:
            return
        event = self._registry.decoded(recorded)
        match event:
            case triggers.TriggerCreated():
                self._set(
                    recorded.tenant_id, recorded.stream_id, event.name, event.definition, event.hook_id, event.within,
                    recorded.position, active=True,
                )  # fmt: skip
            case triggers.TriggerChanged() if kept is not None:
                self._set(
                    recorded.tenant_id, recorded.stream_id, event.name, event.definition, kept.known.hook_id, event.within,
                    recorded.position, active=kept.active,
                )  # fmt: skip
            case triggers.TriggerRemoved():
                self._drop(recorded.stream_id)
                self._kept.pop(recorded.stream_id, None)
            case _ if kept is not None:
                self._drop(recorded.stream_id)
                kept.active, kept.since = isinstance(event, triggers.TriggerResumed), recorded.position
                self._add(kept)

    def _set(
        self, tenant_id: UUID, trigger_id: UUID, name: str, definition: Json, hook_id: UUID | None,
        within: tuple[UUID, ...] | None, since: int, *, active: bool,
    ) -> None:  # fmt: skip
        self._drop(trigger_id)
        self._kept.pop(trigger_id, None)
        read = definition_of(definition)
        if read is None:
            log.warning("trigger_unreadable", trigger=name)
            return
        if read.start.signal is not None:
            self.signalling.add(tenant_id)
        topics = frozenset() if read.on is None else topics_of(self._registry, read.on)
        kept = self._kept[trigger_id] = _Kept(
            KnownTrigger(tenant_id, trigger_id, name, read, hook_id, within), active, since, topics
        )
        self._add(kept)

    def _add(self, kept: _Kept) -> None:
        if kept.active:
            for topic in kept.topics:
                named = self._by_topic.setdefault(topic, {})
                named.setdefault(kept.known.tenant_id, {})[kept.known.trigger_id] = kept

    def _drop(self, trigger_id: UUID) -> None:
        kept = self._kept.get(trigger_id)
        if kept is None:
            return
        for topic in kept.topics:
            tenants = self._by_topic.get(topic, {})
            own = tenants.get(kept.known.tenant_id, {})
            own.pop(trigger_id, None)
            if not own:
                tenants.pop(kept.known.tenant_id, None)
            if not tenants:
                self._by_topic.pop(topic, None)


def definition_of(definition: Json) -> TriggerDefinition | None:
    """What is stored of a trigger. None: this release cannot read it."""
    try:
        return (
            TriggerDefinition.model_validate_json(definition)
            if isinstance(definition, str)
            else TriggerDefinition.model_validate(definition)
        )
    except ValidationError:
        return None


def topics_of(registry: EventRegistry, wanted: EventFilter) -> frozenset[str]:
    """The topics that a filter names, those of whole slices included."""
    of_slices = (event.TOPIC for name in wanted.slices for event in registry.slices.get(name, ()))
    return frozenset(topic for topic in (*wanted.topics, *of_slices) if not topic.startswith(triggers.OWN))


def earliest(stored: Iterable[StoredTrigger], otherwise: int) -> int:
    """The position up to which no trigger can fire on anything."""
    return min((one.first for one in stored if one.status == "active" and one.definition.get("on")), default=otherwise)
