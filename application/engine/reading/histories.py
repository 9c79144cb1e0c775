"""Histories of the log: a restore or a failover that loses its end begins a new one, and whoever reads the log learns of it.

A cursor is a position together with the history in which it was given out. It is good as long as the log still holds what its
holder has read: in the current history, or in an older one up to the last position that all later ones share with it.

Here are the rules and what is stored; who finds out that a history has ended is in history_keeper.py.
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
    """The log that was being read has been replaced by another one: read your own position again, and go on from there."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position and the history in which it was given out. `seal`: proves that this was so. A bare position has neither."""

    position: int
    history: str | None = None
    seal: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Cursor | None":
        """`<position>`, `<position>-<history>` or `<position>-<history>-<seal>`; None for anything else."""
        match = _CURSOR.fullmatch(text)
        return cls(int(match[1]), match[2], match[3]) if match else None


@dataclass(frozen=True, slots=True)
class History:
    """One history. `last_common`: up to this position the log is certainly that of the history that it replaces."""

    number: int
    history_id: str
    replaces: str | None
    """Id of the history that ended. Not always the one before: that of a backup may never have known it."""
    last_common: int
    cause: str
    reason: str
    began_at: datetime
    seal_key: bytes

    def cursor(self, position: int) -> str:
        return f"{position}-{self.history_id}-{self._seal(position)}"

    def gave_out(self, cursor: Cursor) -> bool:
        """Whether a cursor was made by `cursor`, and not invented."""
        return cursor.seal is not None and hmac.compare_digest(cursor.seal, self._seal(cursor.position))

    def _seal(self, position: int) -> str:
        seal = _keyed(self.seal_key).copy()
        seal.update(b"%d" % position)
        return seal.hexdigest()


@lru_cache(maxsize=8)
def _keyed(key: bytes) -> "hashlib.blake2b":
    """To be copied: each event of each stream has a seal."""
    return hashlib.blake2b(key=key, digest_size=4)


@dataclass(frozen=True, slots=True)
class Histories:
    """All histories of a log, oldest first; there is at least one."""

    all: tuple[History, ...]

    @property
    def current(self) -> History:
        return self.all[-1]

    def find(self, history_id: str | None) -> History | None:
        """None as an id means the first one: that of those who wrote down a position before there were ids."""
        if history_id is None:
            return self.all[0]
        return next((history for history in self.all if history.history_id == history_id), None)

    def last_common(self, history_id: str | None) -> int | None:
        """Up to which position the log still is what a history had; None: all of it, that is the current one.

        0 for a history of which nothing is known, as of one that began after the backup that was restored.
        """
        later = self._after(history_id)
        return 0 if later is None else min((each.last_common for each in later), default=None)

    def has_replaced(self, history_id: str, position: int) -> bool:
        """Whether it is recorded that the log has lost what a history had at a position."""
        return self.knows(history_id) and not self.holds(Cursor(position, history_id))

    def knows(self, history_id: str) -> bool:
        """Whether anything is recorded of a history, be it only that it has ended."""
        return self._after(history_id) is not None

    def _after(self, history_id: str | None) -> tuple[History, ...] | None:
        """The histories that followed one; None if nothing is known of it."""
        history = self.find(history_id)
        if history is not None:
            return self.all[history.number :]
        return next((self.all[at:] for at, each in enumerate(self.all) if each.replaces == history_id), None)

    def holds(self, cursor: Cursor) -> bool:
        """Whether, as far as is recorded, the log still has what the holder of a cursor has read."""
        common = self.last_common(cursor.history)
        return common is None or cursor.position <= common

    def check(self, cursor: Cursor, head: int) -> None:
        """A bare position is taken as it is, but not beyond the head. Raises HistoryReplaced, PositionBeyondHead."""
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
    """Which server answers: the id of the log, PostgreSQL's timeline (None: it does not say), when the server was started."""

    log_id: str
    timeline: str | None
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Mark:
    """How far the log was while a server ran, and before it was started. `server` None: nobody has looked yet."""

    server: Server | None
    position: int
    earlier_position: int


@dataclass(frozen=True, slots=True)
class Parting:
    """Where a copy of the log goes on with other events than the log: the last position in common, and the history of the copy.

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
        """The mark, and the server as it is now."""
        ...

    async def note(self, server: Server) -> None:
        """Moves the mark to the head, if this is still the server of the mark and of the moment."""
        ...

    async def begin(self, *, after: str, replaces: str, last_common: int, cause: str, reason: str) -> bool:
        """Begins a history if `after` still is the id of the current one: of several at once one does. Whether it was us.

        `last_common` is bounded by the head.
        """
        ...
