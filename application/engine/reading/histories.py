"""Histories of the log: a restore or a failover that loses the log's end begins a new history, and readers of the log learn of it.

A cursor is a position together with the history in which it was given out. A cursor is valid as long as the log still holds the
events that its holder has read: in the current history, or in an older history up to the last position that all later ones share
with it.

This module has the rules and the stored data. history_keeper.py finds out that a history has ended.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Protocol

from application.engine.ports.checkpoints import LostOwnership
from domain.errors import HistoryReplaced, PositionBeyondHead

_CURSOR = re.compile(r"([0-9]{1,18})(?:-([0-9a-f]{12})(?:-([0-9a-f]{8}))?)?", re.ASCII)


class HistoryEnded(LostOwnership):
    """The history that the reader follows has ended. The reader must read its own position again and go on from there."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position and the history in which it was given out.

    `seal`: proves that the server gave it out. A bare position has neither.
    """

    position: int
    history: str | None = None
    seal: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Cursor | None":
        """Parses `<position>`, `<position>-<history>` or `<position>-<history>-<seal>`. None for any other text."""
        match = _CURSOR.fullmatch(text)
        return cls(int(match[1]), match[2], match[3]) if match else None


@dataclass(frozen=True, slots=True)
class History:
    """One history. `last_common`: up to this position the log certainly equals that of the replaced history."""

    number: int
    history_id: str
    replaces: str | None
    """Id of the history that ended. It need not be the one before: a restored backup may never have known it."""
    last_common: int
    cause: str
    reason: str
    began_at: datetime
    seal_key: bytes

    def cursor(self, position: int) -> str:
        return f"{position}-{self.history_id}-{self._seal(position)}"

    def gave_out(self, cursor: Cursor) -> bool:
        """Whether `cursor` made this cursor."""
        return cursor.seal is not None and hmac.compare_digest(cursor.seal, self._seal(cursor.position))

    def _seal(self, position: int) -> str:
        seal = _keyed(self.seal_key).copy()
        seal.update(b"%d" % position)
        return seal.hexdigest()


@lru_cache(maxsize=8)
def _keyed(key: bytes) -> "hashlib.blake2b":
    """A keyed hash, to be copied for each seal: each event of each stream has one."""
    return hashlib.blake2b(key=key, digest_size=4)


@dataclass(frozen=True, slots=True)
class Histories:
    """All histories of a log, oldest first; there is at least one."""

    all: tuple[History, ...]

    @property
    def current(self) -> History:
        return self.all[-1]

    def find(self, history_id: str | None) -> History | None:
        """The history of an id. None as an id means the first history: readers stored positions before histories had ids."""
        if history_id is None:
            return self.all[0]
        return next((history for history in self.all if history.history_id == history_id), None)

    def last_common(self, history_id: str | None) -> int | None:
        """The position up to which the log still equals a history. None: the history is the current one.

        0 for an unknown history, such as one that began after the restored backup was made.
        """
        later = self._after(history_id)
        return 0 if later is None else min((each.last_common for each in later), default=None)

    def has_replaced(self, history_id: str, position: int) -> bool:
        """Whether the log is known to have lost the event of a history at a position."""
        return self.knows(history_id) and not self.holds(Cursor(position, history_id))

    def knows(self, history_id: str) -> bool:
        """Whether anything is recorded about a history, even if only its end."""
        return self._after(history_id) is not None

    def _after(self, history_id: str | None) -> tuple[History, ...] | None:
        """The histories that followed one. None for an unknown history."""
        history = self.find(history_id)
        if history is not None:
            return self.all[history.number :]
        return next((self.all[at:] for at, each in enumerate(self.all) if each.replaces == history_id), None)

    def holds(self, cursor: Cursor) -> bool:
        """Whether the log, as far as is recorded, still has the events that the holder of a cursor has read."""
        common = self.last_common(cursor.history)
        return common is None or cursor.position <= common

    def check(self, cursor: Cursor, head: int) -> None:
        """Checks a cursor. A bare position is accepted up to the head. Raises HistoryReplaced, PositionBeyondHead."""
        if cursor.history is not None and not self.holds(cursor):
            raise self.replaced(cursor.history, cursor.position)
        if cursor.position > head:
            raise PositionBeyondHead(cursor.position, head)

    def replaced(self, history_id: str, position: int) -> HistoryReplaced:
        common = self.last_common(history_id)
        common = position if common is None else min(common, position)
        now = self.current
        return HistoryReplaced(
            f"history {history_id} of the log has ended ({now.reason}): drop what you have after position {common}, and go on from"
            f" there in history {now.history_id}",
            history=now.history_id,
            last_common_position=common,
            cursor=now.cursor(common),
            reason=now.reason,
        )


@dataclass(frozen=True, slots=True)
class Server:
    """The server that answers: the id of the log, PostgreSQL's timeline (None: unknown), the time of the server's start."""

    log_id: str
    timeline: str | None
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Mark:
    """The log's head while a server ran, and before that server was started. `server` None: nobody has looked yet."""

    server: Server | None
    position: int
    earlier_position: int


@dataclass(frozen=True, slots=True)
class Parting:
    """The place from which a copy of the log differs from the log: the last position in common, and the history of the copy.

    `history` None: the copy was made before histories had ids.
    """

    position: int
    history: str | None


@dataclass(frozen=True, slots=True)
class LogState:
    """The histories and the head of the log at one moment."""

    histories: Histories
    head: int


class HistoryStore(Protocol):
    """The histories in the database. All methods raise Unavailable."""

    async def read(self) -> LogState: ...

    async def server(self) -> tuple[Mark, Server]:
        """The mark, and the present server."""
        ...

    async def note(self, server: Server) -> None:
        """Moves the mark to the head, if the given server is still the server of the mark and the present one."""
        ...

    async def begin(self, *, after: str, replaces: str, last_common: int, cause: str, reason: str) -> bool:
        """Begins a history if `after` still is the id of the current one. Of several callers at once, one gets True.

        `last_common` is bounded by the head.
        """
        ...
