"""What this process has just committed, for a relay in the same process: it need not read these events from the log.

The writer's session also listens. PostgreSQL delivers notifications in the order of the commits, those of the session itself among
them, so the session knows of each append by somebody else before it knows of its own next one. Therefore a row of own appends has
nothing in between. Whatever else happens (another process appended, the session is a new one, an append without an answer, too many
events, a log that went back) ends the row, and the relay reads the log.

Events for which nobody waits linger for a moment before the relay is woken: it does not publish between a commit and its answer,
and the few appends of one run go as one message.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from adapters.postgres.log.append_batch import EncodedAppend, Row, answers
from adapters.postgres.log.head import POLL_SECONDS, Head
from application.engine.ports.log import AppendRequest, AppendResult
from domain.kernel import RecordedEvent

MOST_EVENTS = 4_000
MOST_BYTES = 4 * 1024 * 1024
"""Bounds of what is kept for the relay. Beyond them it reads the log."""
LINGER_S = 0.01
"""Seconds that patient events wait for company. Read models linger for longer, and who waits for a position ends the wait."""


class OwnAppends(Head):
    """Holds events while somebody wants them. `began`, `heard`, `appended` and `lost` are for the writer's session."""

    def __init__(self, *, poll_s: float = POLL_SECONDS, patient: Callable[[RecordedEvent], bool] = lambda _: False) -> None:
        """`patient`: whether nobody waits for an event to be published."""
        super().__init__(poll_s=poll_s)
        self._patient = patient
        self._lingering: asyncio.TimerHandle | None = None
        """Set while all events of the row are patient, and their time has not come."""
        self._due = False
        """The relay was woken, and has not taken anything since."""
        self.wanted = False
        self.turned = asyncio.Event()
        """Set when `wanted` has changed; the session clears it."""
        self._row: deque[RecordedEvent] = deque()
        self._bytes = 0
        self._in_doubt = False

    @contextmanager
    def given(self) -> Iterator[None]:
        """Lets the session hand over what it appends, for the time of the block. One block at a time."""
        self.wanted = True
        self.turned.set()
        try:
            yield
        finally:
            self.wanted = False
            self.turned.set()
            self._clear()

    def take(self, last: RecordedEvent | None) -> Sequence[RecordedEvent]:
        """The events of this process that follow an event, and follow one another, in order. Empty: the log must be read."""
        in_doubt, self._in_doubt, self._due = self._in_doubt, False, False
        row = self._row
        if in_doubt or last is None:
            return ()
        while row and row[0].position < last.position:
            row.popleft()
        if not row or row[0].position > last.position + 1:
            return ()
        if row[0].position == last.position and row.popleft() != last:
            return ()
        events = tuple(row)
        self._clear()
        return events

    def began(self, head: int) -> None:
        """The session listens from now on. What was appended before must be read."""
        self._clear()
        self.set(head)
        self.listening.set()
        self._doubt()

    def lost(self) -> None:
        """The session has ended. It may have appended what it got no answer for, and the next one may see another log."""
        super().lost()
        self._clear()
        self._doubt()

    def heard(self, position: int) -> None:
        """Somebody else has appended, up to a position."""
        self._clear()
        if position <= self.position:
            self._doubt()
        self.position = position
        self.wake()

    def appended(self, batch: Sequence[EncodedAppend], rows: Sequence[Row]) -> None:
        """This session has appended a batch. `rows`: the answer of the database, after the commit."""
        events = list(recorded(batch, rows))
        if not events:
            return
        size = sum(len(event.state) + len(event.metadata) for event in events)
        follows = events[0].position == self.position + 1
        self.position = events[-1].position
        if not follows:
            self._clear()
            self._doubt()
        elif len(self._row) + len(events) > MOST_EVENTS or self._bytes + size > MOST_BYTES:
            self._clear()
        else:
            begins = not self._row and not self._due
            self._row.extend(events)
            self._bytes += size
            if (begins or self._lingering is not None) and all(map(self._patient, events)):
                if begins:
                    self._lingering = asyncio.get_running_loop().call_later(LINGER_S, self._go_on)
                return
        self._go_on()

    def hurry(self) -> None:
        """Somebody waits for what was appended: it lingers no longer."""
        super().hurry()
        if self._lingering is not None:
            self._go_on()

    def _go_on(self) -> None:
        self._end_linger()
        self.wake()

    def wake(self) -> None:
        self._due = True
        super().wake()

    def _end_linger(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None

    def _is_beyond(self, after: int) -> bool:
        return self._in_doubt or (self._lingering is None and super()._is_beyond(after))

    def _doubt(self) -> None:
        """The relay must read the log before it takes anything."""
        self._in_doubt = True
        self.wake()

    def _clear(self) -> None:
        self._end_linger()
        self._row.clear()
        self._bytes = 0


def recorded(batch: Sequence[EncodedAppend], rows: Sequence[Row]) -> Iterable[RecordedEvent]:
    """The events that a batch has put into the log, in order of position, as the log holds them."""
    written = [
        (result, batch[place].request)
        for place, result in answers(batch, rows)
        if isinstance(result, AppendResult) and not result.duplicate
    ]
    written.sort(key=lambda one: one[0].last_position)
    for result, request in written:
        yield from _events(request, result)


def _events(request: AppendRequest, result: AppendResult) -> Iterator[RecordedEvent]:
    position = result.last_position - result.event_count
    versions = [stream.expected_version for stream in request.streams]
    events = iter(request.events)
    for command in request.commands:
        for _ in range(command.event_count):
            place, (topic, schema_version, state), settled = next(events)
            position += 1
            versions[place] += 1
            stream_id, root_id, _ = request.streams[place]
            yield RecordedEvent(
                position, request.tenant_id, stream_id, versions[place], root_id, topic, schema_version, state, command.metadata,
                result.recorded_at, settled,
            )  # fmt: skip
