"""Messages of a run and what became of each: sent, delivered, received, or refused."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from application.engine.ports.pages import Page, encode_cursor
from application.reads import Positioned
from application.views.large import LARGE_BYTES, path_of_message, place_of
from application.views.messages import MessageView, Status
from domain.agent_runs import MailDelivered, MailReceived, MailRefused
from domain.kernel import Json, RecordedEvent
from domain.messages import MessageSent
from projections.engine.checkpoints import reading
from projections.kernel import (
    Connection,
    Database,
    Projection,
    by_topic,
    decoded,
    dump_json,
    listed,
    load_json,
    topics_of,
)


async def on_message_sent(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    sql = """
    INSERT INTO message (message_id, tenant_id, run_id, sender, recipient, body, position, sent_at)
    SELECT * FROM unnest(%b::uuid[], %b::uuid[], %b::uuid[], %b::text[], %b::text[], %b::text[], %b::bigint[], %b::timestamptz[])
    """
    sent: list[MessageSent] = [decoded(e) for e in batch]
    await connection.execute(
        sql,
        (
            [e.stream_id for e in batch], [e.tenant_id for e in batch], [m.run_id for m in sent], [m.sender for m in sent],
            [m.recipient for m in sent], [dump_json(m.body) for m in sent], [e.position for e in batch],
            [m.sent_at or e.recorded_at for m, e in zip(sent, batch, strict=True)],
        ),
    )  # fmt: skip


async def on_mail_delivered(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    sql = """
    UPDATE message SET delivered_at = delivered.at FROM unnest(%b::uuid[], %b::timestamptz[]) AS delivered (id, at)
    WHERE message_id = delivered.id
    """
    await connection.execute(sql, ([decoded(e).message_id for e in batch], [e.recorded_at for e in batch]))


async def on_mail_refused(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    sql = """
    UPDATE message SET refused = failed.reason FROM unnest(%b::uuid[], %b::text[]) AS failed (id, reason)
    WHERE message_id = failed.id
    """
    events: list[MailRefused] = [decoded(e) for e in batch]
    await connection.execute(sql, ([e.message_id for e in events], [e.reason for e in events]))


async def on_mail_received(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    sql = """
    UPDATE message SET received_at = received.at FROM unnest(%b::uuid[], %b::timestamptz[]) AS received (id, at)
    WHERE message_id = received.id
    """
    received = [(decoded(e).message_id, e.recorded_at) for e in batch]
    kept = [(message_id, at) for message_id, at in received if message_id is not None]
    if kept:
        await connection.execute(sql, ([message_id for message_id, _ in kept], [at for _, at in kept]))


PROJECTION = Projection(
    "messages",
    topics_of(MessageSent, MailDelivered, MailRefused, MailReceived),
    ("message",),
    by_topic(
        (MessageSent, on_message_sent), (MailDelivered, on_mail_delivered), (MailRefused, on_mail_refused),
        (MailReceived, on_mail_received),
    ),
)  # fmt: skip


# A large body is not read: the length of a value is known without the value.
LIST = """
SELECT message_id, sender, recipient, CASE WHEN octet_length(body) <= %(largest)s THEN body END, position, sent_at, delivered_at,
    received_at, refused, octet_length(body)
FROM message
WHERE tenant_id = %(tenant)s AND run_id = %(run)s AND (%(after)s::bigint IS NULL OR position > %(after)s)
ORDER BY position LIMIT %(limit)s
"""


async def list_messages(
    connection: Connection, tenant_id: UUID, run_id: UUID, *, limit: int, after: int | None
) -> Page[MessageView]:
    """In the order in which they were sent."""
    parameters = {"tenant": tenant_id, "run": run_id, "after": after, "largest": LARGE_BYTES, "limit": limit + 1}
    rows = await (await connection.execute(LIST, parameters)).fetchall()
    data = [_listed(run_id, row) for row in rows[:limit]]
    return Page(data, encode_cursor(str(data[-1].position)) if len(rows) > limit else None)


def _listed(run_id: UUID, row: Sequence[Any]) -> MessageView:
    def view(body: Json, *, unreadable: bool = False) -> MessageView:
        return MessageView(
            message_id=row[0], run_id=run_id, sender=row[1], recipient=row[2], body=body, position=row[4], sent_at=row[5],
            delivered_at=row[6], received_at=row[7], refused=row[8], unreadable=unreadable,
            status=_status(row[6], row[7], row[8]),
        )  # fmt: skip

    if row[3] is None:
        large = view(None)
        large.put("body", None, place_of(path_of_message(run_id, row[0]), "body", row[4], row[9]))
        return large
    return listed("message", row[0], lambda: view(load_json(row[3])), lambda: view(None, unreadable=True))


def _status(delivered_at: datetime | None, received_at: datetime | None, refused: str | None) -> Status:
    return "refused" if refused else "received" if received_at else "delivered" if delivered_at else "sent"


# --- the replay -------------------------------------------------------------------------------------------------------


def sent_message(recorded: RecordedEvent) -> MessageView:
    """The row of a message that was sent, as the list shows it."""
    event: MessageSent = decoded(recorded)
    body = dump_json(event.body)
    size = len(body.encode())
    shown = body if size <= LARGE_BYTES else None
    sent_at = event.sent_at or recorded.recorded_at
    return _listed(
        event.run_id, (recorded.stream_id, event.sender, event.recipient, shown, recorded.position, sent_at, None, None, None, size)
    )


def evolve(messages: Mapping[UUID, MessageView], recorded: RecordedEvent) -> None:
    event: MailDelivered | MailRefused | MailReceived = decoded(recorded)
    message = None if event.message_id is None else messages.get(event.message_id)
    if message is None:
        return
    match event:
        case MailDelivered():
            message.delivered_at = recorded.recorded_at
        case MailRefused():
            message.refused = event.reason
        case MailReceived():
            message.received_at = recorded.recorded_at
    message.status = _status(message.delivered_at, message.received_at, message.refused)


# --- the port ---------------------------------------------------------------------------------------------------------


class MessageQueries:
    """The port `MessageReads`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, tenant_id: UUID, run_id: UUID, *, limit: int, after: int | None) -> Positioned[Page[MessageView]]:
        async with reading(self._database, PROJECTION.name, tenant_id) as (connection, position):
            return Positioned(await list_messages(connection, tenant_id, run_id, limit=limit, after=after), position)

    def sent(self, recorded: RecordedEvent) -> MessageView:
        return sent_message(recorded)

    def evolve(self, messages: Mapping[UUID, MessageView], recorded: RecordedEvent) -> None:
        evolve(messages, recorded)
