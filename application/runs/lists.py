"""Lists of runs as of a position or time."""

from uuid import UUID

from application.engine.ports.log import EventFeed
from application.engine.ports.pages import Page
from application.engine.ports.positions import ConsumerPositions
from application.engine.reading.as_of import position_as_of
from application.engine.reading.history_keeper import HistoryKeeper
from application.reads import Positioned, RunReads, RunsWanted
from application.views.runs import RunSummary
from domain.errors import ProjectionBehind

READ_MODEL = "runs"


async def runs_as_of(
    reads: RunReads,
    feed: EventFeed,
    histories: HistoryKeeper,
    positions: ConsumerPositions,
    tenant_id: UUID,
    as_of: str,
    wanted: RunsWanted,
    *,
    timeout_s: float,
) -> Positioned[Page[RunSummary]]:
    """A page of the list as it was at `as_of` (a position or an RFC 3339 time), and the position of `as_of`.

    Raises:
        InvalidCommand: `as_of` is neither a position nor a time, or the tenant has no run `wanted.before`.
        ProjectionBehind: the read model has not reached the position within the time-out.
        PayloadTooLarge: the runs of the page have more events than one answer counts.
    """
    position = await position_as_of(feed, histories, tenant_id, as_of)
    try:
        page = await reads.list_as_of(tenant_id, position, wanted)
    except ProjectionBehind:  # rare: most positions are old
        await positions.until(READ_MODEL, position, timeout_s)
        page = await reads.list_as_of(tenant_id, position, wanted)
    return Positioned(page, position)
