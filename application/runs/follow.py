"""The events of one run up to its end: replay, then live, without a gap or a repetition, then what still follows from the end.

After the end follow the cancellations of the run's parts, the outcomes of attempts of tools that were under way, and the
compensation. The events themselves tell when no part is open any more (`application/views/parts.py`).
"""

import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from uuid import UUID

from application.engine.ports.log import EventFeed
from application.engine.reading.channels import Batch, Filter
from application.engine.reading.histories import History, HistoryEnded
from application.engine.reading.history_keeper import HistoryKeeper
from application.engine.reading.live import LiveFeed
from application.reads import CurrentRun, CurrentRuns
from application.views.parts import OpenParts
from domain.kernel import RecordedEvent

PAGE = 500


@dataclass(frozen=True, slots=True)
class RunOver:
    """The run has ended, and all its events were yielded. `position`: of the run's last event, even if its topic was not wanted.

    The run gets no event any more, except what becomes of an ambiguous call, or follows when a person has its effects taken back.
    """

    position: int


class FollowedRun:
    """Tells when nothing follows in the stream of a run any more. The reader gives it all events of the run after its position."""

    __slots__ = ("_known_to", "_parts")

    def __init__(self, run: CurrentRun | None) -> None:
        """`run`: as it is when the reader begins."""
        self._known_to, self._parts = (run.view.position, run.parts) if run is not None else (0, OpenParts())

    @property
    def is_near(self) -> bool:
        """Whether the run has ended, and something of it is open."""
        return self._parts.ended

    @property
    def known_to(self) -> int:
        """The position of the run's last event when the reader began."""
        return self._known_to

    def after(self, events: Iterable[RecordedEvent], reached: int) -> bool:
        """Whether nothing follows, after further events up to a position."""
        self._parts = self._parts.after(event for event in events if event.position > self._known_to)
        return reached >= self._known_to and self._parts.over

    def is_given_up(self, reached: int) -> bool:
        """Whether nothing is waited for, if nothing was heard for a while. The parts of such a run are cancelled by nobody.

        That is so while the sagas are down, or after a reaction was put aside. The outcome of an attempt is waited for, and so is
        the end of a compensation, whose calls may be tried again after a long while.
        """
        parts = self._parts
        return reached >= self._known_to and parts.ended and not parts.attempts and not parts.goes_back


@dataclass(frozen=True, slots=True)
class RunStreams:
    """Streams of the events of runs. One object serves any number of readers."""

    live: LiveFeed
    feed: EventFeed
    histories: HistoryKeeper
    runs: CurrentRuns

    async def follow(
        self, tenant_id: UUID, run_id: UUID, *, topics: frozenset[str] | None, history: History, after: int | None
    ) -> AsyncGenerator[Batch | RunOver, None]:
        """The run's events after a position in small batches, then `RunOver`. `topics`: only events of these topics; None: all.

        An empty batch says that no event came for a while. A stream without `RunOver` ended because the process stops: readers
        reconnect to another process.

        Raises:
            TooSlow: the reader's queue has reached its bound.
            HistoryEnded: the log has a later history.
        """
        reached, selection = after or 0, _Selection(topics, self.live.silence_s)
        end = FollowedRun(await self.runs.now(tenant_id, run_id))
        known_to = end.known_to
        if end.after((), known_to):
            while reached < known_to and not self.live.closed:
                page = Batch(
                    await self.feed.read_tenant(tenant_id, after=reached, until=known_to, limit=PAGE, root_id=run_id, rooted=True)
                )
                if not self.histories.is_current(history.history_id):
                    raise HistoryEnded("the log has a new history")
                if (shown := selection.of(page)) is not None:
                    yield shown
                reached = page[-1].position if page else known_to
            if not self.live.closed:
                yield RunOver(reached)
            return
        async with aclosing(self.live.events(Filter(tenant_id, run_id), after=reached, history=history)) as batches:
            async for events in batches:
                if (shown := selection.of(events)) is not None:
                    yield shown
                reached = events[-1].position if events else reached
                if end.after(events, reached) or (not events and end.is_given_up(reached)):
                    yield RunOver(reached)
                    return

    async def is_at_end(self, tenant_id: UUID, run_id: UUID, after: int) -> bool:
        """Whether the stream of a run is over for a reader that has everything up to a position. Raises Unavailable.

        False while a part of the run is open: its events may follow. The call waits during an outage of the database: callers set a
        time-out.
        """
        run = await self.runs.now(tenant_id, run_id)
        return run is not None and run.parts.over and run.view.position <= after


class _Selection:
    """Selects the events that a reader gets: the wanted topics, and empty batches as signs of life."""

    def __init__(self, topics: frozenset[str] | None, silence_s: float) -> None:
        self._topics = topics
        self._silence_s = silence_s
        self._said_at = time.monotonic()

    def of(self, events: Batch) -> Batch | None:
        """The batch for the reader. None: nothing to send. Readers of all topics share the batch itself."""
        shown = events if self._topics is None else Batch(event for event in events if event.topic in self._topics)
        if not shown and events and time.monotonic() - self._said_at < self._silence_s:
            return None
        self._said_at = time.monotonic()
        return shown
