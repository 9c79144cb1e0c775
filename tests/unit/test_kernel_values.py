"""The building blocks of every slice: derived ids, equality of JSON, times, bounded texts, states, errors."""

import copy
import json
import pickle
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, ClassVar
from uuid import UUID

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from application.engine.commands.request import CommandRequest
from domain import errors
from domain.event_registry import EventRegistry, UnknownEvent, Upcast, unchanged
from domain.failures import MAX_LOST_CLAIMS, RETRYABLE, Failure, Retry, backoff_s
from domain.kernel import (
    Event,
    Metadata,
    Name,
    RecordedEvent,
    ShortText,
    Text,
    Value,
    derive_id,
    replace,
    same_json,
    timestamp,
    unsaid,
)

PARENT = UUID("01890000-1234-7abc-8def-0123456789ab")


# --- ids ------------------------------------------------------------------------------------------------------------------


@given(st.uuids(), st.text())
def test_a_derived_id_is_a_version_7_with_the_time_of_its_parent(parent: UUID, name: str) -> None:
    try:
        made = derive_id(parent, name)
    except UnicodeEncodeError:
        return  # lone surrogates are not valid text
    assert made == derive_id(parent, name)
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == parent.int >> 80


@given(st.lists(st.tuples(st.sampled_from([PARENT, UUID(int=PARENT.int + 1)]), st.integers(0, 10_000)), unique=True, max_size=50))
def test_derived_ids_do_not_meet(pairs: list[tuple[UUID, int]]) -> None:
    assert len({derive_id(parent, str(name)) for parent, name in pairs}) == len(pairs)


@pytest.mark.parametrize(
    ("parent", "name", "made"),
    [
        (PARENT, "step:a", "01890000-1234-744b-83e2-1ca2e6ee6ace"),
        (PARENT, "", "01890000-1234-752b-91a8-464beb5c157b"),
        (UUID(int=2**128 - 1), "x", "ffffffff-ffff-7f48-9c67-7d134500e837"),
    ],
)
def test_derived_ids_are_for_ever(parent: UUID, name: str, made: str) -> None:
    """Commands and streams of existing logs have these ids."""
    assert str(derive_id(parent, name)) == made


def test_a_derived_id_is_a_uuid_like_others() -> None:
    derived = derive_id(PARENT, "step:a")
    other = UUID(str(derived))
    assert type(derived) is UUID and derived == other and hash(derived) == hash(other) and derived.bytes == other.bytes
    assert derived.is_safe is uuid.SafeUUID.unknown
    assert pickle.loads(pickle.dumps(derived)) == copy.deepcopy(derived) == other


# --- JSON -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, 1, True),
        (1, True, False),
        (0, False, False),
        (1, 1.0, False),
        (None, None, True),
        (None, 0, False),
        ("1", 1, False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": 1, "b": None}, False),
        ([1, 2], [2, 1], False),
        ([1, 2], (1, 2), True),
        ([{"x": [True]}], [{"x": [1]}], False),
        ("é", "e\u0301", False),
    ],
)
def test_equality_of_json_values(one: Any, other: Any, same: bool) -> None:
    assert same_json(one, other) is same is same_json(other, one)


# --- times ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05.000Z"),
        (datetime(2026, 1, 2, 3, 4, 5, 999_999, tzinfo=UTC), "2026-01-02T03:04:05.999Z"),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=5, minutes=30))), "2026-01-01T21:34:05.000Z"),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=-1))), "2026-01-02T04:04:05.000Z"),
    ],
)
def test_times_are_written_in_utc_with_milliseconds(at: datetime, text: str) -> None:
    assert timestamp(at) == text


# --- texts and values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "longest"), [(ShortText, 500), (Text, 100_000)])
def test_texts_are_bounded_and_have_no_nul(kind: Any, longest: int) -> None:
    adapter = TypeAdapter(kind)
    assert adapter.validate_python("x" * longest) == "x" * longest
    assert adapter.validate_python("") == ""
    for bad in ("x" * (longest + 1), "a\x00b", "\x00", 5, None):
        with pytest.raises(ValidationError):
            adapter.validate_python(bad)


@pytest.mark.parametrize("name", ["a", "0", "-", "_", "a.b.c", "a-b_c.d9", "x" * 100])
def test_names(name: str) -> None:
    assert TypeAdapter(Name).validate_python(name) == name


