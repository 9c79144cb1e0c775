"""The `eventsourcing` library's own suites against our recorder, and the recorder's additions: one tenant, one total order, safe
retries."""

import threading
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from eventsourcing.persistence import (
    AggregateRecorder,
    DataError,
    IntegrityError,
    ProgrammingError,
    StoredEvent,
    Tracking,
)
from eventsourcing.postgres import PostgresDatastore
from eventsourcing.tests.persistence import (
    AggregateRecorderTestCase,
    ApplicationRecorderTestCase,
    NonInterleavingNotificationIDsBaseCase,
    ProcessRecorderTestCase,
    TrackingRecorderTestCase,
)
from psycopg.conninfo import conninfo_to_dict

from adapters.postgres.log import recorder as recorder_module
from adapters.postgres.log.recorder import TidelogRecorder
from tests.pace import ANSWER_S

TENANT = UUID("018f0000-0000-7000-8000-000000000001")


def open_datastore(database_url: str, **options: Any) -> PostgresDatastore:
    given = conninfo_to_dict(database_url)
    return PostgresDatastore(
        str(given["dbname"]),
        str(given["host"]),
        given.get("port") or 5432,
        str(given["user"]),
        str(given.get("password") or ""),
        pool_size=5,
        max_overflow=15,
        **options,
    )


class OnTidelog:
    """Gives the library's cases a recorder on a fresh database."""

    datastore: PostgresDatastore

    @pytest.fixture(autouse=True)
    def _datastore(self, database_url: str) -> Iterator[None]:
        self.datastore = open_datastore(database_url)
        yield
        self.datastore.close()

    def create_recorder(self) -> TidelogRecorder:
        return TidelogRecorder(self.datastore, tenant_id=TENANT)


class WithoutPositions(AggregateRecorder):
    """The narrowest of the library's roles. The suite of this role demands that no positions are returned."""

    def __init__(self, recorder: TidelogRecorder) -> None:
        self._recorder = recorder

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> None:
        self._recorder.insert_events(stored_events, **kwargs)

    def select_events(self, originator_id: UUID | str, **kwargs: Any) -> Sequence[StoredEvent]:
        events: Sequence[StoredEvent] = self._recorder.select_events(originator_id, **kwargs)
        return events


class TestAggregateRecorder(OnTidelog, AggregateRecorderTestCase):
    def create_recorder(self) -> AggregateRecorder:  # type: ignore[override]  # a narrower role than the mixin's
        return WithoutPositions(super().create_recorder())


class TestApplicationRecorder(OnTidelog, ApplicationRecorderTestCase[TidelogRecorder]):
    def test_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestTrackingRecorder(OnTidelog, TrackingRecorderTestCase):
    pass


class TestProcessRecorder(OnTidelog, ProcessRecorderTestCase):
    pass


class TestNonInterleaving(OnTidelog, NonInterleavingNotificationIDsBaseCase):
    pass


# The library's base cases are abstract; imported here, pytest would collect them as tests.
del AggregateRecorderTestCase, ApplicationRecorderTestCase, TrackingRecorderTestCase
del ProcessRecorderTestCase, NonInterleavingNotificationIDsBaseCase


@pytest.fixture
def datastore(database_url: str) -> Iterator[PostgresDatastore]:
    datastore = open_datastore(database_url)
    yield datastore
    datastore.close()


def stored(stream_id: UUID, version: int, state: bytes = b"{}") -> StoredEvent:
    return StoredEvent(stream_id, version, "topic", state)


def test_positions_are_in_the_order_of_the_events_even_when_streams_alternate(datastore: PostgresDatastore) -> None:
    recorder = TidelogRecorder(datastore, tenant_id=TENANT)
    a, b = uuid4(), uuid4()
    assert recorder.insert_events([stored(b, 1), stored(a, 1), stored(b, 2)]) == [1, 3, 2]
    assert [(n.id, n.originator_id, n.originator_version) for n in recorder.select_notifications(None, 10)] == [
        (1, b, 1),
        (2, b, 2),
        (3, a, 1),
    ]


