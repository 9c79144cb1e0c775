"""Valid cursors: the rules of `engine/reading/histories.py` against a model that keeps every log that ever existed."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from application.engine.reading.histories import Cursor, Histories, History
from domain.errors import HistoryReplaced, PositionBeyondHead

AT = datetime(2026, 1, 1, tzinfo=UTC)


def history(number: int, last_common: int = 0, replaces: str | None = None) -> History:
    return History(number, f"{number:012x}", replaces, last_common, "restored", "a test", AT, bytes([number % 256]) * 16)


class Readers(RuleBasedStateMachine):
    """A log that grows, loses its end and goes on. Readers stop anywhere and keep the events that they have read."""

    @initialize()
    def begin(self) -> None:
        self.log: list[int] = []
        self.events = 0
        self.histories = Histories((history(1),))
        self.ids = 1
        self.readers: list[tuple[str, list[int]]] = []
        self.backups: list[tuple[list[int], Histories]] = []

    @rule(count=st.integers(1, 5))
    def append(self, count: int) -> None:
        self.log = self.log + list(range(self.events, self.events + count))
        self.events += count

    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        position = data.draw(st.integers(0, len(self.log)))
        self.readers.append((self.histories.current.cursor(position), self.log[:position]))

    @rule()
    def back_up(self) -> None:
        self.backups.append((self.log, self.histories))

    @rule(data=st.data(), lost=st.integers(0, 6), unsure=st.integers(0, 3))
    def lose_the_end(self, data: st.DataObject, lost: int, unsure: int) -> None:
        """A process that notices the new history may know less than the common part, never more, and may notice late."""
        ended = self.histories.current.history_id
        kept, known = len(self.log) - min(lost, len(self.log)), self.histories
        before = self.log[:kept]
        if self.backups and data.draw(st.booleans()):  # the histories come from the backup, too
            before, known = data.draw(st.sampled_from(self.backups))
        common = next(
            (i for i, (a, b) in enumerate(zip(before, self.log, strict=False)) if a != b), min(len(before), len(self.log))
        )
        appended = data.draw(st.integers(0, 4))
        self.log = before + list(range(self.events, self.events + appended))
        self.events += appended
        self.ids += 1
        number = known.current.number + 1
        new = History(number, f"{self.ids:012x}", ended, max(0, common - unsure), "relay", "lost", AT, bytes(16))
        self.histories = Histories((*known.all, new))

    @invariant()
    def a_cursor_that_is_taken_leaves_no_hole(self) -> None:
        for text, has in getattr(self, "readers", ()):
            cursor = Cursor.parse(text)
            assert cursor is not None
            try:
                self.histories.check(cursor, len(self.log))
            except HistoryReplaced as error:
                kept = error.last_common_position
                assert kept < cursor.position, "what it keeps is less than what it has"
                assert error.history == self.histories.current.history_id
                again = Cursor.parse(error.cursor)
                assert again is not None and again.position == kept
                self.histories.check(again, len(self.log))
            else:
                kept = cursor.position
            assert self.log[:kept] == has[:kept], "what it keeps is what the log has"


TestReaders = Readers.TestCase
TestReaders.settings = settings(max_examples=300, stateful_step_count=25, deadline=None)


CHAIN = Histories((history(1), history(2, 100), history(3, 250), history(4, 180)))


@pytest.mark.parametrize(
    ("cursor", "last_common"),
    [
        ("100-000000000001", None),  # common to all logs
        ("101-000000000001", 100),
        ("180-000000000002", None),
        ("181-000000000002", 180),  # the log came back to 250 first, and then lost more
        ("181-000000000003", 180),
        ("300-000000000004", None),
        ("1-0000000000ff", 0),  # of a history that began after the restored backup
        ("0-0000000000ff", None),
    ],
)
def test_a_cursor_is_good_up_to_what_all_later_histories_share(cursor: str, last_common: int | None) -> None:
    parsed = Cursor.parse(cursor)
    assert parsed is not None
    if last_common is None:
        CHAIN.check(parsed, 300)
        return
    with pytest.raises(HistoryReplaced) as caught:
        CHAIN.check(parsed, 300)
    assert (caught.value.last_common_position, caught.value.history) == (last_common, "000000000004")


def test_a_position_is_taken_as_it_is_but_not_beyond_the_head() -> None:
    CHAIN.check(Cursor(300), 300)
    for beyond in (Cursor(301), Cursor(301, "000000000004")):
        with pytest.raises(PositionBeyondHead, match="301 is beyond the newest event, which is at 300"):
            CHAIN.check(beyond, 300)


def test_a_history_of_which_only_the_end_is_recorded() -> None:
    """A backup older than the history was restored, and the noticing process named the history that had ended."""
    histories = Histories((history(1), history(2, 40, replaces="0000000000ff")))
    assert histories.last_common("0000000000ff") == 40 and histories.has_replaced("0000000000ff", 41)
    assert not histories.has_replaced("0000000000ff", 40) and not histories.has_replaced("0000000000ee", 41)


@given(position=st.integers(0, 10**18 - 1), other=st.integers(0, 10**18 - 1))
def test_a_cursor_that_was_given_out_is_told_from_an_invented_one(position: int, other: int) -> None:
    one = history(1)
    cursor = Cursor.parse(one.cursor(position))
    assert cursor is not None and (cursor.position, cursor.history) == (position, one.history_id)
    assert one.gave_out(cursor) and not history(2).gave_out(cursor)
    assert not one.gave_out(Cursor(position, one.history_id))
    assert one.gave_out(Cursor(other, one.history_id, cursor.seal)) == (other == position)


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "1-", "1-abc", "1-00000000000G", "1-000000000001-", "²", "9" * 19, "1 ", "1-000000000001-0000000g"]
)
def test_what_is_no_cursor(text: str) -> None:
    assert Cursor.parse(text) is None
