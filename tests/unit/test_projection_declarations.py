"""Declarations of read models: plug-ins and their faults, handlers by topic, pages and their cursors."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from importlib.metadata import EntryPoint
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel
from structlog.testing import capture_logs

from application.engine.ports.pages import decode_cursor, encode_cursor, parse_position, position_cursor, uuid_cursor
from application.engine.ports.views import Timestamp
from domain.context import ContextValueSet
from domain.errors import InvalidCommand
from domain.kernel import Event, RecordedEvent
from domain.projects import ProjectCreated
from projections.engine import kernel, plugins
from projections.engine.kernel import ListedRow, Projection, by_topic, dump_json, in_turns, listed, load_json, topics_of
from projections.engine.plugins import Problem, checksum, discover


async def apply(connection: Any, batch: Sequence[RecordedEvent]) -> None: ...


GOOD = Projection("costs", frozenset({"project.created"}), ("cost",), apply, ddl=("CREATE TABLE cost (id uuid)",))
OURS = Projection("runs", frozenset({"run.started"}), ("run",), apply)
TOPICS = {"project.created", "run.started"}


class Point(EntryPoint):
    """An entry point with a ready value."""

    loaded: Any

    def load(self) -> Any:
        if isinstance(self.loaded, BaseException):
            raise self.loaded
        return self.loaded


def point(loaded: Any, name: str = "costs") -> Point:
    found = Point(name, f"their.module:{name}", plugins.GROUP)
    vars(found).update(loaded=loaded)
    return found


def discovered(monkeypatch: pytest.MonkeyPatch, *points: Point) -> plugins.Discovery:
    def entry_points(*, group: str) -> tuple[Point, ...]:
        assert group == "tidelog.projections"
        return points

    monkeypatch.setattr(plugins, "entry_points", entry_points)
    return discover((OURS,), TOPICS, {"event"})


def test_plugins_are_taken_in_the_order_of_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(GOOD, name="alarms", tables=("alarm",))
    several = (replace(GOOD, name="c", tables=("c1",)), replace(GOOD, name="d", tables=("d1", "d2")))
    found = discovered(monkeypatch, point(GOOD, "z"), point(list(several), "m"), point(other, "a"))
    assert found.projections == (other, *several, GOOD)
    assert found.problems == () and found.sources == dict.fromkeys(["alarms", "c", "d", "costs"], "?")


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"name": "Costs"}, "'Costs' is no name of a projection"),
        ({"name": "1costs"}, "is no name of a projection"),
        ({"name": ""}, "is no name of a projection"),
        ({"name": "c" * 41}, "is no name of a projection"),
        ({"name": "costs@2"}, "is no name of a projection"),
        ({"name": "costs\n"}, "is no name of a projection"),
        ({"name": "runs"}, "there is another projection 'runs'"),
        ({"name": "sagas"}, "there is another projection 'sagas'"),
        ({"tables": ()}, "must name its tables"),
        ({"ddl": ()}, "must name its tables"),
        ({"tables": ["cost"]}, "must be tuples"),
        ({"ddl": ["CREATE"]}, "must be tuples"),
        ({"ddl": "CREATE"}, "must be tuples"),
        ({"tables": ("cost", "Cost")}, r"\['Cost'\] are no names of tables"),
        ({"tables": ("c" * 41,)}, "are no names of tables"),
        ({"tables": ("run",)}, "run belong to others"),
        ({"tables": ("event",)}, "event belong to others"),
        ({"topics": frozenset()}, "none given"),
        ({"topics": frozenset({"project.created", "b.x", "a.x"})}, r"unknown topics a\.x, b\.x$"),
    ],
)
def test_what_is_wrong_with_a_plugin_is_said(monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], problem: str) -> None:
    good = replace(GOOD, name="good", tables=("good_table",))
    with capture_logs() as logs:
        found = discovered(monkeypatch, point(replace(GOOD, **changed)), point(good, "good"))
    assert found.projections == (good,), "others go on"
    [said] = found.problems
    assert (said.entry_point, said.distribution) == ("costs", "?")
    with pytest.raises(AssertionError, match=problem):
        raise AssertionError(said.error)
    assert [entry["event"] for entry in logs] == ["projection_plugin_broken"]


@pytest.mark.parametrize("length", [1, 40])
def test_names_may_be_as_long_as_a_schema_takes(monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    one = replace(GOOD, name="c" * length, tables=("t" * length,))
    assert discovered(monkeypatch, point(one)).projections == (one,)


@pytest.mark.parametrize(
    ("loaded", "problem"),
    [
        (ImportError("no module"), "ImportError: no module"),
        (SystemExit("bye"), "SystemExit: bye"),
        (5, "neither a projections.kernel.Projection nor a tuple of them"),
        ((), "neither a projections"),
        ((GOOD, "x"), "neither a projections"),
        ("text", "neither a projections"),
    ],
)
def test_one_that_cannot_be_loaded_is_left_out(monkeypatch: pytest.MonkeyPatch, loaded: Any, problem: str) -> None:
    found = discovered(monkeypatch, point(loaded))
    assert found.projections == () and isinstance(found.problems[0], Problem) and problem in found.problems[0].error


def test_the_second_of_two_that_want_the_same_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    same_name, same_table = replace(GOOD, tables=("other",)), replace(GOOD, name="other")
    found = discovered(monkeypatch, point(GOOD, "a"), point(same_name, "b"), point(same_table, "c"))
    assert found.projections == (GOOD,)
    assert [problem.error for problem in found.problems] == [
        "there is another projection 'costs'",
        "projection 'other': cost belong to others",
    ]


def test_the_checksum_is_of_all_statements_in_their_order() -> None:
    one, other = "CREATE TABLE a ()", "CREATE TABLE b ()"
    sums = [checksum(replace(GOOD, ddl=ddl)) for ddl in ((one, other), (other, one), (one,))]
    assert len(set(sums)) == 3 and sums[0] == checksum(replace(GOOD, name="another", ddl=(one, other)))


# --- handlers -------------------------------------------------------------------------------------------------------------


def recorded(event: type[Event], position: int) -> RecordedEvent:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return RecordedEvent(position, UUID(int=1), UUID(int=2), position, UUID(int=2), event.TOPIC, 1, b"{}", "{}", at)


async def test_a_handler_gets_consecutive_events_of_its_topic_together_and_in_order() -> None:
    calls: list[tuple[str, list[int]]] = []

    def noting(name: str) -> Any:
        async def handle(connection: Any, batch: Sequence[RecordedEvent]) -> None:
            assert connection == "connection"
            calls.append((name, [event.position for event in batch]))

        return handle

    handler = by_topic((ProjectCreated, noting("project")), (ContextValueSet, noting("value")))
    kinds = [ProjectCreated, ProjectCreated, ContextValueSet, ProjectCreated, ContextValueSet, ContextValueSet]
    await handler("connection", [recorded(kind, n) for n, kind in enumerate(kinds, 1)])  # type: ignore[arg-type]
    assert calls == [("project", [1, 2]), ("value", [3]), ("project", [4]), ("value", [5, 6])]
    calls.clear()
    await handler("connection", [])  # type: ignore[arg-type]
    await handler("connection", [recorded(ContextValueSet, 7)])  # type: ignore[arg-type]
    assert calls == [("value", [7])]


def test_topics_are_those_of_the_classes() -> None:
    assert topics_of(ProjectCreated, ContextValueSet) == {"project.created", "context.value_set"}


async def test_others_have_their_turn_in_a_large_batch() -> None:
    turns = 0
    working = True

    async def others() -> None:
        nonlocal turns
        while working:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    assert [item async for item in in_turns(range(250))] == list(range(250))
    assert turns == 250 // kernel.TURN
    working = False
    await task


def test_a_row_that_cannot_be_read_costs_its_own_entry() -> None:
    def broken() -> ListedRow:
        raise ValueError("cut off")

    with capture_logs() as logs:
        mark = listed("run", 7, broken, lambda: ListedRow(unreadable=True))
        fine = listed("run", 8, lambda: ListedRow(), lambda: ListedRow(unreadable=True))
    assert (mark.unreadable, fine.unreadable) == (True, False)
    assert [(entry["event"], entry["table"], entry["row"]) for entry in logs] == [("stored_row_unreadable", "run", "7")]
    with pytest.raises(KeyError):
        listed("run", 9, lambda: {}["x"], lambda: ListedRow(unreadable=True))


def test_stored_json_is_what_was_given() -> None:
    value = {"big": 10**30, "text": "ü\n", "list": [None, True, 1.5]}
    assert load_json(dump_json(value)) == value
    with pytest.raises(ValueError):
        load_json("{")


def test_times_of_views_are_utc_with_milliseconds() -> None:
    class View(BaseModel):
        at: Timestamp

    moments = [datetime(2026, 1, 2, 3, 4, 5, 678_900, UTC), datetime(2026, 1, 2, 5, 4, 5, tzinfo=timezone(timedelta(hours=2)))]
    assert [View(at=moment).model_dump(mode="json")["at"] for moment in moments] == [
        "2026-01-02T03:04:05.678Z",
        "2026-01-02T03:04:05.000Z",
    ]


# --- pages ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["a", "ab", "abc", "abcd", "ü/+~?", "name.with.dots", "9" * 100])
def test_a_cursor_names_the_last_row_seen(value: str) -> None:
    cursor = encode_cursor(value)
    assert decode_cursor(cursor) == value
    assert cursor.replace("-", "").replace("_", "").isalnum(), "fit for a URL"


@pytest.mark.parametrize("cursor", ["", "a", "_w", "é", "A=A"])
def test_what_is_no_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidCommand) as caught:
        decode_cursor(cursor)
    assert caught.value.pointer == "/cursor"


def test_cursors_of_ids_and_positions() -> None:
    assert uuid_cursor(None) is None and position_cursor(None) is None
    assert uuid_cursor(encode_cursor(str(UUID(int=7)))) == UUID(int=7)
    assert position_cursor(encode_cursor("17")) == 17
    for cursor in ("17", "x", ""):
        with pytest.raises(InvalidCommand):
            uuid_cursor(encode_cursor(cursor))
    for cursor in ("-1", "1.5", "", "9" * 19, str(UUID(int=7))):
        with pytest.raises(InvalidCommand):
            position_cursor(encode_cursor(cursor))


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("0", 0),
        ("007", 7),
        ("9" * 18, 10**18 - 1),
        ("9" * 19, None),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("1 ", None),
        ("٣", None),
    ],
)
def test_a_position_is_decimal_digits(text: str, position: int | None) -> None:
    assert parse_position(text) == position
