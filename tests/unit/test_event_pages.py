"""Pages of the log, `as_of`, and single events; over ports in memory."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from pydantic_core import to_json

from application.engine.ports.log import ANYBODY, AskedBy, NewEvent, StreamAppend, one_command
from application.engine.ports.pages import MAX_POSITION, decode_cursor, encode_cursor, position_cursor, uuid_cursor
from application.engine.reading import event_pages
from application.engine.reading.as_of import position_as_of, until_caught_up
from application.engine.reading.channels import Filter
from application.engine.reading.event_pages import EventPage, Within, event_at, read_event_page, read_newest_page
from application.engine.reading.histories import Cursor
from application.engine.reading.history_keeper import HistoryKeeper
from domain.errors import InvalidCommand, NotFound, PositionBeyondHead
from domain.kernel import RecordedEvent
from tests.kit.memory import ManualClock, MemoryEventFeed, MemoryHistories, MemoryLog
from tests.kit.waiting import TENANT, new_id

OTHER = UUID(int=TENANT.int + 1)


class Reading:
    """A log of seven events, a minute apart: five of a tenant in two roots; the third and the last belong to another tenant."""

    def __init__(self) -> None:
        clock = ManualClock()
        log = MemoryLog(clock)
        self.roots = new_id(), new_id()
        self.times: list[datetime] = []
        one, two = self.roots
        for tenant, root, topic in (
            (TENANT, one, "a"), (TENANT, two, "b"), (OTHER, one, "a"), (TENANT, one, "b"), (TENANT, one, "a"), (TENANT, two, "a"),
            (OTHER, two, "a"),
        ):  # fmt: skip
            append = StreamAppend(new_id(), root, 0, (NewEvent(topic, 1, b"{}"),))
            log.add(one_command(tenant, new_id(), (append,), "{}"))
            self.times.append(clock.now())
            clock.advance(60)
        self.feed = MemoryEventFeed(log)
        self.histories = HistoryKeeper(MemoryHistories(log))

    async def as_of(self, text: str, root_id: UUID | None = None) -> int:
        return await position_as_of(self.feed, self.histories, TENANT, text, root_id=root_id)

    async def page(
        self,
        *,
        after: int | None = None,
        limit: int = 10,
        as_of: str | None = None,
        root: UUID | None = None,
        topics: frozenset[str] | None = None,
        first: datetime | None = None,
        end: datetime | None = None,
    ) -> tuple[list[int], int, bool]:
        wanted = Filter(TENANT, root, topics)
        start = None if after is None else Cursor(after)
        page: EventPage = await read_event_page(
            self.feed, self.histories, wanted, start, limit=limit, as_of=as_of, within=Within(first, end)
        )
        assert all(event.tenant_id == TENANT for event in page.events)
        return [event.position for event in page.events], page.position, page.more


@pytest.fixture
def reading() -> Reading:
    return Reading()


# --- as_of ------------------------------------------------------------------------------------------------------------


async def test_as_of_is_a_position_up_to_the_head(reading: Reading) -> None:
    assert [await reading.as_of(text) for text in ("0", "3", "7", "8", "9" * 18)] == [0, 3, 7, 7, 7]


async def test_as_of_is_a_time_with_its_zone(reading: Reading) -> None:
    fourth, second = reading.times[3], timedelta(seconds=1)
    for at, position in ((fourth, 4), (fourth - second, 2), (fourth + second, 4), (reading.times[0] - second, 0)):
        assert await reading.as_of(at.isoformat()) == position
        assert await reading.as_of(at.astimezone(UTC).strftime("%Y-%m-%dt%H:%M:%SZ")) == position
    assert await reading.as_of(fourth.isoformat(sep=" ")) == 4
    assert await reading.as_of(fourth.isoformat(), root_id=reading.roots[1]) == 2, "the last one of that root"


NO_TIMES = ["", "now", "-1", "1.5", "9" * 19, "1767225600Z", "2026-01-01", "2026-01-01T00:00:00", "2026-13-01T00:00:00Z"]


@pytest.mark.parametrize("text", NO_TIMES)
async def test_anything_else_is_refused(reading: Reading, text: str) -> None:
    with pytest.raises(InvalidCommand) as refused:
        await reading.as_of(text)
    assert refused.value.pointer == "/as_of"


async def test_who_waits_for_a_read_model_waits_for_a_position_that_was_given_out(reading: Reading) -> None:
    asked: list[tuple[str, int, float]] = []

    class Positions:
        async def until(self, name: str, position: int, timeout_s: float) -> None:
            asked.append((name, position, timeout_s))

    await until_caught_up(reading.histories, Positions(), "runs", 7, 2.5)
    assert asked == [("runs", 7, 2.5)]
    with pytest.raises(PositionBeyondHead, match="position 8 is beyond the newest event, which is at 7"):
        await until_caught_up(reading.histories, Positions(), "runs", 8, 2.5)
    assert len(asked) == 1


async def test_a_position_that_this_process_has_heard_of_is_not_asked_for(reading: Reading) -> None:
    histories, heard = reading.histories, [9]
    histories.heard = lambda: heard[0]
    await histories.must_have(9)
    with pytest.raises(PositionBeyondHead):
        await histories.must_have(10)
    await histories.restored("a test", 3)
    with pytest.raises(PositionBeyondHead):
        await histories.must_have(9)


# --- pages ------------------------------------------------------------------------------------------------------------


async def test_a_page_has_the_events_of_its_tenant_after_a_cursor(reading: Reading) -> None:
    assert await reading.page() == ([1, 2, 4, 5, 6], 6, False)
    assert await reading.page(after=2) == ([4, 5, 6], 6, False)
    assert await reading.page(after=6) == ([], 6, False)
    assert await reading.page(after=0) == await reading.page()


async def test_a_full_page_says_whether_there_are_others(reading: Reading) -> None:
    assert await reading.page(limit=2) == ([1, 2], 2, True)
    assert await reading.page(limit=2, after=2) == ([4, 5], 5, True)
    assert await reading.page(limit=5) == ([1, 2, 4, 5, 6], 6, False)


async def test_a_page_has_what_is_wanted_up_to_as_of(reading: Reading) -> None:
    one, two = reading.roots
    assert await reading.page(as_of="4") == ([1, 2, 4], 4, False)
    assert await reading.page(as_of=reading.times[3].isoformat(), limit=2) == ([1, 2], 2, True)
    assert await reading.page(root=two) == ([2, 6], 6, False)
    assert await reading.page(root=one, topics=frozenset(["a"])) == ([1, 5], 5, False)
    assert await reading.page(topics=frozenset(["b", "a"])) == ([1, 2, 4, 5, 6], 6, False)
    assert await reading.page(topics=frozenset()) == ([], 0, False)


async def test_an_event_is_read_at_its_position(reading: Reading) -> None:
    event, history = await event_at(reading.feed, reading.histories, TENANT, 4)
    assert (event.position, event.topic) == (4, "b")
    assert reading.histories.is_current(history.history_id)
    assert (await event_at(reading.feed, reading.histories, TENANT, 1))[0].position == 1
    for position in (-1, 0, 3, 7, 8, MAX_POSITION):
        with pytest.raises(NotFound, match=f"position {position}"):
            await event_at(reading.feed, reading.histories, TENANT, position)
    reads = reading.feed.reads
    with pytest.raises(NotFound):
        await event_at(reading.feed, reading.histories, TENANT, MAX_POSITION + 1)
    assert reading.feed.reads == reads, "the database takes no such number"


def test_cursors_of_pages_have_no_padding_and_are_refused_by_their_field() -> None:
    assert [encode_cursor(text) for text in ("a", "ab", "abc")] == ["YQ", "YWI", "YWJj"]
    assert decode_cursor("YQ") == "a"
    for wrong in ("", "YQ==", "Y Q", "Y!Q", "YR", "YQ\n"):  # the decoder of Python would read each of these
        with pytest.raises(InvalidCommand):
            decode_cursor(wrong)
    for parse in (uuid_cursor, position_cursor):
        with pytest.raises(InvalidCommand) as refused:
            parse(encode_cursor("no"))
        assert refused.value.pointer == "/cursor"


# --- within times ---------------------------------------------------------------------------------------------------------


async def test_a_page_within_times_has_the_first_time_and_not_the_end(reading: Reading) -> None:
    times, one = reading.times, reading.roots[0]
    moment = timedelta(microseconds=1)
    assert await reading.page(first=times[1]) == ([2, 4, 5, 6], 6, False)
    assert await reading.page(first=times[1] + moment) == ([4, 5, 6], 6, False)
    assert await reading.page(end=times[3]) == ([1, 2], 2, False)
    assert await reading.page(end=times[3] + moment) == ([1, 2, 4], 4, False)
    assert await reading.page(first=times[1], end=times[5]) == ([2, 4, 5], 5, False)
    assert await reading.page(first=times[3], end=times[3]) == ([], 2, False)
    assert await reading.page(first=times[1], root=one) == ([4, 5], 5, False)
    assert await reading.page(end=times[4], root=one, topics=frozenset("a")) == ([1], 1, False)


async def test_times_go_with_a_cursor_and_as_of(reading: Reading) -> None:
    times = reading.times
    assert await reading.page(first=times[1], limit=2) == ([2, 4], 4, True)
    assert await reading.page(first=times[1], after=4) == ([5, 6], 6, False)
    assert await reading.page(first=times[1], as_of="4") == ([2, 4], 4, False)
    assert await reading.page(end=times[3], as_of="6") == ([1, 2], 2, False)
    assert await reading.page(first=times[5] + timedelta(1)) == ([], 6, False)
    assert await reading.page(end=datetime.min.replace(tzinfo=UTC)) == ([], 0, False)


async def test_a_page_may_have_the_newest_events_first(reading: Reading) -> None:
    times, (one, two) = reading.times, reading.roots

    async def page(
        before: int | None = None, limit: int = 10, *, after: int | None = None, as_of: str | None = None, root: UUID | None = None,
        topics: frozenset[str] | None = None, first: datetime | None = None, end: datetime | None = None,
    ) -> tuple[list[int], int, bool]:  # fmt: skip
        found = await read_newest_page(
            reading.feed, reading.histories, Filter(TENANT, root, topics), None if after is None else Cursor(after),
            before=None if before is None else Cursor(before), limit=limit, as_of=as_of, within=Within(first, end),
        )  # fmt: skip
        return [event.position for event in found.events], found.position, found.more

    assert await page() == ([6, 5, 4, 2, 1], 1, False)
    assert await page(limit=2) == ([6, 5], 5, True)
    assert await page(5, limit=2) == ([4, 2], 2, True)
    assert await page(2, limit=2) == ([1], 1, False)
    assert await page(1) == ([], 0, False)
    assert await page(limit=5) == ([6, 5, 4, 2, 1], 1, False)
    assert await page(after=2) == ([6, 5, 4], 4, False)
    assert await page(5, after=4) == ([], 4, False)
    assert await page(as_of="4") == ([4, 2, 1], 1, False) and await page(2, as_of="4") == ([1], 1, False)
    assert await page(root=two) == ([6, 2], 2, False) and await page(topics=frozenset("b"), limit=1) == ([4], 4, True)
    assert await page(root=one, topics=frozenset("a")) == ([5, 1], 1, False)
    assert await page(first=times[1], end=times[5]) == ([5, 4, 2], 2, False)
    assert await page(first=times[3], end=times[3]) == ([], 2, False)


async def test_a_page_of_ones_newest_events_looks_at_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_pages, "AT_ONCE", 2)
    log = MemoryLog(ManualClock())
    for place in range(1, 12):  # the first and the last are on behalf of somebody
        who = asked_by(on_behalf_of="user:ada") if place in (1, 11) else asked_by()
        log.add(one_command(TENANT, new_id(), (StreamAppend(new_id(), new_id(), 0, (NewEvent("a", 1, b"{}"),)),), who))
    feed, histories = MemoryEventFeed(log), HistoryKeeper(MemoryHistories(log))
    hidden = {9}

    async def sees(events: Sequence[RecordedEvent]) -> Sequence[RecordedEvent]:
        return [event for event in events if event.position not in hidden]

    async def page(
        before: int | None = None, limit: int = 10, *, all_seen: bool = True, **asked: str
    ) -> tuple[list[int], int, bool]:
        found = await read_newest_page(
            feed, histories, Filter(TENANT, None, None, AskedBy(**asked)), None, limit=limit, as_of=None,
            before=None if before is None else Cursor(before), sees=None if all_seen else sees,
        )  # fmt: skip
        return [event.position for event in found.events], found.position, found.more

    assert await page(on_behalf_of="user:ada") == ([11], 4, True)
    assert await page(4, on_behalf_of="user:ada") == ([1], 1, False)
    assert await page(limit=3, actor="key:1") == ([11, 10, 9], 9, True)
    assert await page(limit=3, all_seen=False) == ([11, 10, 8], 8, True)
    assert await page(9, all_seen=False) == ([8, 7, 6, 5, 4, 3, 2, 1], 1, True), "as many as are looked at"
    assert await page(1, all_seen=False) == ([], 0, False)


def asked_by(**said: object) -> str:
    return to_json({"actor": "key:1", **said}).decode()


async def test_a_page_of_ones_events_looks_at_a_bounded_number_and_goes_on_from_there() -> None:
    log = MemoryLog(ManualClock())
    for place in range(1, 8):  # positions 1 to 7; the third and the last are on behalf of somebody
        who = asked_by(on_behalf_of="user:ada") if place in (3, 7) else asked_by()
        stream = StreamAppend(new_id(), new_id(), 0, (NewEvent("a" if place < 7 else "b", 1, b"{}"),))
        log.add(one_command(TENANT, new_id(), (stream,), who))
    feed, histories = MemoryEventFeed(log), HistoryKeeper(MemoryHistories(log))
    feed.looked_at = 2

    async def page(after: int, limit: int = 10, topics: frozenset[str] | None = None, **asked: str) -> tuple[list[int], int, bool]:
        wanted = Filter(TENANT, None, topics, AskedBy(**asked))
        found = await read_event_page(feed, histories, wanted, Cursor(after), limit=limit, as_of=None)
        return [event.position for event in found.events], found.position, found.more

    assert await page(0, on_behalf_of="user:ada") == ([], 2, True)
    assert await page(2, on_behalf_of="user:ada") == ([3], 4, True)
    assert await page(4, on_behalf_of="user:ada") == ([], 6, True)
    assert await page(6, on_behalf_of="user:ada") == ([7], 7, False)
    assert await page(6, on_behalf_of="user:ada", topics=frozenset("a")) == ([], 6, False)
    assert await page(0, actor="key:1", limit=1) == ([1], 1, True)
    assert await page(0, actor="key:1") == ([1, 2], 2, True)
    assert await page(2, actor="key:1", on_behalf_of="user:ada") == ([3], 4, True)
    assert await page(2, actor="key:2", on_behalf_of="user:ada") == ([], 4, True)
    assert await page(2, on_behalf_of="user") == ([], 4, True)
    assert await page(7, actor="key:1") == ([], 7, False)


@pytest.mark.parametrize("metadata", ["", "[]", '"key:1"', '{"actor":1}', '{"by":"key:1"}'])
def test_metadata_that_name_nobody_are_nobodys(metadata: str) -> None:
    log = MemoryLog(ManualClock())
    log.add(one_command(TENANT, new_id(), (StreamAppend(new_id(), new_id(), 0, (NewEvent("a", 1, b"{}"),)),), metadata))
    [event] = log.events
    assert ANYBODY(event) and not AskedBy("key:1")(event) and not AskedBy(None, "key:1")(event)
