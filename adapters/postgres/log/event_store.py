"""The write side of the log (`EventStore`): appends through the group commit, single streams and commands through the pool."""

from collections.abc import Sequence
from uuid import UUID

from adapters.postgres.log.append_batch import EncodedAppend
from adapters.postgres.log.group_commit import GroupCommit, WriterLimits, Written
from adapters.postgres.log.own_appends import OwnAppends
from adapters.postgres.log.session import WriterSession
from adapters.postgres.pool import Connections, translate_errors
from application.engine.background import Background, side_by_side
from application.engine.ports.log import AppendRequest, AppendResult, CommandRecord, StreamEvent, StreamPlace
from domain.kernel import MAX_EVENT_BYTES, RecordedEvent

EVENT_COLUMNS = (
    "notification_id, tenant_id, originator_id, originator_version, root_id, topic, schema_version, state, metadata, recorded_at, "
    "settled"
)
"""In the order of `RecordedEvent`'s fields."""

# A stream is of one tenant, and its first event says of which. That is looked at once, before any event is read. A condition on
# each event alone would not do: who asks for a long stream of another tenant would wait until all its events are dropped, and so
# learn that there is one.
OWNER_OF_STREAM = "SELECT tenant_id FROM event WHERE originator_id = %s ORDER BY originator_version LIMIT 1"
OWNER_OF_WANTED_STREAM = "SELECT tenant_id FROM event WHERE originator_id = wanted.stream_id ORDER BY originator_version LIMIT 1"
# The stream finds the rows; the tenant is only checked. `IS NOT DISTINCT FROM` hides the tenant from the planner. Where the table
# was not analyzed yet, the planner would read the index of all events of the tenant beside that of the stream. A page ends at a
# version, since versions have no gaps. With LIMIT the planner might read and sort all that follows, for each page.
READ_STREAM_SQL = f"""
    SELECT {EVENT_COLUMNS} FROM event
    WHERE originator_id = %s AND originator_version > %s AND originator_version <= %s
      AND tenant_id IS NOT DISTINCT FROM %s AND notification_id <= %s AND ({OWNER_OF_STREAM}) IS NOT DISTINCT FROM %s
    ORDER BY originator_version
"""
READ_PAGE_SQL = f"""
    SELECT originator_version, notification_id, root_id, topic, schema_version, state FROM event
    WHERE originator_id = %s AND originator_version > %s AND originator_version <= %s AND tenant_id IS NOT DISTINCT FROM %s
      AND ({OWNER_OF_STREAM}) IS NOT DISTINCT FROM %s
    ORDER BY originator_version
"""
READ_STREAMS_SQL = f"""
    SELECT wanted.place, found.* FROM unnest(%s::uuid[], %s::uuid[], %s::bigint[])
    WITH ORDINALITY AS wanted (tenant_id, stream_id, after, place)
    CROSS JOIN LATERAL (
        SELECT {EVENT_COLUMNS} FROM event
        WHERE originator_id = wanted.stream_id AND originator_version > wanted.after
          AND tenant_id IS NOT DISTINCT FROM wanted.tenant_id
        ORDER BY originator_version
    ) AS found
    WHERE ({OWNER_OF_WANTED_STREAM}) IS NOT DISTINCT FROM wanted.tenant_id
"""
# The positions find the rows; the tenant is only checked. With `=` for the tenant the planner would choose between two indexes by
# chance.
READ_APPEND_SQL = f"""
    SELECT {EVENT_COLUMNS} FROM event
    WHERE notification_id = ANY (%s) AND tenant_id IS NOT DISTINCT FROM %s ORDER BY notification_id
"""
FIND_COMMAND_SQL = "SELECT last_position, event_count, recorded_at, content FROM command WHERE tenant_id = %s AND command_id = %s"

LAST_POSITION = 2**63 - 1
LAST_VERSION = 2**63 - 1


