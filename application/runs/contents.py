"""What is inside a run and has no bound: its tool calls and its journal, page by page, now or as of a position or time.

Calls change, so they are rows of the read model; at an earlier position they are the fold of the run's events. An entry of the
journal never changes, so the log itself is the list.
"""

from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

from application.engine.ports.log import EventFeed
from application.engine.ports.pages import Page, encode_cursor
from application.engine.reading.as_of import position_as_of
from application.engine.reading.history_keeper import HistoryKeeper
from application.reads import Positioned, RunReads
from application.runs.lookup import must_be_a_run
from application.runs.replay_at import replayed
from application.views.runs import JournalEntryView, RunCallView
from domain import agent_runs
from domain.errors import NotFound

T = TypeVar("T")

JOURNAL = (
    agent_runs.StepRecorded.TOPIC, agent_runs.CallStarted.TOPIC, agent_runs.CallFinished.TOPIC, agent_runs.MailReceived.TOPIC,
)  # fmt: skip


async def calls_of_run(
    reads: RunReads,
    feed: EventFeed,
    histories: HistoryKeeper,
    tenant_id: UUID,
    run_id: UUID,
    *,
    limit: int,
    after: int,
    as_of: str | None,
) -> Positioned[Page[RunCallView]]:
    """Tool calls that were started after the position `after`, in the order of their start.

    Raises:
        InvalidCommand: `as_of` is neither a position nor a time.
        NotFound: the tenant has, or had, no such run.
        PayloadTooLarge: the run has more events than one replay reads.
    """
    if as_of is None:
        found = await reads.calls(tenant_id, run_id, limit=limit, after=after)
        if found.value is not None:
            return Positioned(found.value, found.position)
        position = found.position
    else:
        position = await position_as_of(feed, histories, tenant_id, as_of, root_id=run_id)
    view = await replayed(reads, feed, tenant_id, run_id, position, all_calls=True)
    calls = [call for call in reads.calls_in(view) if call.position > after]
    return Positioned(_page(calls, limit, lambda call: call.position), position)


async def journal_of_run(
    reads: RunReads,
    feed: EventFeed,
    histories: HistoryKeeper,
    tenant_id: UUID,
    run_id: UUID,
    *,
    limit: int,
    after: int,
    as_of: str | None,
) -> Positioned[Page[JournalEntryView]]:
    """Entries of the journals of a run's agents after a position, in the order of the log.

    Raises:
        InvalidCommand: `as_of` is neither a position nor a time.
        NotFound: the tenant has, or had, no such run.
    """
    if as_of is None:
        position = await feed.head()
    else:
        position = await position_as_of(feed, histories, tenant_id, as_of, root_id=run_id)
    first = await must_be_a_run(feed, tenant_id, run_id)
    if first.position > position:
        raise NotFound(f"there is no run {run_id} at position {position}")
    found = await feed.read_tenant(tenant_id, after=after, until=position, limit=limit + 1, root_id=run_id, topics=JOURNAL)
    page = _page(found, limit, lambda recorded: recorded.position)
    return Positioned(Page(list(reads.journal(first, page.data)), page.next_cursor), position)


def _page(found: list[T], limit: int, position_of: Callable[[T], int]) -> Page[T]:
    """The first entries of what was found. `found`: more than `limit` entries if there is a next page."""
    data = found[:limit]
    return Page(data, encode_cursor(str(position_of(data[-1]))) if len(found) > limit else None)
