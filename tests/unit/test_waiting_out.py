"""Retries of unavailable dependencies, watches, and the CloudEvents form of events."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from jsonschema_rs import Draft202012Validator
from structlog.testing import capture_logs

from application.engine import retry
from application.engine.reading.cloudevents import ENVELOPE, CloudEventEncoder, schema_path
from application.engine.reading.watches import ANY_VERSION, CallingWatch, HeardEvent, Watches
from application.engine.retry import persistently
from domain.errors import InvalidState, Unavailable, VersionConflict
from domain.kernel import Metadata, RecordedEvent
from tests.pace import within

STREAM, ROOT, TENANT = UUID(int=1), UUID(int=2), UUID(int=3)


# --- retry ----------------------------------------------------------------------------------------------------------------


class Attempts:
    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.made = 0

    async def __call__(self) -> str:
        self.made += 1
        if self.failures:
            raise self.failures.pop(0)
        return "done"


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """Records the bounds of each pause without waiting."""
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return 0.0

    monkeypatch.setattr(retry.random, "uniform", uniform)
    return asked


async def test_what_is_away_is_tried_until_it_is_back(pauses: list[tuple[float, float]]) -> None:
    attempts = Attempts(Unavailable("away"), VersionConflict(STREAM, 1, 2), Unavailable("away"))
    assert await persistently(attempts) == "done"
    assert attempts.made == 4 and pauses == [(0.05, 0.2), (0.05, 0.4), (0.05, 0.8)]


async def test_pauses_grow_and_are_bounded(pauses: list[tuple[float, float]]) -> None:
    await persistently(Attempts(*[Unavailable("away")] * 2_000))
    assert max(high for _, high in pauses) == retry.MAX_PAUSE_S == pauses[-1][1]
    assert [high for _, high in pauses[:6]] == [0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


@pytest.mark.parametrize("error", [InvalidState("no"), ValueError("x"), TimeoutError()])
async def test_other_errors_pass_through(pauses: list[tuple[float, float]], error: Exception) -> None:
    attempts = Attempts(Unavailable("away"), error)
    with pytest.raises(type(error)) as caught:
        await persistently(attempts)
    assert caught.value is error and attempts.made == 2


async def test_an_outage_is_told_at_its_beginning_and_now_and_then(pauses: list[tuple[float, float]]) -> None:
    with capture_logs() as logs:
        await persistently(Attempts(*[Unavailable("away")] * 45))
    told = [entry for entry in logs if entry["event"] == "waiting_for_dependency"]  # other tasks of the loop may log, too
    assert [entry["failures"] for entry in told] == [1, 20, 40], logs


# --- watches --------------------------------------------------------------------------------------------------------------


def event(stream: UUID = STREAM, topic: str = "a", **changed: Any) -> RecordedEvent:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    return RecordedEvent(7, TENANT, stream, 3, ROOT, topic, 2, b'{"n":1}', "{}", at)._replace(**changed)


def test_only_those_who_watch_the_stream_and_topic_are_concerned() -> None:
    watches = Watches()
    assert not watches and list(watches.all()) == []
    with watches.watching(STREAM, None) as every, watches.watching(STREAM, frozenset({"b"})) as some:
        with watches.watching(ROOT, None) as other:
            assert watches and watches.of(STREAM) == 2 and set(watches.all()) == {every, some, other}
            assert set(watches.concerned([HeardEvent(STREAM, "a", 1)])) == {every}
            assert set(watches.concerned([HeardEvent(STREAM, "b", 1)])) == {every, some}
            assert list(watches.concerned([HeardEvent(ROOT, "a", 1)])) == [other]
            assert list(watches.concerned([HeardEvent(TENANT, "a", 1)])) == []
        assert watches.of(ROOT) == 0 and set(watches.all()) == {every, some}
    assert not watches and watches.of(STREAM) == 0


async def test_a_called_watch_is_told_the_highest_version_since_the_last_call() -> None:
    watches, told = Watches(), list[int]()
    watch = CallingWatch(None, told.append)
    watches.add(STREAM, watch)
    for version in (3, 5, 4):
        assert list(watches.concerned([HeardEvent(STREAM, "a", version)])) == [watch]
    watch.wake()
    assert list(watches.concerned([HeardEvent(STREAM, "a", 6)])) == list(watches.all())
    watch.wake()
    assert told == [5, ANY_VERSION]


async def test_a_watch_tells_each_change_once_and_none_after_the_time() -> None:
    with Watches().watching(STREAM, None) as watch:
        assert not await watch.next(0)
        watch.wake()
        watch.wake()
        assert await watch.next(0)
        assert not await watch.next(0.001)
        waiting = asyncio.create_task(watch.next(60))
        await asyncio.sleep(0)
        watch.wake()
        async with within(15):
            assert await waiting


# --- cloud events ---------------------------------------------------------------------------------------------------------

ENCODER = CloudEventEncoder({"a"})
VALID = Draft202012Validator(ENVELOPE)


def encoded(recorded: RecordedEvent, **options: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(ENCODER.encode(recorded, **options))
    assert VALID.is_valid(made), made
    return made


def metadata(**changed: Any) -> str:
    made = Metadata(actor="key:1", correlation_id=UUID(int=8), causation_id="c", command_id=UUID(int=9))
    return made.model_copy(update=changed).model_dump_json()


def test_an_event_as_a_cloud_event() -> None:
    assert encoded(event(metadata=metadata(traceparent="00-a-b-01"))) == {
        "specversion": "1.0",
        "id": f"{STREAM}:3",
        "source": f"/tenants/{TENANT}",
        "type": "a",
        "subject": str(STREAM),
        "time": "2026-01-02T03:04:05.000Z",
        "datacontenttype": "application/json",
        "dataschema": "urn:tidelog:schemas/a/v2",
        "position": 7,
        "streamversion": 3,
        "rootid": str(ROOT),
        "tenantid": str(TENANT),
        "actor": "key:1",
        "correlationid": str(UUID(int=8)),
        "causationid": "c",
        "traceparent": "00-a-b-01",
        "data": {"n": 1},
    }
    assert schema_path("run.started", 1) == "/schemas/run.started/v1"


def test_data_is_the_stored_json_itself() -> None:
    state = b'{"big": 123456789012345678901234567890, "f": 1.0}'
    assert state in ENCODER.encode(event(state=state))


def test_by_reference_an_event_has_the_path_to_its_data() -> None:
    made = encoded(event(metadata=metadata()), by_reference=True)
    assert made["dataref"] == "/v1/events/7" and "data" not in made and "data_base64" not in made
    assert "traceparent" not in made


@pytest.mark.parametrize("text", ["", "no json", "[]", "5", '"x"', "{}"])
def test_events_of_those_who_only_use_the_log_need_no_metadata(text: str) -> None:
    made = encoded(event(metadata=text))
    assert (made["actor"], made["correlationid"], made["causationid"]) == ("unknown", str(ROOT), "unknown")


@pytest.mark.parametrize(
    ("state", "key", "data"),
    [
        (b'{"x": 1}', "data", {"x": 1}),
        (b"null", "data", None),
        (b"\xff", "data_base64", "/w=="),
        (b"{", "data_base64", "ew=="),
        (b"", "data_base64", ""),
    ],
)
def test_data_that_is_not_json_is_carried_as_bytes(state: bytes, key: str, data: Any) -> None:
    made = encoded(event(topic="order.placed", state=state))
    assert made[key] == data and ("data" in made) != ("data_base64" in made)
    assert made["datacontenttype"] == ("application/json" if key == "data" else "application/octet-stream")
