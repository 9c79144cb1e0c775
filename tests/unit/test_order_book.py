"""The book of the example's services: what is counted there, and what is found to be wrong."""

from pathlib import Path
from typing import Any

import pytest

from examples.order._services import Book
from examples.order.check import faults, main, told

ALL = ("reserved", "charged", "booked")
BACK = ("unbooked", "refunded", "released")


def rows(*kinds: str) -> list[dict[str, Any]]:
    return [{"kind": kind, "order_id": "o1"} for kind in kinds]


def test_a_service_that_knows_its_references_does_nothing_twice(tmp_path: Path) -> None:
    book = Book(tmp_path)
    assert book.once("reserved", "key", "o1", 2) == book.once("reserved", "key", "o1", 2) == book.find("reserved", "key")
    assert book.find("reserved", "other") is None
    [row] = book.rows()
    assert (row["number"], row["kind"], row["order_id"], row["amount"]) == (1, "reserved", "o1", 2)


def test_another_service_does_what_it_is_asked(tmp_path: Path) -> None:
    book = Book(tmp_path)
    assert book.add("charged", "key", "o1", 40) != book.add("charged", "key", "o1", 40)
    assert len(book.rows()) == 2


@pytest.mark.parametrize(
    ("kinds", "outcome"),
    [(ALL, "completed"), ((*ALL, *BACK), "failed"), (("reserved", "released"), "failed"), (ALL, None), (("reserved",), None)],
)
def test_a_book_that_is_right(kinds: tuple[str, ...], outcome: Any) -> None:
    assert list(faults(rows(*kinds), {} if outcome is None else {"o1": outcome})) == []


@pytest.mark.parametrize(
    ("kinds", "outcome", "fault"),
    [
        (("reserved", "charged", "charged", "booked"), "completed", "order o1: charged 2 times"),
        (("reserved", "charged"), "completed", "order o1 is completed, and was never booked"),
        ((*ALL, "refunded"), "completed", "order o1 is completed, and was refunded"),
        (("reserved", "charged", "refunded"), "failed", "order o1 failed, and what was reserved was not taken back"),
        (("reserved", "charged", "released", "refunded"), "failed",
         "order o1 was not taken back in reverse: reserved, charged, released, refunded"),
        ((), "completed", "order o1 is completed, and nothing happened"),
    ],
)  # fmt: skip
def test_a_book_that_is_wrong(kinds: tuple[str, ...], outcome: Any, fault: str) -> None:
    assert list(faults(rows(*kinds), {"o1": outcome})) == [fault]


def test_the_command_counts_and_tells_what_came_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    book = Book(tmp_path)
    book.add("charged", "a", "o1", 40)
    assert main([str(tmp_path)]) == 0
    assert "charged 1" in capsys.readouterr().out
    book.add("charged", "a", "o1", 40)
    assert main([str(tmp_path)]) == 1
    assert "order o1: charged 2 times" in capsys.readouterr().out
    assert told(book.rows()).startswith("reserved 0, charged 2, booked 0")
