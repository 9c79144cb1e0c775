"""A dry run: what a trigger would have fired on in the past, page by page. Nothing is started, and nothing is recorded."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from application.engine.ports.log import EventFeed
from application.engine.reading.cloudevents import CloudEventEncoder
from application.triggers.firing import KnownTrigger, Misfire, fits, mapped, signalled
from application.triggers.index import topics_of
from application.triggers.occurrences import occurrence_of, values_of
from application.triggers.roots import Roots
from domain.event_registry import EventRegistry
from domain.kernel import Functions, Json, RecordedEvent, Spent, timestamp

LOOKED_AT = 2_000
"""Events of its topics that one page looks at."""
AT_ONCE = 500
MOST_UNITS = 2_000.0
"""What the expressions of one page may cost together: some 50 ms make a thousand."""


@dataclass(slots=True)
class TryPage:
    """What a part of the past would have brought."""

    events: int = 0
    """Events of its topics."""
    fired: int = 0
    misfired: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)
    reached: int = 0
    """Position up to which the log was looked at."""
    more: bool = True
    """Whether the log goes on behind it, up to where the dry run goes."""


class TryOut:
    def __init__(
        self, feed: EventFeed, registry: EventRegistry, roots: Roots, encoder: CloudEventEncoder, functions: Functions
    ) -> None:
        self._feed = feed
        self._registry = registry
        self._roots = roots
        self._encoder = encoder
        self._functions = functions

    async def page(self, trigger: KnownTrigger, *, after: int, until: int, examples: int) -> TryPage:
        """Looks at a bounded number of events after a position, up to another. Raises Unavailable."""
        assert trigger.definition.on is not None
        page = TryPage(reached=after)
        topics = sorted(topics_of(self._registry, trigger.definition.on))
        while page.events < LOOKED_AT:
            events = await self._feed.read_tenant(
                trigger.tenant_id, after=page.reached, until=until, limit=AT_ONCE, topics=topics
            )  # fmt: skip
            for event in events:
                await self._look(trigger, event, page, examples)
            page.events += len(events)
            if len(events) < AT_ONCE:
                page.reached, page.more = max(until, page.reached), False
                break
            page.reached = events[-1].position
        return page

    async def _look(self, trigger: KnownTrigger, event: RecordedEvent, page: TryPage, examples: int) -> None:
        wanted = trigger.definition.on.project_id if trigger.definition.on is not None else None
        if wanted is not None or trigger.within is not None:
            facts = await self._roots.of(event.tenant_id, event.root_id)
            if wanted not in (None, facts.project_id) or (trigger.within is not None and facts.project_id not in trigger.within):
                return
        values, spent = values_of(self._encoder, event), Spent()
        said: dict[str, Json] = {
            "event": event.name, "position": event.position, "type": event.topic, "at": timestamp(event.recorded_at),
        }  # fmt: skip
        try:
            if not fits(trigger, values, self._functions, spent):
                return
            depth = (await self._roots.of(event.tenant_id, event.root_id)).depth
            occurrence = occurrence_of(event, values, depth)
            said["input"] = mapped(trigger, occurrence, self._functions, spent)
            if (run_id := signalled(trigger, occurrence, self._functions, spent)) is not None:
                said["run_id"] = str(run_id)
        except Misfire as misfire:
            page.misfired += 1
            said |= {"code": misfire.code, "error": misfire.error}
        else:
            page.fired += 1
        if len(page.examples) < examples:
            page.examples.append(said)


def within_of(projects: Sequence[UUID] | None) -> tuple[UUID, ...] | None:
    """The bounds of a trigger, of the projects of a key."""
    return None if projects is None else tuple(sorted(projects))
