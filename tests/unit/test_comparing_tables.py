"""Comparing a live table with the one made from the log: the first difference, and where it is."""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain.kernel import RecordedEvent
from projections.engine.kernel import EarlierForm
from projections.engine.rebuild.comparison import ComparedRow, ComparedTable, Comparison, Difference, columns_differ
from projections.engine.versions import Column

NOW = datetime(2026, 1, 2, tzinfo=UTC)
COLUMNS = (Column("id", "integer", True), Column("name", "text", False), Column("at", "timestamp with time zone", False))
TABLE = ComparedTable("thing", COLUMNS, ("id",), None, frozenset())


@dataclass
class Counted:
    rows: int = 0
    earlier: int = 0

    async def one_more(self) -> None:
        self.rows += 1


def row(id: int, name: Any = "n", at: datetime = NOW) -> ComparedRow:
    return ComparedRow((id,), (id, name, at))


async def each(rows: Sequence[ComparedRow]) -> AsyncIterator[ComparedRow]:
    for one in rows:
        yield one


async def compared(
    live: Sequence[ComparedRow], log: Sequence[ComparedRow], table: ComparedTable = TABLE, count: Counted | None = None
) -> Difference | None:
    return await Comparison(table, 7, NOW, count or Counted()).run(each(live), each(log))


async def test_equal_tables_have_no_difference_and_every_row_is_counted() -> None:
    count = Counted()
    assert await compared([row(1), row(2)], [row(1), row(2)], count=count) is None
    assert count == Counted(rows=2, earlier=0)
    assert await compared([], []) is None


@pytest.mark.parametrize("live", [[row(1), row(2), row(3)], [row(1), row(2)]])
async def test_a_row_that_the_log_does_not_know_is_surplus(live: list[ComparedRow]) -> None:
    log = [one for one in live if one.key != (2,)]
    assert await compared(live, log) == Difference(table="thing", what="surplus", key={"id": "2"}, position=7)


@pytest.mark.parametrize("log", [[row(1), row(2), row(3)], [row(1), row(2)]])
async def test_a_row_that_only_the_log_knows_is_missing(log: list[ComparedRow]) -> None:
    live = [one for one in log if one.key != (2,)]
    assert await compared(live, log) == Difference(table="thing", what="missing", key={"id": "2"}, position=7)


async def test_the_first_difference_ends_the_comparison() -> None:
    count = Counted()
    found = await compared([row(1), row(2, "a"), row(3)], [row(1), row(2, "b"), row(4)], count=count)
    assert found == Difference(table="thing", what="changed", key={"id": "2"}, column="name", live="a", log="b", position=7)
    assert count.rows == 2


async def test_a_row_that_is_taken_when_due_may_be_missing_from_that_time_on() -> None:
    timers = replace(TABLE, due="at")
    count = Counted()
    assert await compared([row(2)], [row(1, at=NOW), row(2)], timers, count) is None
    assert count.rows == 2
    assert await compared([], [row(1, at=NOW)], timers) is None
    late = await compared([row(2)], [row(1, at=NOW + timedelta(microseconds=1)), row(2)], timers)
    assert late is not None and (late.what, late.key) == ("missing", {"id": "1"})


async def test_columns_that_are_not_of_the_log_may_differ() -> None:
    free = replace(TABLE, free=frozenset({"name"}))
    assert await compared([row(1, "a")], [row(1, "b")], free) is None
    other = await compared([row(1, "a", NOW)], [row(1, "b", NOW + timedelta(1))], free)
    assert other is not None and other.column == "at"


async def test_not_a_number_is_the_same_as_itself() -> None:
    assert await compared([row(1, float("nan"))], [row(1, float("nan"))]) is None
    found = await compared([row(1, float("nan"))], [row(1, 1.5)])
    assert found is not None and (found.live, found.log) == ("NaN", "1.5")


