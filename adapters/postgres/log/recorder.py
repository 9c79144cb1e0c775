"""The door for users of the `eventsourcing` library: its recorder, over our tables and our append.

An Application or a ProjectionRunner of the library can be pointed at one tenant of the log:

    datastore = PostgresDatastore(dbname, host, port, user, password)
    recorder = TidelogRecorder(datastore, tenant_id=tenant_id)

Events of such an application stand in the one total order with all others. The library's own optional database functions would skip
events, so they are refused here.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from eventsourcing.persistence import (
    ApplicationRecorder,
    DataError,
    IntegrityError,
    InterfaceError,
    Notification,
    OperationalError,
    ProgrammingError,
    StoredEvent,
    Subscription,
)
from eventsourcing.postgres import PostgresDatastore, PostgresProcessRecorder, PostgresSubscription
from eventsourcing.utils import retry
from psycopg.sql import SQL, Identifier, Literal
from uuid_utils.compat import uuid7

from adapters.postgres.durability import INSIST_SQL, NotDurable, judge
from adapters.postgres.log.append_batch import APPEND_SQL, EncodedAppend, parameters
from adapters.postgres.log.arrays import register_arrays
from adapters.postgres.log.head import CHANNEL
from application.engine.ports.log import NewEvent, StreamAppend, one_command
from domain.errors import TidelogError


class TidelogRecorder(PostgresProcessRecorder):
    """The library's process recorder for one tenant of the log.

    Migrations make the tables, so `create_table` has nothing to do. Each event's root is its own stream. `metadata` is the JSON
    text that every event gets. Errors are those of the library: IntegrityError for a stream that moved on.
    """

    def __init__(self, datastore: PostgresDatastore, *, tenant_id: UUID, metadata: str = "{}") -> None:
        if datastore.enable_db_functions:
            raise ProgrammingError("POSTGRES_ENABLE_DB_FUNCTIONS must be off: it writes past the lock that orders the log")
        if datastore.originator_id_type != "uuid" or not datastore.single_row_tracking:
            raise ProgrammingError("the log has originator ids of type uuid and one tracking row per application")
        super().__init__(datastore, events_table_name="event", tracking_table_name="tracking")
        self._tenant_id = tenant_id
        self._metadata = metadata
        self.channel_name = CHANNEL
        # "One tenant's events": a condition that every query of the library's recorder starts from.
        self._tenant_events = SQL("{table} WHERE tenant_id = {tenant}").format(
            table=Identifier(datastore.schema, "event"), tenant=Literal(tenant_id)
        )
        columns = SQL("SELECT notification_id, originator_id, originator_version, topic, state FROM ") + self._tenant_events
        self._select_notifications = columns
        self.select_events_statement = columns + SQL(" AND originator_id = %s")
        self.max_notification_id_statement = SQL("SELECT max(notification_id) FROM ") + self._tenant_events

    def create_table(self) -> None:
        """Does nothing: `tidelog migrate` makes the tables."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Appends atomically, together with `tracking` if that is given. Returns the positions, in the order of the events.

        Events of one stream are put together. The command id is made here, outside of the retries, so that an insert whose answer
        was lost is not done twice.
        """
        if not stored_events:
            self._insert_tracking_only(**kwargs)
            return None
        streams = _by_stream(stored_events)
        appends = tuple(_stream_append(*stream) for stream in streams.items())
        request = one_command(self._tenant_id, uuid7(), appends, self._metadata)
        try:
            append = EncodedAppend.of(request)
        except TidelogError as error:
            raise DataError(str(error)) from error
        first = self._append(append, stored_events, **kwargs)
        written = [id(event) for events in streams.values() for event in events]
        positions = {identity: position for position, identity in enumerate(written, first)}
        return [positions[id(event)] for event in stored_events]

    @retry((InterfaceError, OperationalError), max_attempts=10, wait=0.2)
    def _insert_tracking_only(self, **kwargs: Any) -> None:
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_events(cursor, [], **kwargs)

    @retry((InterfaceError, OperationalError), max_attempts=10, wait=0.2)
    def _append(self, append: EncodedAppend, stored_events: Sequence[StoredEvent], **kwargs: Any) -> int:
        """Writes events and tracking in one transaction; the position of the first event."""
        with self.datastore.get_connection() as connection, connection.transaction():
            register_arrays(connection)
            cursor = connection.cursor()
            self._insist(cursor)
            row = cursor.execute(APPEND_SQL, parameters([append]), prepare=True).fetchone()
            assert row is not None  # one append, one answer
            if row["outcome"] == "accepted":
                self._insert_events(cursor, stored_events, **kwargs)
            elif row["outcome"] != "duplicate":  # a duplicate is a retry: it was committed, with its tracking
                raise IntegrityError(f"stream {row['stream_id']}: {row['outcome']}, its version is {row['current_version']}")
            return int(row["last_position"] - row["event_count"] + 1)

    def _insist(self, cursor: Any) -> None:
        """Makes the transaction durable, as the other writer of the log does.

        Raises OperationalError if the server prevents that.
        """
        answer = cursor.execute(INSIST_SQL, {"local": True}, prepare=True).fetchone()
        try:
            judge(**answer)
        except NotDurable as error:
            raise OperationalError(error.message) from error

    @retry((InterfaceError, OperationalError), max_attempts=10, wait=0.2)
    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        statement = self._select_notifications
        values: list[Any] = []
        if start is not None:
            statement += SQL(" AND notification_id >= %s") if inclusive_of_start else SQL(" AND notification_id > %s")
            values.append(start)
        if stop is not None:
            statement += SQL(" AND notification_id <= %s")
            values.append(stop)
        if topics:
            statement += SQL(" AND topic = ANY(%s)")
            values.append(list(topics))
        statement += SQL(" ORDER BY notification_id LIMIT %s")
        with self.datastore.get_connection() as connection, connection.cursor() as cursor:
            cursor.execute(statement, [*values, limit], prepare=True)
            return [
                Notification(
                    id=row["notification_id"],
                    originator_id=row["originator_id"],
                    originator_version=row["originator_version"],
                    topic=row["topic"],
                    state=bytes(row["state"]),
                )
                for row in cursor.fetchall()
            ]

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Subscription[ApplicationRecorder]:
        return _Subscription(recorder=self, gt=gt, topics=topics)


class _Subscription(PostgresSubscription):
    """The library's subscription without its gap. The library reads first and listens then, and misses the events in between."""

    def _listen(self) -> None:
        try:
            with self._recorder.datastore.get_connection() as connection:
                connection.execute(SQL("LISTEN {}").format(Identifier(self._recorder.channel_name)))
                self._has_been_notified.set()
                while not self._has_been_stopped and not self._thread_error:
                    for _ in connection.notifies(timeout=0.1, stop_after=1):
                        self._has_been_notified.set()
        except BaseException as error:  # noqa: BLE001  # as the library does: the reader gets the error
            self._thread_error = self._thread_error or error
            self.stop()


def _by_stream(stored_events: Sequence[StoredEvent]) -> dict[UUID, list[StoredEvent]]:
    streams: dict[UUID, list[StoredEvent]] = {}
    for event in stored_events:
        if not isinstance(event.originator_id, UUID):
            raise ProgrammingError(f"originator id {event.originator_id!r} is not a UUID")
        streams.setdefault(event.originator_id, []).append(event)
    return streams


def _stream_append(stream_id: UUID, events: Sequence[StoredEvent]) -> StreamAppend:
    first = events[0].originator_version  # 1 as in our streams, or 0 if the library was configured so
    if [event.originator_version for event in events] != list(range(first, first + len(events))):
        raise IntegrityError(f"stream {stream_id}: the versions do not follow one another")
    return StreamAppend(stream_id, stream_id, first - 1, tuple(NewEvent(event.topic, 1, event.state) for event in events))
