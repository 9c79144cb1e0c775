"""Cursors and histories as values: valid cursors, and the position from which a reader goes on."""

from datetime import UTC, datetime

import pytest

from application.engine.reading.histories import Cursor, Histories, History
from domain.errors import HistoryReplaced, PositionBeyondHead


def history(number: int, history_id: str, replaces: str | None = None, last_common: int = 0) -> History:
    began_at = datetime(2026, 1, 1, tzinfo=UTC)
    return History(number, history_id, replaces, last_common, "reader", f"reason {number}", began_at, b"k%d" % number)


A, B, C = "aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"
THREE = Histories((history(1, A), history(2, B, A, 50), history(3, C, B, 30)))


# --- cursors --------------------------------------------------------------------------------------------------------------


NO_CURSORS = [
    "", "-1", "+1", "1.0", " 1", "1 ", "1\n", "٣", "9" * 19, "x", f"5-{A.upper()}", "5-aaa", f"5-{A}-", f"5-{A}-0123abc",
    f"-{A}", f"5-{A}-0123abcd-", f"5-{A}a",
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "cursor"),
    [
        ("0", Cursor(0)),
        ("12", Cursor(12)),
        ("9" * 18, Cursor(10**18 - 1)),
        (f"5-{A}", Cursor(5, A)),
        (f"5-{A}-0123abcd", Cursor(5, A, "0123abcd")),
        *((bad, None) for bad in NO_CURSORS),
    ],
)
def test_the_text_of_a_cursor(text: str, cursor: Cursor | None) -> None:
    assert Cursor.parse(text) == cursor


def test_a_cursor_that_was_given_out_is_told_from_an_invented_one() -> None:
    one, other = history(1, A), history(2, B)
    given = Cursor.parse(one.cursor(7))
    assert given == Cursor(7, A, given.seal if given else None) and given is not None
    assert one.gave_out(given)
    assert not other.gave_out(given), "each history has a key of its own"
    assert not one.gave_out(Cursor(8, A, given.seal)) and not one.gave_out(Cursor(7, A, None)) and not one.gave_out(Cursor(7))
    assert one.cursor(7) == one.cursor(7) != one.cursor(8)


@pytest.mark.parametrize(
    ("history_id", "last_common"),
    [(C, None), (B, 30), (A, 30), (None, 30), ("dddddddddddd", 0)],
)
def test_up_to_where_the_log_is_what_a_history_had(history_id: str | None, last_common: int | None) -> None:
    assert THREE.last_common(history_id) == last_common


def test_what_is_common_is_the_least_of_all_that_followed() -> None:
    rising = Histories((history(1, A), history(2, B, A, 30), history(3, C, B, 50)))
    assert (rising.last_common(A), rising.last_common(B)) == (30, 50)


def test_a_history_that_the_backup_did_not_know_is_known_by_what_replaced_it() -> None:
    unknown = Histories((history(1, A), history(2, B, "dddddddddddd", 40)))
    assert unknown.last_common("dddddddddddd") == 40
    assert unknown.knows("dddddddddddd") and not unknown.knows("eeeeeeeeeeee")
    assert unknown.has_replaced("dddddddddddd", 41) and not unknown.has_replaced("dddddddddddd", 40)
    assert not unknown.has_replaced("eeeeeeeeeeee", 1), "nothing is recorded of it"
    assert unknown.find("dddddddddddd") is None


@pytest.mark.parametrize(
    ("cursor", "holds"),
    [
        (Cursor(30, B), True),
        (Cursor(31, B), False),
        (Cursor(30, A), True),
        (Cursor(31, A), False),
        (Cursor(31), False),
        (Cursor(10_000, C), True),
        (Cursor(0, "dddddddddddd"), True),
        (Cursor(1, "dddddddddddd"), False),
    ],
)
def test_whether_the_log_still_has_what_was_read(cursor: Cursor, holds: bool) -> None:
    assert THREE.holds(cursor) is holds


def test_a_cursor_of_a_history_that_is_over_is_refused_with_where_to_go_on() -> None:
    THREE.check(Cursor(30, B), head=100)
    with pytest.raises(HistoryReplaced) as caught:
        THREE.check(Cursor(45, B), head=100)
    error = caught.value
    assert (error.history, error.last_common_position, error.reason) == (C, 30, "reason 3")
    assert error.cursor == THREE.current.cursor(30)
    with pytest.raises(HistoryReplaced) as caught:
        THREE.check(Cursor(7, "dddddddddddd"), head=100)
    assert caught.value.last_common_position == 0


def test_where_one_goes_on_is_not_after_where_one_was() -> None:
    assert THREE.replaced(B, 20).last_common_position == 20
    assert THREE.replaced(B, 40).last_common_position == 30
    assert THREE.replaced(C, 9).last_common_position == 9, "of the current history all is common"


def test_a_bare_position_is_taken_as_it_is_but_not_beyond_the_head() -> None:
    THREE.check(Cursor(45), head=45)
    for cursor in (Cursor(46), Cursor(46, C)):
        with pytest.raises(PositionBeyondHead) as caught:
            THREE.check(cursor, head=45)
        assert caught.value.head == 45


def test_no_id_means_the_first_history() -> None:
    assert THREE.find(None) == THREE.all[0] and THREE.find(B) == THREE.all[1] and THREE.current == THREE.all[2]