def test_a_recorder_sees_and_writes_its_own_tenant_only(datastore: PostgresDatastore) -> None:
    ours, theirs = TidelogRecorder(datastore, tenant_id=TENANT), TidelogRecorder(datastore, tenant_id=uuid4())
    stream = uuid4()
    assert ours.insert_events([stored(stream, 1)]) == [1]
    with pytest.raises(IntegrityError, match="foreign"):
        theirs.insert_events([stored(stream, 2)])
    assert theirs.select_events(stream) == []
    assert theirs.select_notifications(None, 10) == []
    assert theirs.max_notification_id() is None
    assert theirs.insert_events([stored(uuid4(), 1)]) == [2]
    assert ours.max_notification_id() == 1


@pytest.mark.parametrize("version", [2, 7])
def test_a_gap_in_a_stream_is_refused(datastore: PostgresDatastore, version: int) -> None:
    recorder = TidelogRecorder(datastore, tenant_id=TENANT)
    with pytest.raises(IntegrityError, match="conflict"):
        recorder.insert_events([stored(uuid4(), version)])
    stream = uuid4()
    with pytest.raises(IntegrityError, match="do not follow"):
        recorder.insert_events([stored(stream, 1), stored(stream, 1 + version)])
    assert recorder.max_notification_id() is None


def test_an_answer_lost_with_its_connection_is_not_written_twice(
    datastore: PostgresDatastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = TidelogRecorder(datastore, tenant_id=TENANT)
    stream = uuid4()
    committed = psycopg.Transaction.__exit__
    lost: list[bool] = []

    def lose_the_first_answer(self: psycopg.Transaction, *error: Any) -> bool:
        result = committed(self, *error)
        if not lost:
            lost.append(True)
            raise psycopg.OperationalError("the connection was lost after COMMIT")
        return bool(result)

    monkeypatch.setattr(psycopg.Transaction, "__exit__", lose_the_first_answer)
    assert recorder.insert_events([stored(stream, 1)], tracking=Tracking("upstream", 5)) == [1]
    assert lost and recorder.max_notification_id() == 1 and recorder.max_tracking_id("upstream") == 5


def test_what_the_log_cannot_hold_is_refused(datastore: PostgresDatastore) -> None:
    recorder = TidelogRecorder(datastore, tenant_id=TENANT)
    with pytest.raises(DataError, match="limit"):
        recorder.insert_events([stored(uuid4(), 1, b"x" * 300_000)])


def test_the_librarys_database_functions_are_refused(database_url: str) -> None:
    datastore = open_datastore(database_url, enable_db_functions=True)
    try:
        with pytest.raises(ProgrammingError, match="POSTGRES_ENABLE_DB_FUNCTIONS"):
            TidelogRecorder(datastore, tenant_id=TENANT)
    finally:
        datastore.close()


def test_a_subscription_that_listens_late_misses_nothing(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    datastore = open_datastore(database_url)
    recorder = TidelogRecorder(datastore, tenant_id=TENANT)
    asked, recorded = threading.Event(), threading.Event()
    select = recorder.select_notifications

    def select_notifications(*arguments: Any, **options: Any) -> Any:
        try:
            return select(*arguments, **options)
        finally:
            asked.set()

    monkeypatch.setattr(recorder, "select_notifications", select_notifications)
    listen = recorder_module._Subscription._listen

    def late(self: Any) -> None:
        asked.wait(ANSWER_S)
        recorded.wait(ANSWER_S)
        listen(self)

    monkeypatch.setattr(recorder_module._Subscription, "_listen", late)
    with recorder.subscribe() as subscription:
        assert asked.wait(ANSWER_S)
        recorder.insert_events([StoredEvent(uuid4(), 1, "thing.happened", b"{}")])
        recorded.set()
        guard = threading.Timer(ANSWER_S, subscription.stop)
        guard.start()
        assert next(subscription).topic == "thing.happened"
        guard.cancel()
    datastore.close()
