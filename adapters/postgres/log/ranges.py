"""The whole log by ranges of stream ids (the port `StreamRanges`), in the order of the index, page by page.

Stream ids begin with a time stamp (UUIDv7), so the order of the index is nearly that of the table, and ids that are taken at evenly
spaced positions cut the log into nearly equal parts. Other ids are read correctly too, only slower.
"""

from collections.abc import Iterator
from typing import Any, Self
from uuid import UUID

import psycopg

from adapters.postgres.log.event_store import LAST_POSITION
from adapters.postgres.pool import CONNECT_TIMEOUT, translate_errors
from application.engine.ports.log import StreamRange, StreamRow
from domain.errors import InvalidState

HEAD_SQL = "SELECT position FROM log_head"
CUT_SQL = "SELECT DISTINCT originator_id FROM event WHERE notification_id = ANY(%s) ORDER BY originator_id"
PAGE_SQL = """
    SELECT uuid_send(originator_id), originator_version, topic, schema_version, state FROM event
    WHERE (originator_id, originator_version) > (%(stream)s, %(version)s) AND originator_id <= %(last)s
      AND notification_id <= %(until)s AND (%(tenant)s::uuid IS NULL OR tenant_id = %(tenant)s)
    ORDER BY originator_id, originator_version LIMIT %(limit)s
"""

FIRST_ID, LAST_ID = UUID(int=0), UUID(int=2**128 - 1)
PAGE_BYTES = 4 * 1024 * 1024
"""Target size of a page. The number of events follows from the size of the page before."""
FIRST_PAGE = 500
MAX_PAGE = 20_000
STATEMENT_TIMEOUT_MS = 60_000


class PostgresStreamRanges:
    """Has a connection of its own, from `open` to `close`. Each page is a statement by itself, so no transaction stays open."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    @classmethod
    def open(cls, database_url: str) -> Self:
        """Raises Unavailable."""
        with translate_errors():
            connection = psycopg.Connection.connect(
                database_url,
                autocommit=True,
                application_name="tidelog-replay",
                connect_timeout=CONNECT_TIMEOUT,
                keepalives_idle=10,
                keepalives_interval=5,
                keepalives_count=3,
                tcp_user_timeout=STATEMENT_TIMEOUT_MS,
            )
            connection.execute("SELECT set_config('statement_timeout', %s, false)", [str(STATEMENT_TIMEOUT_MS)])
            return cls(connection)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def cut(self, *, size: int) -> tuple[int, list[StreamRange]]:
        with translate_errors():
            try:
                [head] = self._connection.execute(HEAD_SQL).fetchone() or (0,)
            except psycopg.errors.UndefinedTable as error:
                raise InvalidState("there is no log in this database: `tidelog migrate` makes one") from error
            places = list(range(size, head, size))
            borders = [row[0] for row in self._connection.execute(CUT_SQL, [places]).fetchall()]
        return head, [StreamRange(*pair) for pair in zip([None, *borders], [*borders, LAST_ID], strict=True)]

    def pages(self, part: StreamRange, *, until: int, tenant_id: UUID | None = None) -> Iterator[list[StreamRow]]:
        stream, version = (FIRST_ID, -1) if part.after is None else (part.after, LAST_POSITION)
        limit = FIRST_PAGE
        while True:
            values = {
                "stream": stream, "version": version, "last": part.last, "until": until, "tenant": tenant_id, "limit": limit,
            }  # fmt: skip
            with translate_errors(), self._connection.cursor(binary=True) as cursor:
                rows: list[StreamRow] = cursor.execute(PAGE_SQL, values, prepare=True).fetchall()
            if rows:
                yield rows
            if len(rows) < limit:
                return
            stream, version = UUID(bytes=rows[-1][0]), rows[-1][1]
            size = sum(len(row[4]) + 100 for row in rows)
            limit = max(1, min(MAX_PAGE, PAGE_BYTES * len(rows) // size))