def test_a_value_is_frozen_and_knows_its_fields() -> None:
    class Point(Value):
        x: int

    with pytest.raises(ValidationError):
        Point(x=1).x = 2  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Point(x=1, y=2)  # type: ignore[call-arg]


def test_an_event_takes_no_notice_of_what_a_newer_writer_added() -> None:
    class Happened(Event):
        TOPIC = "thing.happened"
        n: int

    assert Happened.model_validate({"n": 1, "new": 2}) == Happened(n=1) and Happened.VERSION == 1
    with pytest.raises(ValidationError):
        Happened(n=1).n = 2  # type: ignore[misc]


def test_metadata_takes_no_notice_of_what_a_newer_writer_added_and_need_have_no_trace() -> None:
    """So a release can be rolled back after a newer release has written events."""
    made = Metadata(actor="a", correlation_id=PARENT, causation_id="c", command_id=PARENT)
    assert (made.traceparent, made.on_behalf_of) == (None, None) and Metadata.model_validate_json(made.model_dump_json()) == made
    newer = made.model_dump_json().replace("{", '{"on_behalf_of":"key:other","field_of_a_newer_release":1,', 1)
    newer = newer.replace(',"on_behalf_of":null', "")
    assert Metadata.model_validate_json(newer) == made.model_copy(update={"on_behalf_of": "key:other"})
    with pytest.raises(ValidationError):
        made.actor = "b"


def test_metadata_of_a_command_for_nobody_have_no_field_for_it() -> None:
    request = CommandRequest(PARENT, "a", PARENT, PARENT, "c")
    names = {"actor", "correlation_id", "causation_id", "command_id", "traceparent"}
    assert set(json.loads(request.metadata())) == names
    said = request.metadata('user "ada"')
    assert set(json.loads(said)) == {*names, "on_behalf_of"} and Metadata.model_validate_json(said).on_behalf_of == 'user "ada"'


@dataclass(frozen=True)
class State:
    a: int = 1
    b: str = "x"
    CONSTANT: ClassVar[int] = 5


def test_a_state_is_replaced_and_not_changed() -> None:
    state = State()
    changed = replace(state, a=2)
    assert (changed, state) == (State(a=2), State()) and type(changed) is State
    assert replace(state) == state and replace(state, a=3, b="y") == State(3, "y")


def test_an_events_name_is_its_place_in_its_stream() -> None:
    event = RecordedEvent(9, PARENT, UUID(int=5), 3, PARENT, "t", 1, b"{}", "{}", datetime(2026, 1, 1, tzinfo=UTC))
    assert event.name == f"{UUID(int=5)}:3"


# --- failures and retries -------------------------------------------------------------------------------------------------

FAILURE = Failure(type="T", message="m", kind="transient")


@given(st.uuids(), st.integers(1, 20), st.floats(0.001, 3_600), st.floats(0.001, 86_400))
def test_a_pause_is_within_its_bounds_and_always_the_same(work: UUID, attempt: int, initial: float, longest: float) -> None:
    retry = Retry(max_attempts=20, initial_s=initial, max_s=longest)
    pause = backoff_s(retry, work, attempt, FAILURE)
    assert 0 < pause <= min(longest, initial * 2 ** (attempt - 1))
    assert pause == backoff_s(retry, work, attempt, FAILURE)


def test_pauses_spread_over_the_whole_range_and_double() -> None:
    retry = Retry(max_attempts=20, initial_s=1, max_s=1_000)
    works = [UUID(int=n) for n in range(400)]
    for attempt in (1, 2, 5):
        pauses = [backoff_s(retry, work, attempt, FAILURE) for work in works]
        ceiling = 2 ** (attempt - 1)
        assert min(pauses) < 0.05 * ceiling and max(pauses) > 0.95 * ceiling
        assert 0.4 * ceiling < sum(pauses) / len(pauses) < 0.6 * ceiling
    one = [backoff_s(retry, works[0], attempt, FAILURE) / 2 ** (attempt - 1) for attempt in range(1, 6)]
    assert len(set(one)) == 5, "each attempt has a pause of its own"


@pytest.mark.parametrize(("asked", "pause"), [(None, None), (0.0, None), (50.0, 50.0), (86_400.0, 86_400.0)])
def test_a_pause_is_at_least_what_the_failure_asks_for(asked: float | None, pause: float | None) -> None:
    retry = Retry(max_attempts=3, initial_s=1, max_s=2)
    asking = FAILURE.model_copy(update={"retry_after_s": asked})
    assert backoff_s(retry, PARENT, 1, asking) == (backoff_s(retry, PARENT, 1, FAILURE) if pause is None else pause)


