"""What is inside a run and has no bound: its tool calls, journal and messages, page by page, now or as of a position or time.

Calls and messages change, so they are rows of a read model; at an earlier position they are the fold of the run's events. An entry
of the journal never changes, so the log itself is the list.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar
from uuid import UUID

from application.engine.ports.log import EventFeed
from application.engine.ports.pages import Page, encode_cursor
from application.engine.reading.as_of import position_as_of
from application.engine.reading.history_keeper import HistoryKeeper
from application.reads import MessageReads, Positioned, RunReads
from application.runs.lookup import must_be_a_run
from application.runs.replay_at import pages_of_run, replayed
from application.views.messages import MessageView
from application.views.runs import JournalEntryView, PartView, RunCallView
from domain import agent_runs
from domain.errors import NotFound
from domain.kernel import RecordedEvent
from domain.messages import MessageSent

T = TypeVar("T")

JOURNAL = (
    agent_runs.StepRecorded.TOPIC, agent_runs.CallStarted.TOPIC, agent_runs.CallFinished.TOPIC, agent_runs.MailReceived.TOPIC,
    agent_runs.WaitStarted.TOPIC, agent_runs.WaitFinished.TOPIC,
    agent_runs.EntryTakenOver.TOPIC,
)  # fmt: skip


MAIL = (agent_runs.MailDelivered.TOPIC, agent_runs.MailRefused.TOPIC, agent_runs.MailReceived.TOPIC)
"""What becomes of a message."""


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

    def __init__(self, reads: RunReads, messages: MessageReads, feed: EventFeed, histories: HistoryKeeper) -> None:
        self._reads = reads
        self._messages = messages
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

    async def parts(self, page: PageOf, step: str) -> Positioned[Page[PartView]]:
        """Parts of a step in the order of their numbers; `after` is such a number. Raises NotFound: the run has no such step;
        PayloadTooLarge: the run has more events than one replay reads."""
        if page.as_of is None:
            found = await self._reads.parts(page.tenant_id, page.run_id, step, limit=page.limit, after=page.after)
            if found.value is not None:
                return Positioned(found.value, found.position)
            position = found.position
        else:
            position = await self._position(page, page.as_of)
        view = await replayed(self._reads, self._feed, page.tenant_id, page.run_id, position, all_calls=True)
        return Positioned(
            await self._reads.parts_in(page.tenant_id, view, step, limit=page.limit, after=page.after), position
        )  # fmt: skip

    async def journal(self, page: PageOf) -> Positioned[Page[JournalEntryView]]:
        """Entries of the journals of the run's agents, in the order of the log."""
        position = await self._feed.head() if page.as_of is None else await self._position(page, page.as_of)
        first = await self._begun(page, position)
        found = await self._feed.read_tenant(
            page.tenant_id, after=page.after, until=position, limit=page.limit + 1, root_id=page.run_id, topics=JOURNAL
        )
        entries = _page(found, page.limit, lambda recorded: recorded.position)
        return Positioned(Page(list(self._reads.journal(first, entries.data)), entries.next_cursor), position)

    async def messages(self, page: PageOf) -> Positioned[Page[MessageView]]:
        """Messages between the run's agents, in the order of sending.

        Raises PayloadTooLarge: the mailboxes of the run have more events than one replay reads.
        """
        if page.as_of is None:
            await must_be_a_run(self._feed, page.tenant_id, page.run_id)
            return await self._messages.list(page.tenant_id, page.run_id, limit=page.limit, after=page.after)
        position = await self._position(page, page.as_of)
        await self._begun(page, position)
        found = await self._feed.read_tenant(
            page.tenant_id, after=page.after, until=position, limit=page.limit + 1, root_id=page.run_id,
            topics=(MessageSent.TOPIC,),
        )  # fmt: skip
        sent = _page(found, page.limit, lambda recorded: recorded.position)
        views = {recorded.stream_id: self._messages.sent(recorded) for recorded in sent.data}
        if sent.data:
            await self._deliver(page, views, after=sent.data[0].position, until=position)
        return Positioned(Page(list(views.values()), sent.next_cursor), position)

    async def _deliver(self, page: PageOf, views: Mapping[UUID, MessageView], *, after: int, until: int) -> None:
        """Applies to messages what became of them up to a position."""
        async for events in pages_of_run(self._feed, page.tenant_id, page.run_id, after=after, until=until, topics=MAIL):
            for recorded in events:
                self._messages.evolve(views, recorded)
            if all(view.status in ("received", "refused") for view in views.values()):
                return  # nothing becomes of such a message any more

    async def _begun(self, page: PageOf, position: int) -> RecordedEvent:
        """The event that started the run. Raises NotFound if there was none up to a position."""
        first = await must_be_a_run(self._feed, page.tenant_id, page.run_id)
        if first.position > position:
            raise NotFound(f"there is no run {page.run_id} at position {position}")
        return first

    async def _position(self, page: PageOf, as_of: str) -> int:
        return await position_as_of(self._feed, self._histories, page.tenant_id, as_of, root_id=page.run_id)


def _page(found: list[T], limit: int, position_of: Callable[[T], int]) -> Page[T]:
    """The first entries of what was found. `found`: more than `limit` entries if there is a next page."""
    data = found[:limit]
    return Page(data, encode_cursor(str(position_of(data[-1]))) if len(found) > limit else None)
