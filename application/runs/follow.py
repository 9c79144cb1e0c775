"""The events of one run up to its end: replay, then live, without a gap or a repetition, then what still follows from the end.

After the end follow the sagas' reactions to it, and the outcomes of attempts of tools that were under way.
"""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from uuid import UUID

from application.engine.ports.log import EventFeed
from application.engine.ports.positions import ConsumerPositions
from application.engine.reading.channels import Batch, Filter
from application.engine.reading.histories import History, HistoryEnded
from application.engine.reading.history_keeper import HistoryKeeper
from application.engine.reading.live import LiveFeed
from application.engine.sagas.manager import partition_of
from application.reads import CurrentRuns
from application.views.runs import RunView
from domain.errors import ProjectionBehind
from domain.invocations import (
    InvocationBecameAmbiguous,
    InvocationCancelled,
    InvocationCancelRequested,
    InvocationFailed,
    InvocationResolved,
    InvocationSucceeded,
)
from domain.kernel import RecordedEvent
from domain.runs import ENDS, RunCompleted

PAGE = 500
SETTLED_S = 0.5
"""Seconds for the answer how far the sagas are, for a reader that comes back to a run that has ended."""
LONGEST_ENDING_S = 5.0
"""Seconds that a stream waits for the sagas' reactions to a run's end. The sagas may be down."""
_OUTCOMES = frozenset(
    kind.TOPIC
    for kind in (InvocationSucceeded, InvocationFailed, InvocationCancelled, InvocationBecameAmbiguous, InvocationResolved)
)


@dataclass(frozen=True, slots=True)
class RunOver:
    """The run has ended, and all its events were yielded. `position`: of the run's last event, even if its topic was not wanted.

    The run gets no event any more, except what becomes of an ambiguous call.
    """

    position: int


@dataclass(frozen=True, slots=True)
class RunStreams:
    """Streams of the events of runs. One object serves any number of readers."""

    live: LiveFeed
    feed: EventFeed
    histories: HistoryKeeper
    positions: ConsumerPositions
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
        run = await self.runs.now(tenant_id, run_id)
        over = run is not None and run.status != "running"
        may_follow, attempts = over, _LastAttempts(run)
        wanted = Filter(tenant_id, run_id)
        while True:
            async with aclosing(self.live.events(wanted, after=reached, history=history)) as batches:
                while not over or attempts.open:
                    if (events := await anext(batches, None)) is None:
                        return
                    if (shown := selection.of(events)) is not None:
                        yield shown
                    reached = events[-1].position if events else reached
                    attempts.learn(events)
                    if ends := [event.topic for event in events if event.topic in ENDS]:
                        over, may_follow = True, ends != [RunCompleted.TOPIC]  # the cancellation of its parts
            settled = False
            while may_follow:
                page = Batch(await self.feed.read_tenant(tenant_id, after=reached, limit=PAGE, root_id=run_id))
                if not self.histories.is_current(history.history_id):
                    raise HistoryEnded("the log has a new history")
                if page:
                    if (shown := selection.of(page)) is not None:
                        yield shown
                    reached = page[-1].position
                    attempts.learn(page)
                elif settled:
                    break
                if len(page) < PAGE:  # wait, then read again: the sagas may have appended events
                    settled = await self._settled(run_id, reached)
                    if not settled:
                        return
            if not attempts.open:
                break
        yield RunOver(reached)

    async def is_at_end(self, tenant_id: UUID, run_id: UUID, after: int) -> bool:
        """Whether the stream of a run is over for a reader that has everything up to a position. Raises Unavailable.

        False while the sagas have not handled the run's last event, and while attempts of tools are under way: their events may
        follow. The call waits during an outage of the database: callers set a time-out.
        """
        run = await self.runs.now(tenant_id, run_id)
        if run is None or run.status == "running" or run.position > after or _LastAttempts(run).open:
            return False
        try:
            await self.positions.until(partition_of(run_id), run.position, SETTLED_S)
        except ProjectionBehind:
            return False
        return not await self.feed.read_tenant(tenant_id, after=run.position, limit=1, root_id=run_id)

    async def _settled(self, run_id: UUID, position: int) -> bool:
        """Waits until the sagas have handled a position, for a bounded time. False if the process stops."""
        give_up_at = time.monotonic() + LONGEST_ENDING_S
        while not self.live.closed and (left := give_up_at - time.monotonic()) > 0:
            with suppress(ProjectionBehind):
                await self.positions.until(partition_of(run_id), position, min(left, 0.5))
                break
        return not self.live.closed


class _LastAttempts:
    """The cancelled calls whose last attempt is still under way: the outcome is recorded when it comes."""

    def __init__(self, run: RunView | None) -> None:
        self._known_to = run.position if run is not None else 0
        calls = [call for step in run.steps for call in step.calls] if run is not None else []
        self.open = {call.invocation_id for call in calls if call.cancel_requested and call.status == "running"}

    def learn(self, events: Sequence[RecordedEvent]) -> None:
        for event in events:
            if event.position <= self._known_to:
                continue
            if event.topic == InvocationCancelRequested.TOPIC:
                self.open.add(event.stream_id)
            elif event.topic in _OUTCOMES:
                self.open.discard(event.stream_id)


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