def test_which_failures_are_tried_again() -> None:
    assert {"transient", "rate_limited"} == RETRYABLE and MAX_LOST_CLAIMS == 10


@pytest.mark.parametrize(
    ("make", "bad", "good"),
    [
        (Retry, {"max_attempts": 0}, {"max_attempts": 1}),
        (Retry, {"max_attempts": 21}, {"max_attempts": 20}),
        (Retry, {"initial_s": 0}, {"initial_s": 0.001}),
        (Retry, {"initial_s": 3_601}, {"initial_s": 3_600}),
        (Retry, {"max_s": 0}, {"max_s": 0.001}),
        (Retry, {"max_s": 86_401}, {"max_s": 86_400}),
        (Failure, {"kind": "odd"}, {"kind": "lost"}),
        (Failure, {"retry_after_s": -0.1}, {"retry_after_s": 0}),
        (Failure, {"retry_after_s": 86_401}, {"retry_after_s": 86_400}),
        (Failure, {"type": "x" * 501}, {"type": "x" * 500}),
        (Failure, {"message": "x" * 100_001}, {"message": "x" * 100_000}),
    ],
)
def test_bounds_of_retries_and_failures(make: type[Value], bad: dict[str, Any], good: dict[str, Any]) -> None:
    basis = {"type": "T", "message": "m"} if make is Failure else {}
    make(**basis | good)
    with pytest.raises(ValidationError):
        make(**basis | bad)


def test_without_a_word_work_is_tried_once() -> None:
    assert Retry() == Retry(max_attempts=1, initial_s=0.5, max_s=60.0)
    assert Failure(type="T", message="m").kind == "permanent"


# --- the registry ---------------------------------------------------------------------------------------------------------


class ThingV1(Event):
    TOPIC = "thing.done"
    n: int


class ThingV2(Event):
    TOPIC = "thing.done"
    VERSION = 2
    number: int


class Thing(Event):
    TOPIC = "thing.done"
    VERSION = 3
    number: int
    unit: str = "s"


class Other(Event):
    TOPIC = "other.done"
    x: Any = None


UPCASTS = {
    ("thing.done", 1): Upcast(ThingV1, lambda old: {"number": old["n"]}),
    ("thing.done", 2): Upcast(ThingV2, lambda old: {**old, "unit": "ms"}),
}
REGISTRY = EventRegistry({"others": (Other,), "things": (Thing,)}, UPCASTS)


@pytest.mark.parametrize(
    ("version", "state", "event"),
    [
        (1, b'{"n": 5}', Thing(number=5, unit="ms")),
        (2, b'{"number": 6}', Thing(number=6, unit="ms")),
        (3, b'{"number": 7}', Thing(number=7)),
        (3, b'{"number": 7, "unit": "h", "later": 1}', Thing(number=7, unit="h")),
    ],
)
def test_an_older_version_goes_through_all_upcasts(version: int, state: bytes, event: Thing) -> None:
    assert REGISTRY.decode("thing.done", version, state) == event


@pytest.mark.parametrize(("topic", "version"), [("thing.done", 4), ("nothing.done", 1), ("other.done", 2)])
def test_what_a_newer_release_wrote_is_not_known(topic: str, version: int) -> None:
    with pytest.raises(UnknownEvent):
        REGISTRY.decode(topic, version, b'{"number": 1}')
    with pytest.raises(UnknownEvent):
        REGISTRY.schema(topic, version)


@pytest.mark.parametrize(("version", "state"), [(3, b"{}"), (3, b'{"number": "x"}'), (3, b"{"), (3, b"[]"), (2, b"{}"), (2, b"{")])
def test_what_does_not_fit_its_class_is_a_value_error(version: int, state: bytes) -> None:
    with pytest.raises(ValueError):
        REGISTRY.decode("thing.done", version, state)


class EvenV1(Event):
    TOPIC = "even.done"
    number: int


class EvenV2(EvenV1):
    VERSION = 2


class EvenV3(EvenV1):
    VERSION = 3


class Even(EvenV1):
    VERSION = 4


