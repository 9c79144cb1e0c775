"""Cursors of the event routes: a position with its history, and the answer to a reader whose history has ended.

`<position>-<history>-<seal>` is the id of an event in a stream, and the content of a page's cursor. Clients that know no histories
give a bare position, which is accepted without a check of its history.
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
    """The cursor in a `Last-Event-ID` or a parameter. Raises InvalidCommand for a text that is not a cursor."""
    if text is None:
        return None
    cursor = Cursor.parse(text)
    if cursor is None:
        raise InvalidCommand("Last-Event-ID must be the id of an event that this stream sent, or a position")
    return cursor


def page_cursor(text: str | None) -> Cursor | None:
    """The cursor of a page. Raises InvalidCommand for a text that is not a cursor of this system."""
    if text is None:
        return None
    cursor = Cursor.parse(decode_cursor(text))
    if cursor is None:
        raise InvalidCommand("the cursor is not one that this server gave out", pointer="/cursor")
    return cursor


def reset(replaced: HistoryReplaced) -> bytes:
    """The event that tells a stream's reader where to continue.

    Readers that only keep the last id continue at the id of this event.
    """
    data: dict[str, Any] = {
        "history": replaced.history,
        "last_common_position": replaced.last_common_position,
        "reason": replaced.reason,
    }
    return b"id: %s\nevent: reset\ndata: %s\n\n" % (replaced.cursor.encode(), orjson.dumps(data))


async def ending(histories: HistoryKeeper, history: History, sent: int | None) -> bytes:
    """The last bytes of a stream whose history has ended. Empty for a reader whose last event is still in the log.

    `sent`: position of the reader's last event. None: the reader has no event, and would reconnect without a cursor.
    """
    try:
        now = (await histories.fresh()).histories
    except Unavailable:
        return b""  # the reader learns it when it reconnects
    if sent is not None and now.holds(Cursor(sent, history.history_id)):
        return b""
    return reset(now.replaced(history.history_id, MAX_POSITION if sent is None else sent))
