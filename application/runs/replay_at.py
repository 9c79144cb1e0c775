"""A run as it was at a position or a time, replayed from the log."""

from collections.abc import AsyncIterator, Sequence
from uuid import UUID

from application.engine.ports.log import EventFeed
from application.engine.reading.as_of import position_as_of
from application.engine.reading.history_keeper import HistoryKeeper
from application.reads import Positioned, RunReads
from application.views.runs import RunView
from domain.errors import NotFound, PayloadTooLarge
from domain.kernel import RecordedEvent

MAX_REPLAY_EVENTS = 200_000
PAGE = 1_000


async def run_as_of(
    reads: RunReads, feed: EventFeed, histories: HistoryKeeper, tenant_id: UUID, run_id: UUID, as_of: str
) -> Positioned[RunView]:
    """The run at `as_of` (a position or an RFC 3339 time), and the position of `as_of`.

    Raises:
        InvalidCommand: `as_of` is neither a position nor a time.
        NotFound: the tenant had no such run at the position.
        PayloadTooLarge: the run has more events than one replay reads.
    """
    position = await position_as_of(feed, histories, tenant_id, as_of, root_id=run_id)
    return Positioned(await replayed(reads, feed, tenant_id, run_id, position), position)


async def replayed(
    reads: RunReads, feed: EventFeed, tenant_id: UUID, run_id: UUID, until: int, *, all_calls: bool = False
) -> RunView:
    """The fold of the run's events up to a position, page by page. `all_calls`: see `RunReads.evolve`.

    Raises NotFound, PayloadTooLarge.
    """
    view: RunView | None = None
    async for page in pages_of_run(feed, tenant_id, run_id, after=0, until=until):
        for recorded in page:
            view = reads.evolve(view, recorded, all_calls=all_calls)
    if view is None:
        raise NotFound(f"there is no run {run_id} at position {until}")
    return view


async def pages_of_run(
    feed: EventFeed, tenant_id: UUID, run_id: UUID, *, after: int, until: int, topics: Sequence[str] | None = None
) -> AsyncIterator[Sequence[RecordedEvent]]:
    """The run's events between two positions, page by page. Raises PayloadTooLarge if there are more than one replay reads."""
    seen = 0
    while True:
        page = await feed.read_tenant(tenant_id, after=after, until=until, limit=PAGE, root_id=run_id, topics=topics, rooted=True)
        yield page
        seen += len(page)
        if len(page) < PAGE:
            return
        if seen > MAX_REPLAY_EVENTS:
            raise PayloadTooLarge(f"the run has more than {MAX_REPLAY_EVENTS:,} events; replay it over the event stream")
        after = page[-1].position
