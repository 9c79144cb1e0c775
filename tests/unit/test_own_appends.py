"""The hand-over from the writer of the log to the relay beside it: events are given only where nothing can be in between."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from adapters.postgres.log import own_appends
from adapters.postgres.log.append_batch import EncodedAppend, Row
from adapters.postgres.log.own_appends import OwnAppends, recorded
from application.engine.ports.log import AppendCommand, AppendRequest, NewEvent, Placed, StreamHead
from domain.kernel import RecordedEvent
from tests.pace import within

AT = datetime(2026, 1, 2, 3, 4, 5, 678, UTC)
TENANT = uuid4()


def append(events: int = 1, size: int = 10) -> EncodedAppend:
    return EncodedAppend.of(
        AppendRequest(
            TENANT,
            (AppendCommand(uuid4(), '{"actor":"test"}', events),),
            (StreamHead(stream := uuid4(), stream, 0),),
            tuple(Placed(0, NewEvent("thing.happened", 1, b"x" * size)) for _ in range(events)),
        )
    )


def row(request: int, outcome: str, last: int = 0, count: int = 0, command: int | None = None, stream: UUID | None = None) -> Row:
    return Row(request, outcome, command, last, count, AT, None, stream, None if stream is None else 7)


@pytest_asyncio.fixture
async def own() -> OwnAppends:
    """The session has begun to listen when the log was at 10, and the relay has read the log."""
    own = OwnAppends()
    own.began(10)
    assert own.take(None) == ()
    return own


class Log:
    """Appends to the log of this test, by this process and by others."""

    def __init__(self, own: OwnAppends) -> None:
        self.own = own
        self.events = [event for event in recorded([append(10)], [row(0, "accepted", 10, 10)])]

    def append(self, count: int = 1, size: int = 10) -> list[RecordedEvent]:
        batch, answer = [append(count, size)], [row(0, "accepted", len(self.events) + count, count)]
        self.own.appended(batch, answer)
        new = list(recorded(batch, answer))
        self.events += new
        return new

    def append_elsewhere(self, count: int = 1, *, told: bool = True) -> None:
        self.events += recorded([append(count)], [row(0, "accepted", len(self.events) + count, count)])
        if told:
            self.own.heard(len(self.events))

    @property
    def last(self) -> RecordedEvent:
        return self.events[-1]


@pytest.fixture
def log(own: OwnAppends) -> Log:
    return Log(own)


async def wakes(own: OwnAppends, after: int) -> bool:
    """Whether a waiter for events after a position is woken at once."""
    try:
        async with asyncio.timeout(0):
            await own.wait(after, 60)
    except TimeoutError:
        return False
    return True


async def test_events_that_follow_are_given_once_and_in_order(log: Log, own: OwnAppends) -> None:
    first = log.last
    new = [*log.append(2), *log.append()]
    assert await wakes(own, 10)
    assert own.take(first) == tuple(new)
    assert own.take(log.last) == ()
    assert not await wakes(own, 13)
    assert own.take(first) == (), "what was taken is not given again"


async def test_a_relay_that_has_read_some_of_them_gets_the_others(log: Log, own: OwnAppends) -> None:
    new = log.append(4)
    assert own.take(new[1]) == tuple(new[2:])


async def test_a_relay_that_is_behind_or_has_another_event_in_that_place_must_read(log: Log, own: OwnAppends) -> None:
    behind = log.events[-2]
    new = log.append(3)
    assert own.take(behind) == ()
    assert own.take(new[0]._replace(state=b"{}")) == (), "another log"


async def test_an_append_by_somebody_else_in_between_must_be_read(log: Log, own: OwnAppends) -> None:
    first, mine = log.last, log.append()
    log.append_elsewhere(2)
    assert own.take(first) == () and own.take(mine[0]) == ()
    assert await wakes(own, 11)
    read = log.last
    new = log.append(2)
    assert own.take(mine[0]) == ()
    assert own.take(read) == tuple(new), "from the end of what was read on"


async def test_an_append_without_an_answer_must_be_read(log: Log, own: OwnAppends) -> None:
    """The next append of the same session does not follow, and nobody has told of the one before."""
    first = log.last
    log.append_elsewhere(told=False)
    log.append()
    assert await wakes(own, 10**9), "the relay must look"
    assert own.take(first) == ()
    read, new = log.last, log.append()
    assert own.take(read) == tuple(new)


@pytest.mark.parametrize("head", [8, 10])
async def test_a_log_that_went_back_must_be_read_before_anything_is_given(log: Log, own: OwnAppends, head: int) -> None:
    """A restore under the running process. Others append until the head is where it was, then this process does."""
    last = log.last
    del log.events[8:]
    if head > 8:
        log.append_elsewhere(head - 8)
    log.append(4)
    assert await wakes(own, 10**9)
    assert own.take(last) == ()


async def test_a_new_session_must_read_first(log: Log, own: OwnAppends) -> None:
    first, mine = log.last, log.append()
    own.lost()
    assert not own.listening.is_set()
    assert await wakes(own, 10**9)
    assert own.take(first) == ()
    own.began(11)
    assert await wakes(own, 10**9)
    assert own.take(mine[0]) == ()
    assert not await wakes(own, 11)
    new = log.append()
    assert own.take(mine[0]) == tuple(new)


@pytest.mark.parametrize(("count", "size"), [(30, 10), (2, 600)])
async def test_more_than_the_bounds_must_be_read(
    log: Log, own: OwnAppends, monkeypatch: pytest.MonkeyPatch, count: int, size: int
) -> None:
    monkeypatch.setattr(own_appends, "MOST_EVENTS", 50)
    monkeypatch.setattr(own_appends, "MOST_BYTES", 2_000)
    first = log.last
    for _ in range(20):
        log.append(count, size)
    assert own.take(first) == ()
    assert await wakes(own, log.last.position - 1)
    read = log.last
    assert own.take(read) == (), "nothing more is there"
    new = log.append()
    assert own.take(read) == tuple(new)


@pytest_asyncio.fixture
async def patient(monkeypatch: pytest.MonkeyPatch) -> OwnAppends:
    """Nobody waits for events but for those of one byte. Without `hurry` the others linger for ever."""
    monkeypatch.setattr(own_appends, "LINGER_S", 3600.0)
    own = OwnAppends(patient=lambda event: len(event.state) > 1)
    own.began(10)
    assert own.take(None) == ()
    return own


async def test_events_for_which_nobody_waits_linger(patient: OwnAppends, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(patient)
    first, new = log.last, [*log.append(2), *log.append()]
    assert not await wakes(patient, 10)
    assert patient.take(first) == tuple(new), "a relay that looks takes them all the same"
    monkeypatch.setattr(own_appends, "LINGER_S", 0.01)
    log.append()
    async with within(10):
        await patient.wait(13, 60)
    assert patient.take(new[-1]) == tuple(log.events[-1:])


@pytest.mark.parametrize("end", ["an urgent event", "a question", "an append by somebody else", "the session is lost"])
async def test_what_somebody_waits_for_ends_the_wait(patient: OwnAppends, end: str) -> None:
    log = Log(patient)
    log.append()
    assert not await wakes(patient, 10)
    match end:
        case "an urgent event":
            log.append(size=1)
        case "a question":
            patient.hurry()
        case "an append by somebody else":
            log.append_elsewhere()
        case _:
            patient.lost()
    assert await wakes(patient, 10)
    log.append()
    assert await wakes(patient, 10), "what comes then holds up nothing that is due"


async def test_nothing_is_kept_after_the_block(log: Log, own: OwnAppends) -> None:
    first = log.last
    with own.given():
        assert own.wanted and own.turned.is_set()
        own.turned.clear()
        log.append()
    assert not own.wanted and own.turned.is_set()
    assert own.take(first) == ()


async def test_a_waiter_looks_often_while_nobody_listens_and_seldom_afterwards() -> None:
    own = OwnAppends(poll_s=0.3)
    loop = asyncio.get_running_loop()

    async def pause() -> float:
        began = loop.time()
        async with within(10):
            await own.wait(0, 60)
        return loop.time() - began

    waited = [await pause() for _ in range(3)]
    own.began(0)
    own.take(None)
    waited.append(await pause())
    for at_least, time in zip((0.1, 0.2, 0.3, 0.3), waited, strict=True):
        assert time >= at_least - 0.01  # a timer of the loop may be early by its clock's resolution


def requests() -> Iterator[tuple[str, Callable[[list[EncodedAppend]], Sequence[Row]], list[tuple[int, int]]]]:
    yield "all accepted", lambda batch: [row(0, "accepted", 16, 6)], [(0, 11), (0, 12), (1, 13), (2, 14), (2, 15), (2, 16)]
    yield (
        "a conflict, and another order",
        lambda batch: [
            row(3, "accepted", 13, 3),
            row(2, "conflict", stream=batch[1].request.streams[0].stream_id),
            row(1, "accepted", 15, 2),
        ],
        [(2, 11), (2, 12), (2, 13), (0, 14), (0, 15)],
    )
    yield (
        "a duplicate",
        lambda batch: [row(1, "accepted", 12, 2), row(2, "duplicate", 5, 1, 2), row(3, "accepted", 15, 3)],
        [(0, 11), (0, 12), (2, 13), (2, 14), (2, 15)],
    )
    yield "nothing", lambda batch: [row(number, "duplicate", 5, 1, number) for number in (1, 2, 3)], []


@pytest.mark.parametrize("case", list(requests()), ids=lambda case: case[0])
def test_only_what_was_written_counts(
    case: tuple[str, Callable[[list[EncodedAppend]], Sequence[Row]], list[tuple[int, int]]],
) -> None:
    _, answer, expected = case
    batch = [append(2), append(1), append(3)]
    streams = [one.request.streams[0].stream_id for one in batch]
    assert [(streams.index(event.stream_id), event.position) for event in recorded(batch, answer(batch))] == expected


def test_an_event_is_as_the_log_holds_it() -> None:
    one, other, root = uuid4(), uuid4(), uuid4()
    request = AppendRequest(
        TENANT,
        (AppendCommand(uuid4(), "first", 2), AppendCommand(uuid4(), "nothing", 0), AppendCommand(uuid4(), "second", 1)),
        (StreamHead(one, root, 4), StreamHead(other, root, 0)),
        (
            Placed(0, NewEvent("a.b", 2, b"1"), 6),
            Placed(1, NewEvent("c.d", 1, b"2")),
            Placed(0, NewEvent("e.f", 1, b"3"), 1),
        ),
    )
    assert list(recorded([EncodedAppend.of(request)], [row(0, "accepted", 23, 3)])) == [
        RecordedEvent(21, TENANT, one, 5, root, "a.b", 2, b"1", "first", AT, 6),
        RecordedEvent(22, TENANT, other, 1, root, "c.d", 1, b"2", "first", AT, 0),
        RecordedEvent(23, TENANT, one, 6, root, "e.f", 1, b"3", "second", AT, 1),
    ]


async def test_who_waits_for_a_position_ends_a_pause_of_the_relay(own: OwnAppends) -> None:
    for first in (True, False):
        pausing = asyncio.create_task(own.pause(3600.0))
        if first:
            await asyncio.sleep(0)
        own.hurry()
        async with within(15):
            await pausing
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await own.pause(3600.0)
