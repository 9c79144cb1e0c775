"""What a projection is, and how one is declared."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pydantic_core
import structlog
from psycopg import AsyncConnection

from application.engine.ports import database as ports
from application.engine.ports.views import ListedRow
from domain import values
from domain.kernel import Event, Json, RecordedEvent

Connection = AsyncConnection[Any]
Database = ports.Database[Connection]
log = structlog.get_logger(__name__)

Handler = Callable[[Connection, Sequence[RecordedEvent]], Awaitable[None]]
"""Takes a batch of events of one topic group, in order, and writes rows with set-based SQL, inside the runner's transaction."""


Decode = Callable[[RecordedEvent], Any]
_decoded: ContextVar[dict[int, Any] | None] = ContextVar("events of a batch by position", default=None)


@contextmanager
def decoded_once() -> Iterator[None]:
    """Within the block, which is for one batch of the log, a decoder that `once` made decodes each event once for all handlers."""
    kept: dict[int, Any] = {}
    token = _decoded.set(kept)
    try:
        yield
    finally:
        _decoded.reset(token)
        kept.clear()  # the contexts of callbacks that were made within the block outlive it


def once(decode: Decode) -> Decode:
    """The same decoder. It keeps the events of a batch for the other handlers, which must not change them."""

    def decoded(recorded: RecordedEvent) -> Any:
        kept = _decoded.get()
        if kept is None:
            return decode(recorded)
        event = kept.get(recorded.position)
        if event is None:
            event = kept[recorded.position] = decode(recorded)
        return event

    return decoded


T = TypeVar("T")
TURN = 100


async def in_turns(items: Iterable[T]) -> AsyncIterator[T]:
    """The items of a large batch. After every hundred items the event loop serves other tasks."""
    for number, item in enumerate(items, 1):
        if not number % TURN:
            await asyncio.sleep(0)
        yield item


@dataclass(frozen=True, slots=True)
class EarlierForm:
    """Rows that an earlier release stored in another form, as documents. They stay so until a rebuild.

    The tables of a verification have the same rows in the same form, so that a difference of the form is none of the content.
    """

    table: str
    column: str
    """Holds the document. Null in rows of the present form."""
    apply: Callable[[Connection, str, Sequence[RecordedEvent]], Awaitable[None]]
    """The handler of a verification. It takes the schema of the live tables, and chooses the form of each row as there."""
    content: Callable[[bytes], bytes]
    """The same bytes for documents that say the same. Raises ValueError for a document that cannot be read."""


@dataclass(frozen=True, slots=True)
class Projection:
    """A read model: its name (and checkpoint), the topics it takes, its tables, and the handler of a batch.

    The handler sees only events of these topics, each once and in the order of the log. It names its tables without a schema,
    because the same handler fills a new version of the tables in another schema.
    """

    name: str
    topics: frozenset[str]
    tables: tuple[str, ...]
    apply: Handler
    ddl: tuple[str, ...] = ()
    """For plug-ins: the statements that make the tables and their indexes, without a schema. Migrations make the tables of ours."""
    taken_when_due: dict[str, str] = field(default_factory=dict, hash=False)
    """Table → the column that says when a row is due. Somebody takes a row away that is due, so it need not be there."""
    hurried: frozenset[str] = frozenset()
    """Topics whose rows somebody needs at once who cannot ask for their positions."""
    not_of_the_log: dict[str, frozenset[str]] = field(default_factory=dict, hash=False)
    """Table → columns whose values do not follow from the log alone. A verification does not compare them."""
    earlier: EarlierForm | None = None


def topics_of(*events: type[Event]) -> frozenset[str]:
    return frozenset(event.TOPIC for event in events)


def by_topic(*handlers: tuple[type[Event], Handler]) -> Handler:
    """A handler that gives consecutive events of one topic to the handler of that topic. The order of the events is kept."""
    table = {event.TOPIC: handler for event, handler in handlers}

    async def apply(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
        start = 0
        for end in range(1, len(batch) + 1):
            if end == len(batch) or batch[end].topic != batch[start].topic:
                await table[batch[start].topic](connection, batch[start:end])
                start = end

    return apply


def dump_json(value: Json) -> str:
    """JSON for a column of text. It may hold integers of any size, which orjson refuses. The log holds no U+0000."""
    return pydantic_core.to_json(value).decode()


def load_json(text: str) -> Json:
    """Raises ValueError for text that is not JSON."""
    return values.read(text)


V = TypeVar("V", bound=ListedRow)


def listed(table: str, key: object, read: Callable[[], V], mark: Callable[[], V]) -> V:
    """One entry of a list. In place of a row that cannot be read the list shows the mark; the other rows are unharmed.

    The server's log gets the reason.
    """
    try:
        return read()
    except ValueError as error:  # pydantic's errors are such
        log.error("stored_row_unreadable", table=table, row=str(key), exc_info=error)
        return mark()
