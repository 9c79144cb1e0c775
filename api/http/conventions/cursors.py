"""Cursors of the event routes: a position with the history that it is of, and what a reader of an ended history is told.

`<position>-<history>-<seal>` is the id of an event in a stream, and what a page's cursor holds. Clients that know no histories give
a bare position, which is taken as it is.
"""

from typing import Any

import orjson

from application.engine.ports.pages import MAX_POSITION, decode_cursor
from application.engine.reading.histories import Cursor, History
from application.engine.reading.history_keeper import HistoryKeeper
from domain.errors import HistoryReplaced, InvalidCommand, Unavailable

HISTORY = "Tidelog-History"
PATTERN = "^[0-9]{1,18}(-[0-9a-f]{12}(-[0-9a-f]{8})?)?$"


def cursor_of(text: str | None) -> Cursor | None:
    """Raises InvalidCommand for what cannot be a cursor."""
    if text is None:
        return None
    cursor = Cursor.parse(text)
    if cursor is None:
        raise InvalidCommand("Last-Event-ID must be the id of an event that this stream sent, or a position")
    return cursor


def page_cursor(text: str | None) -> Cursor | None:
    """Raises InvalidCommand for what is not a cursor of ours."""
    if text is None:
        return None
    cursor = Cursor.parse(decode_cursor(text))
    if cursor is None:
        raise InvalidCommand("the cursor is not one that this server gave out", pointer="/cursor")
    return cursor


def reset(replaced: HistoryReplaced) -> bytes:
    """The event that tells a stream's reader where to go on; its id does that for those who only keep the last id."""
    data: dict[str, Any] = {
        "history": replaced.history,
        "last_common_position": replaced.last_common_position,
        "reason": replaced.reason,
    }
    return b"id: %s\nevent: reset\ndata: %s\n\n" % (replaced.cursor.encode(), orjson.dumps(data))


async def ending(histories: HistoryKeeper, history: History, sent: int | None) -> bytes:
    """What a stream says at its end because its history has ended; nothing to a reader whose last event still is in the log.

    `sent`: position of that event; None: the reader has none, and would come again without a cursor.
    """
    try:
        now = (await histories.fresh()).histories
    except Unavailable:
        return b""  # it is told when it comes again
    if sent is not None and now.holds(Cursor(sent, history.history_id)):
        return b""
    return reset(now.replaced(history.history_id, MAX_POSITION if sent is None else sent))
