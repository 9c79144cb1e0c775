"""Looking up one run of a tenant."""

from uuid import UUID

from application.engine.ports.log import EventFeed
from application.engine.reading.history_keeper import HistoryKeeper
from application.reads import Positioned, RunReads
from application.views.runs import RunView
from domain.errors import NotFound
from domain.kernel import RecordedEvent
from domain.runs import RunStarted

FEW_EVENTS = 100
"""A run with so few events is folded in less time than a read model needs to come to a position."""


async def current_run(reads: RunReads, tenant_id: UUID, run_id: UUID) -> Positioned[RunView]:
    """The run in the read model. Raises NotFound if the tenant has no such run, Unavailable."""
    found = await reads.get(tenant_id, run_id)
    if found.value is None:
        raise NotFound(f"there is no run {run_id}")
    return Positioned(found.value, found.position)


async def written_run(
    reads: RunReads, feed: EventFeed, histories: HistoryKeeper, tenant_id: UUID, run_id: UUID, position: int
) -> Positioned[RunView] | None:
    """The run with at least its events up to a position, folded from the log, which is never behind. None: it has too many events.

    Raises NotFound if the tenant has no such run, PositionBeyondHead, Unavailable.
    """
    await histories.must_have(position)
    events = await feed.read_tenant(tenant_id, after=0, limit=FEW_EVENTS + 1, root_id=run_id, rooted=True)
    if len(events) > FEW_EVENTS:
        return None
    view: RunView | None = None
    for recorded in events:
        view = reads.evolve(view, recorded)
    if view is None:
        raise NotFound(f"there is no run {run_id}")
    return Positioned(view, max(position, view.position))


async def must_be_a_run(feed: EventFeed, tenant_id: UUID, run_id: UUID) -> RecordedEvent:
    """The event that started the run, read by connections for reads. Raises NotFound if the tenant has no such run."""
    first = await feed.read_tenant(tenant_id, after=0, limit=1, root_id=run_id, rooted=True)
    if not first or first[0].topic != RunStarted.TOPIC:
        raise NotFound(f"there is no run {run_id}")
    return first[0]