def test_versions_that_are_events_of_the_newest_one_as_they_are_need_no_upcast() -> None:
    """A fold reads them in one step."""
    double = Upcast(EvenV1, lambda old: {"number": 2 * old["number"]})
    upcasts = {("even.done", 1): double, ("even.done", 2): Upcast(EvenV2, unchanged), ("even.done", 3): Upcast(EvenV3, unchanged)}
    registry = EventRegistry({"even": (Even,)}, upcasts)
    assert registry._read_newest.keys() == {("even.done", version) for version in (2, 3, 4)}
    read = [registry.decode("even.done", version, b'{"number":1}') for version in (1, 2, 3, 4)]
    assert read == [Even(number=2), Even(number=1), Even(number=1), Even(number=1)]
    both = EventRegistry({"things": (Thing,), "even": (EvenV2,)}, {**UPCASTS, ("even.done", 1): Upcast(EvenV1, unchanged)})
    assert both._read_newest.keys() == {("thing.done", 3), ("even.done", 1), ("even.done", 2)}
    assert list(both.shapes()) == [*(("thing.done", version) for version in (1, 2, 3)), ("even.done", 1), ("even.done", 2)]
    value = {"number": 1}
    assert unchanged(value) is value


def test_an_event_is_stored_as_its_newest_version_unless_it_says_another() -> None:
    assert [event.stored_version for event in (EvenV2(number=1), Even(number=1))] == [2, 4]


def test_what_is_encoded_is_decoded() -> None:
    for event in (Thing(number=1), Other(x={"a": [1, None, "ü"]}), Other()):
        assert REGISTRY.decode(event.TOPIC, event.VERSION, REGISTRY.encode(event)) == event
    assert REGISTRY.encode(Thing(number=1)) == b'{"number":1,"unit":"s"}'


def test_the_tables_of_a_registry() -> None:
    assert REGISTRY.events == {"other.done": Other, "thing.done": Thing}
    assert REGISTRY.slice_of == {"other.done": "others", "thing.done": "things"}
    assert list(REGISTRY.shapes()) == [("other.done", 1), ("thing.done", 1), ("thing.done", 2), ("thing.done", 3)]
    assert REGISTRY.shapes()["thing.done", 1] is ThingV1
    assert REGISTRY.schema("thing.done", 1)["properties"].keys() == {"n"}
    assert REGISTRY.schema("thing.done", 3)["required"] == ["number"], "a field with a default may be missing in what was stored"


# --- errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "pointer"),
    [((), ""), (("a",), "/a"), (("a", 0, "b"), "/a/0/b"), (("a/b", "c~d", "~1"), "/a~1b/c~0d/~01"), (("",), "/")],
)
def test_json_pointers(place: tuple[str | int, ...], pointer: str) -> None:
    assert errors.json_pointer(place) == pointer


def test_every_error_has_a_code_of_its_own() -> None:
    def all_of(kind: type[errors.TidelogError]) -> list[type[errors.TidelogError]]:
        return [kind, *(each for sub in kind.__subclasses__() if sub.__module__ == "domain.errors" for each in all_of(sub))]

    found = all_of(errors.TidelogError)
    assert len({each.code for each in found}) == len(found) == 29
    full = {"TooManyOpenRuns", "TooManyOpenRunsOfTenant", "RunKeyQueueFull"}
    assert {each.__name__ for each in found if each.retryable} == {
        "VersionConflict",
        "ProjectionBehind",
        "Unavailable",
        "StillEnding",
        *full,
    }


def test_errors_carry_what_programs_need() -> None:
    conflict = errors.VersionConflict(PARENT, 3, 4)
    assert (conflict.stream_id, conflict.expected, conflict.current) == (PARENT, 3, 4)
    assert str(conflict) == conflict.message and "version 4, not 3" in conflict.message
    assert errors.PositionBeyondHead(9, 4).head == 4
    assert errors.InvalidCommand("no", pointer="/a").pointer == "/a" and errors.InvalidCommand("no").pointer is None
    assert issubclass(errors.AlreadyResolved, errors.RepeatedDifferently) and issubclass(errors.NotFound, errors.DomainError)
    assert not issubclass(errors.Unavailable, errors.DomainError) and not issubclass(errors.VersionConflict, errors.DomainError)
    assert issubclass(pydantic.ValidationError, ValueError)


def test_what_says_nothing_is_left_out_of_an_event() -> None:
    assert all(map(unsaid, (None, False, (), {})))
    assert not any(map(unsaid, (True, 0, "", (0,), {"a": None})))
