"""The input of the checker: the whole content of the database at one moment."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from psycopg.sql import SQL, Identifier

from adapters.postgres.log.event_store import EVENT_COLUMNS
from adapters.postgres.log.identity import identify
from domain.event_registry import UnknownEvent
from domain.kernel import Event, RecordedEvent
from domain.registry import REGISTRY
from projections.registry import PROJECTIONS

Row = dict[str, Any]
READ_TIMEOUT_MS = 60_000


@dataclass(frozen=True, slots=True)
class Violation:
    """A violated rule. `subject` names the place: a position, a stream, a run, a row."""

    rule: str
    subject: str
    detail: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.subject}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Fact:
    """An event of the log with its content."""

    recorded: RecordedEvent
    event: Event

    @property
    def position(self) -> int:
        return self.recorded.position


@dataclass(slots=True)
class Snapshot:
    """The database at one moment. `facts` lacks the events that cannot be decoded; `undecodable` names these events."""

    log_id: str
    now: datetime
    head: int
    events: list[RecordedEvent]
    commands: list[Row]
    checkpoints: dict[str, int]
    parked: list[Row]
    tables: dict[str, list[Row]]
    facts: list[Fact] = field(default_factory=list)
    undecodable: list[tuple[RecordedEvent, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for recorded in self.events:
            try:
                self.facts.append(Fact(recorded, REGISTRY.decode(recorded.topic, recorded.schema_version, recorded.state)))
            except (ValueError, UnknownEvent) as error:
                self.undecodable.append((recorded, str(error)))

    def until(self, consumer: str) -> Iterator[Fact]:
        """The events that a consumer has handled."""
        reached = self.checkpoints.get(consumer, 0)
        return (fact for fact in self.facts if fact.position <= reached)

    def streams(self, prefix: str) -> dict[UUID, list[Fact]]:
        """Events by stream, in order, of the streams whose topics have this prefix."""
        found: defaultdict[UUID, list[Fact]] = defaultdict(list)
        for fact in self.facts:
            if fact.recorded.topic.startswith(prefix):
                found[fact.recorded.stream_id].append(fact)
        return found


async def read_snapshot(database_url: str) -> Snapshot:
    """Reads the snapshot. Raises psycopg.OperationalError if the database is away."""
    async with await psycopg.AsyncConnection.connect(database_url, connect_timeout=5) as connection:
        await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        await connection.set_read_only(True)
        await connection.execute(f"SET statement_timeout = {READ_TIMEOUT_MS}".encode())

        async def rows(query: SQL | psycopg.sql.Composed) -> list[Row]:
            async with connection.cursor(row_factory=dict_row) as cursor:
                return await (await cursor.execute(query)).fetchall()

        # The clock is read after the snapshot: a timer that fired before must not seem to have fired too early.
        [head] = await rows(SQL("SELECT position, clock_timestamp() AS now FROM log_head"))
        cursor = connection.cursor(binary=True)
        await cursor.execute(f"SELECT {EVENT_COLUMNS} FROM event ORDER BY notification_id".encode())
        events = [RecordedEvent(*row) for row in await cursor.fetchall()]
        names = [table for projection in PROJECTIONS for table in projection.tables]
        return Snapshot(
            log_id=await identify(connection),
            now=head["now"],
            head=head["position"],
            events=events,
            commands=await rows(SQL("SELECT * FROM command")),
            checkpoints={row["name"]: row["position"] for row in await rows(SQL("SELECT name, position FROM checkpoint"))},
            parked=await rows(SQL("SELECT * FROM parked_event ORDER BY consumer, position")),
            tables={name: await rows(SQL("SELECT * FROM {}").format(Identifier(name))) for name in names},
        )
