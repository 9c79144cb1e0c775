"""What is inside a run and has no bound: its tool calls and its journal, page by page, now or as of a position or time.

Calls change, so they are rows of the read model; at an earlier position they are the fold of the run's events. An entry of the
journal never changes, so the log itself is the list.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar
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


class PageOf(NamedTuple):
    """A page of a list inside a run: at most `limit` entries after the position `after`. `as_of`: None for now."""

    tenant_id: UUID
    run_id: UUID
    limit: int
    after: int
    as_of: str | None


class RunContents:
    """The lists inside a run.

    Each raises:
        InvalidCommand: `as_of` is neither a position nor a time.
        NotFound: the tenant has, or had, no such run.
    """

    def __init__(self, reads: RunReads, feed: EventFeed, histories: HistoryKeeper) -> None:
        self._reads = reads
        self._feed = feed
        self._histories = histories

    async def calls(self, page: PageOf) -> Positioned[Page[RunCallView]]:
        """Tool calls in the order of their start. Raises PayloadTooLarge: the run has more events than one replay reads."""
        if page.as_of is None:
            found = await self._reads.calls(page.tenant_id, page.run_id, limit=page.limit, after=page.after)
            if found.value is not None:
                return Positioned(found.value, found.position)
            position = found.position
        else:
            position = await self._position(page, page.as_of)
        view = await replayed(self._reads, self._feed, page.tenant_id, page.run_id, position, all_calls=True)
        calls = [call for call in self._reads.calls_in(view) if call.position > page.after]
        return Positioned(_page(calls, page.limit, lambda call: call.position), position)

    async def journal(self, page: PageOf) -> Positioned[Page[JournalEntryView]]:
        """Entries of the journals of the run's agents, in the order of the log."""
        position = await self._feed.head() if page.as_of is None else await self._position(page, page.as_of)
        first = await must_be_a_run(self._feed, page.tenant_id, page.run_id)
        if first.position > position:
            raise NotFound(f"there is no run {page.run_id} at position {position}")
        found = await self._feed.read_tenant(
            page.tenant_id, after=page.after, until=position, limit=page.limit + 1, root_id=page.run_id, topics=JOURNAL
        )
        entries = _page(found, page.limit, lambda recorded: recorded.position)
        return Positioned(Page(list(self._reads.journal(first, entries.data)), entries.next_cursor), position)

    async def _position(self, page: PageOf, as_of: str) -> int:
        return await position_as_of(self._feed, self._histories, page.tenant_id, as_of, root_id=page.run_id)


def _page(found: list[T], limit: int, position_of: Callable[[T], int]) -> Page[T]:
    """The first entries of what was found. `found`: more than `limit` entries if there is a next page."""
    data = found[:limit]
    return Page(data, encode_cursor(str(position_of(data[-1]))) if len(found) > limit else None)