class PostgresEventStore:
    """Implements the port `EventStore`.

    The pool is the caller's; the connection and the task of the writer are owned here, between `start` and `close`.
    """

    def __init__(
        self,
        database_url: str,
        pool: Connections,
        *,
        limits: WriterLimits | None = None,
        max_event_bytes: int = MAX_EVENT_BYTES,
        written: Written | None = None,
        own: OwnAppends | None = None,
    ) -> None:
        """`own`: gets the events of this store as soon as they are committed, if it wants them."""
        self._pool = pool
        session = WriterSession(database_url, own)
        self._writer = GroupCommit(session, limits=limits, written=written)
        self._listening = None if own is None else Background("writer-listens", session.listen)
        self._max_event_bytes = max_event_bytes

    async def start(self) -> None:
        """Starts the writer. The database may still be away: appends wait for it, for a bounded time."""
        self._writer.start()
        if self._listening is not None:
            self._listening.start()

    async def failed(self) -> None:
        """Raises when the writer, or the task that listens, has ended before `close`."""
        if self._listening is None:
            await self._writer.failed()
        else:
            await side_by_side(self._writer.failed(), self._listening.failed())

    async def close(self) -> None:
        """Writes the waiting appends, for a bounded time, and ends the writer."""
        if self._listening is not None:
            await self._listening.close()
        await self._writer.close()

    @property
    def waiting(self) -> int:
        """Appends that wait for the writer."""
        return self._writer.waiting

    async def append(self, request: AppendRequest) -> AppendResult:
        """See the port. Also raises AlreadyExists for an id that another tenant has, and InvalidCommand for text that PostgreSQL
        cannot hold.

        After Unavailable the append may have been recorded: the same request sent again gets its answer as a duplicate.
        """
        return await self._writer.submit(EncodedAppend.of(request, self._max_event_bytes))

    async def read_stream(
        self,
        tenant_id: UUID,
        stream_id: UUID,
        *,
        after_version: int = 0,
        until_position: int | None = None,
        limit: int | None = None,
    ) -> list[RecordedEvent]:
        until, end = LAST_POSITION if until_position is None else until_position, _end_of_page(after_version, limit)
        values = (stream_id, after_version, end, tenant_id, until, stream_id, tenant_id)
        with translate_errors():
            async with self._pool.connection() as connection, connection.cursor(binary=True) as cursor:
                await cursor.execute(READ_STREAM_SQL, values, prepare=True)
                return [RecordedEvent._make(row) for row in await cursor.fetchall()]

    async def read_streams(self, places: Sequence[StreamPlace]) -> list[list[RecordedEvent]]:
        columns = tuple(map(list, zip(*places, strict=True)))
        found: list[list[RecordedEvent]] = [[] for _ in places]
        with translate_errors():
            async with self._pool.connection() as connection, connection.cursor(binary=True) as cursor:
                await cursor.execute(READ_STREAMS_SQL, columns, prepare=True)
                for place, *row in await cursor.fetchall():
                    found[place - 1].append(RecordedEvent._make(row))
        return found

    async def read_page(self, place: StreamPlace, limit: int) -> list[StreamEvent]:
        with translate_errors():
            async with self._pool.connection() as connection, connection.cursor(binary=True) as cursor:
                after, end = place.after_version, _end_of_page(place.after_version, limit)
                values = (place.stream_id, after, end, place.tenant_id, place.stream_id, place.tenant_id)
                await cursor.execute(READ_PAGE_SQL, values, prepare=True)
                return [StreamEvent._make(row) for row in await cursor.fetchall()]

    async def find_command(self, tenant_id: UUID, command_id: UUID) -> CommandRecord | None:
        with translate_errors():
            async with self._pool.connection() as connection, connection.cursor(binary=True) as cursor:
                await cursor.execute(FIND_COMMAND_SQL, (tenant_id, command_id), prepare=True)
                row = await cursor.fetchone()
        return None if row is None else CommandRecord._make(row)

    async def read_append(self, tenant_id: UUID, recorded: CommandRecord | AppendResult) -> list[RecordedEvent]:
        positions = list(range(recorded.last_position - recorded.event_count + 1, recorded.last_position + 1))
        with translate_errors():
            async with self._pool.connection() as connection, connection.cursor(binary=True) as cursor:
                await cursor.execute(READ_APPEND_SQL, (positions, tenant_id), prepare=True)
                return [RecordedEvent._make(row) for row in await cursor.fetchall()]


def _end_of_page(after_version: int, limit: int | None) -> int:
    """The last version of a page of so many events."""
    return LAST_VERSION if limit is None else min(after_version + limit, LAST_VERSION)
