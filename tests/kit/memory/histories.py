"""Histories of the log in memory, and a server that a test can restart or replace."""

import asyncio
import secrets
from dataclasses import replace

from adapters.memory.log import MemoryLog
from application.engine.reading.histories import Histories, History, LogState, Mark, Server


class MemoryHistories:
    """Implements `application.engine.reading.histories.HistoryStore`."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self.all = [_history(1, None, 0, "installed", "the log was made", log)]
        self.now = Server("memory", "00000001", log.clock.now())
        """The server that answers."""
        self.mark = Mark(None, 0, 0)
        self.reads = 0

    async def read(self) -> LogState:
        self.reads += 1
        self.log.reach()
        await asyncio.sleep(0)
        self.log.reach()
        return LogState(Histories(tuple(self.all)), self.log.head)

    async def server(self) -> tuple[Mark, Server]:
        self.log.reach()
        return self.mark, self.now

    async def note(self, server: Server) -> None:
        self.log.reach()
        if self.now.started_at != server.started_at:
            return
        before = self.mark.server
        same_start = before is not None and before.started_at == server.started_at
        earlier = self.mark.earlier_position if same_start else self.mark.position
        if (self.log.head, server) != (self.mark.position, before):
            self.mark = Mark(server, self.log.head, earlier)

    async def begin(self, *, after: str, replaces: str, last_common: int, cause: str, reason: str) -> bool:
        self.log.reach()
        if self.all[-1].history_id != after:
            return False
        common = min(last_common, self.log.head)
        self.all.append(_history(len(self.all) + 1, replaces, common, cause, reason, self.log))
        self.mark = Mark(self.now, self.log.head, common)
        return True

    def restart(self, *, timeline: str | None = None, log_id: str | None = None) -> None:
        """Restarts the server. With a timeline or an id, the server is another one."""
        started_at = self.log.clock.now()
        assert started_at != self.now.started_at, "the clock has to move before a server can start again"
        self.now = replace(self.now, started_at=started_at, **_given(timeline=timeline, log_id=log_id))


def _given(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}


def _history(number: int, replaces: str | None, last_common: int, cause: str, reason: str, log: MemoryLog) -> History:
    return History(number, secrets.token_hex(6), replaces, last_common, cause, reason, log.clock.now(), secrets.token_bytes(16))
