"""Events stay the same byte for byte in a message, and batches keep their limits."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.nats.log.wire import FORMATS, MAX_BATCH_BYTES, MAX_BATCH_EVENTS, MalformedBatch, Span, decode, split
from domain.kernel import RecordedEvent

MAX_PAYLOAD = 1024 * 1024 - 4096
DAY = datetime(2026, 11, 21, tzinfo=UTC)


def event(position: int, state: bytes = b"{}", **more: object) -> RecordedEvent:
    fields = {
        "position": position,
        "tenant_id": UUID(int=1),
        "stream_id": UUID(int=2),
        "version": position,
        "root_id": UUID(int=3),
        "topic": "thing.happened",
        "schema_version": 1,
        "state": state,
        "metadata": "{}",
        "recorded_at": DAY,
    }
    return RecordedEvent(**(fields | more))  # type: ignore[arg-type]


recorded = st.builds(
    RecordedEvent,
    position=st.integers(1, 2**62),
    tenant_id=st.uuids(),
    stream_id=st.uuids(),
    version=st.integers(1, 2**62),
    root_id=st.uuids(),
    topic=st.text(max_size=40),
    schema_version=st.integers(1, 32_767),
    state=st.binary(max_size=500),
    metadata=st.text(max_size=200),
    recorded_at=st.datetimes(timezones=st.just(UTC)),
    settled=st.integers(0, 2**63 - 1),
)


@settings(max_examples=100)
@given(st.lists(recorded, min_size=1, max_size=20, unique_by=lambda event: event.position), st.sampled_from(FORMATS))
def test_round_trip(events: list[RecordedEvent], form: int) -> None:
    """Format 1 does not say which sagas an event needs no more, so all of them look at it."""
    events.sort(key=lambda event: event.position)
    batches = list(split(events, after=events[0].position - 1, max_payload=MAX_PAYLOAD, form=form))
    expected = events if form > 1 else [event._replace(settled=0) for event in events]
    assert [event for batch in batches for event in decode(batch.body)] == expected


@settings(max_examples=50)
@given(st.lists(st.integers(0, 400_000), min_size=1, max_size=30), st.integers(0, 1_000))
def test_batches_chain_and_keep_their_limits(sizes: list[int], after: int) -> None:
    events = [event(after + index + 1, b"x" * size) for index, size in enumerate(sizes)]
    previous = after
    for batch in split(events, after=after, max_payload=MAX_PAYLOAD):
        span = Span.of(batch.span.headers())
        content = decode(batch.body)
        assert (span.previous, span.first, span.last) == (previous, content[0].position, content[-1].position)
        assert span.tail == content[-1].name
        assert len(content) <= MAX_BATCH_EVENTS
        assert len(batch.body) <= MAX_BATCH_BYTES
        previous = span.last
    assert previous == events[-1].position


def test_many_small_events_fill_whole_batches() -> None:
    batches = list(split([event(n) for n in range(1, 601)], after=0, max_payload=MAX_PAYLOAD))
    assert [batch.span.last for batch in batches] == [256, 512, 600]


def test_event_over_the_payload_limit_travels_as_a_reference() -> None:
    batches = list(split([event(1), event(2, b"x" * MAX_PAYLOAD), event(3)], after=0, max_payload=MAX_PAYLOAD))
    assert [(batch.span.previous, batch.span.last, bool(batch.body)) for batch in batches] == [
        (0, 1, True),
        (1, 2, False),
        (2, 3, True),
    ]


def test_event_between_the_limits_travels_alone() -> None:
    batches = list(split([event(1), event(2, b"x" * (MAX_BATCH_BYTES + 100)), event(3)], after=0, max_payload=MAX_PAYLOAD))
    assert [len(decode(batch.body)) for batch in batches] == [1, 1, 1]


@settings(max_examples=200)
@given(st.data())
def test_damage_is_an_error_of_ours(data: st.DataObject) -> None:
    [batch] = split([event(1, b"state" * 9), event(2)], after=0, max_payload=MAX_PAYLOAD)
    cut = data.draw(st.integers(0, len(batch.body) - 1))
    with pytest.raises(MalformedBatch):
        decode(batch.body[:cut])


@pytest.mark.parametrize("body", [b"", b"\x02\x00\x01", b"[]", b"\x01\x00\x00more"])
def test_foreign_bodies_are_refused(body: bytes) -> None:
    with pytest.raises(MalformedBatch):
        decode(body)


@pytest.mark.parametrize(
    "headers", [None, {}, {"Tidelog-Prev": "x", "Tidelog-First": "1", "Tidelog-Last": "1", "Tidelog-Tail": ""}]
)
def test_foreign_headers_are_refused(headers: dict[str, str] | None) -> None:
    with pytest.raises(MalformedBatch):
        Span.of(headers)


def test_microseconds_are_kept() -> None:
    at = DAY + timedelta(microseconds=123_457)
    [batch] = split([event(1, recorded_at=at)], after=0, max_payload=MAX_PAYLOAD)
    assert decode(batch.body)[0].recorded_at == at