@pytest.mark.parametrize(
    ("live", "log", "shown"),
    [
        (None, "x", (None, "x")),
        ("x", None, ("x", None)),
        ({"a": 1}, {"a": 2}, ('{"a":1}', '{"a":2}')),
        ([1], [1, 2], ("[1]", "[1,2]")),
        (True, False, ("true", "false")),
        (3, 2.5, ("3", "2.5")),
        (b"\xff{", b"\xfe{", ("\\xff{", "\\xfe{")),
        ("a" * 2_000, "b" * 2_001, ("a" * 2_000, "b" * 1_999 + "…")),
    ],
)
async def test_values_are_shown_as_text(live: Any, log: Any, shown: tuple[str | None, str | None]) -> None:
    found = await compared([row(1, live)], [row(1, log)])
    assert found is not None and (found.column, found.live, found.log) == ("name", *shown)


@pytest.mark.parametrize(
    ("live", "log", "place", "shown"),
    [
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, "name/a/c", ("2", "3")),
        ({"a": [1, {"b": None}]}, {"a": [1, {"b": 0}]}, "name/a/1/b", (None, "0")),
        ({"a": [1, 2]}, {"a": [1]}, "name/a", ("[1,2]", "[1]")),
        ({"a": 1}, {"b": 1}, "name", ('{"a":1}', '{"b":1}')),
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, "name/b", ("2", "3")),
    ],
)
async def test_in_documents_the_first_place_that_differs_is_named(
    live: Any, log: Any, place: str, shown: tuple[str | None, str | None]
) -> None:
    found = await compared([row(1, json.dumps(live).encode())], [row(1, json.dumps(log).encode())])
    assert found is not None and (found.column, found.live, found.log) == (place, *shown)


async def test_documents_that_say_the_same_in_other_bytes_differ_as_they_are() -> None:
    found = await compared([row(1, b'{"a":1}')], [row(1, b'{"a": 1}')])
    assert found is not None and (found.column, found.live, found.log) == ("name", '{"a":1}', '{"a": 1}')


def content(document: bytes) -> bytes:
    return json.dumps(json.loads(document), sort_keys=True).encode()


async def apply(connection: Any, schema: str, batch: Sequence[RecordedEvent]) -> None: ...


async def test_documents_of_an_earlier_form_are_compared_by_what_they_say() -> None:
    table, count = replace(TABLE, earlier=EarlierForm("thing", "name", apply, content)), Counted()
    live = [row(1, b'{"a":1,"b":2}'), row(2, None), row(3, b"3")]
    assert await compared(live, [row(1, b'{"b":2,"a":1}'), row(2, None), row(3, b"3")], table, count) is None
    assert count == Counted(rows=3, earlier=2)
    found = await compared([row(1, b'{"a":1}')], [row(1, b'{"a":2}')], table)
    assert found is not None and (found.column, found.live, found.log) == ("name/a", "1", "2")
    moved = await compared([row(1, b"1")], [row(1, b"1", NOW + timedelta(1))], table)
    assert moved is not None and moved.column == "at"
    unreadable = await compared([row(1, b"{")], [row(1, b"[")], table)
    assert unreadable is not None and (unreadable.column, unreadable.live, unreadable.log) == ("name", "{", "[")
    gone = await compared([row(1, b"1")], [row(1, None)], table)
    assert gone is not None and (gone.live, gone.log) == ("1", None)


async def test_without_a_primary_key_the_whole_row_is_the_key() -> None:
    found = await compared([row(1)], [], replace(TABLE, keys=()))
    assert found is not None and found.key == {"id": "1", "name": "n", "at": str(NOW)}


def test_other_columns_are_told_with_their_types() -> None:
    found = columns_differ("thing", COLUMNS[:2], COLUMNS[:1], 9)
    assert found == Difference(
        table="thing", what="columns", key={}, live="id integer NOT NULL, name text", log="id integer NOT NULL", position=9
    )
