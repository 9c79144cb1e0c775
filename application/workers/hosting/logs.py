"""The lines that agents and tools log: taken from all sessions of a process, bounded, and written in batches by one task.

Nothing waits for a line. A line for which there is no room is counted, and the count is recorded with later lines of its run.
"""

import asyncio
import contextlib
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass
from typing import NamedTuple, TypeVar
from uuid import UUID

import structlog

from application.engine.background import OnDemand
from application.engine.commands.loop import CommandLoop
from application.engine.ports.work_logs import LEVELS, MOST_BYTES, Author, NewLines, WorkLine, WorkLogs
from application.engine.retry import persistently
from application.workers.hosting.looking import kind_for
from application.workers.hosting.messages import Log, LoggedLine
from application.workers.tokens import LeaseTokens
from domain import agent_runs, invocations
from domain.agent_runs import AgentRun
from domain.errors import Unavailable
from domain.invocations import Invocation

K = TypeVar("K")
V = TypeVar("V")
log = structlog.get_logger(__name__)

MOST_WAITING_LINES, MOST_WAITING_BYTES = 40_000, 16 * 1024 * 1024
"""What waits to be written, of all tenants. One tenant has half of that at most."""
BATCH_LINES, BATCH_BYTES = 1_000, 1024 * 1024
MOST_KNOWN = 10_000
"""Pieces of work, and full runs, that are remembered."""
CLOSE_S = 2.0
"""Seconds in which the rest is written when the process stops."""


class LogSource(NamedTuple):
    """Who says that a line is of a piece of work."""

    tenant_id: UUID
    session_id: UUID
    work_id: UUID
    attempt: int
    token: str


@dataclass(slots=True)
class _Waiting:
    source: LogSource
    lines: tuple[LoggedLine, ...]
    lost: int
    size: int


class LogIntake:
    """What the sessions of a process log. One task writes, as long as lines wait."""

    def __init__(self, commands: CommandLoop, tokens: LeaseTokens, logs: WorkLogs) -> None:
        self._commands = commands
        self._tokens = tokens
        self._logs = logs
        self._waiting: deque[_Waiting] = deque()
        self._lost: Counter[LogSource] = Counter()
        """Lines that found no room, until they are recorded."""
        self._lines: Counter[UUID] = Counter()
        self._bytes: Counter[UUID] = Counter()
        """What waits, by tenant."""
        self._authors: OrderedDict[LogSource, Author | None] = OrderedDict()
        self._full: OrderedDict[tuple[UUID, UUID], None] = OrderedDict()
        """Runs that have all the lines that they may have."""
        self._writing = OnDemand(self._write_all, "write-lines")
        self._idle = asyncio.Event()
        self._idle.set()

    def take(self, tenant_id: UUID, session_id: UUID, said: Log, size: int) -> None:
        """Takes what a session logs, `size` bytes. Does not wait."""
        source = LogSource(tenant_id, session_id, said.work, said.attempt, said.token)
        if self._has_room(tenant_id, len(said.lines), size):
            self._waiting.append(_Waiting(source, said.lines, said.dropped, size))
            self._lines[tenant_id] += len(said.lines)
            self._bytes[tenant_id] += size
        elif source in self._lost or len(self._lost) < MOST_KNOWN:
            self._lost[source] += len(said.lines) + said.dropped
        self._idle.clear()
        try:
            self._writing.start()
        except Unavailable:  # the process stops
            log.debug("lines_came_too_late", lines=len(said.lines))

    def _has_room(self, tenant_id: UUID, lines: int, size: int) -> bool:
        return (
            self._lines[tenant_id] + lines <= MOST_WAITING_LINES // 2
            and self._bytes[tenant_id] + size <= MOST_WAITING_BYTES // 2
            and self._lines.total() + lines <= MOST_WAITING_LINES
            and self._bytes.total() + size <= MOST_WAITING_BYTES
        )

    async def _write_all(self) -> None:
        while self._waiting or self._lost:
            batch = self._next()
            try:
                await self._write(batch)
            except Exception:  # a defect must not keep the lines that follow
                log.exception("lines_not_written", lines=sum(len(one.lines) for one in batch))
            finally:
                for one in batch:  # what is being written takes room, too
                    self._lines[one.source.tenant_id] -= len(one.lines)
                    self._bytes[one.source.tenant_id] -= one.size
                self._lines, self._bytes = +self._lines, +self._bytes
        self._idle.set()

    def _next(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        lines = size = 0
        while self._waiting and (not batch or (lines < BATCH_LINES and size < BATCH_BYTES)):
            one = self._waiting.popleft()
            batch.append(one)
            lines, size = lines + len(one.lines), size + one.size
        if not self._waiting:
            lost, self._lost = self._lost, Counter()
            batch += [_Waiting(source, (), count, 0) for source, count in lost.items()]
        return batch

    async def _write(self, batch: list[_Waiting]) -> None:
        by_run: dict[tuple[UUID, UUID], tuple[list[WorkLine], Counter[str]]] = {}
        for one in batch:
            author = await self._author(one.source)
            if author is None:
                log.debug("lines_of_nobody", work_id=str(one.source.work_id), lines=len(one.lines))
                continue
            lines, dropped = by_run.setdefault((author.tenant_id, author.run_id), ([], Counter()))
            dropped["lost"] += one.lost
            if (author.tenant_id, author.run_id) in self._full:
                dropped["beyond"] += len(one.lines)
            else:
                lines += [WorkLine(author, line.at, LEVELS[line.level], bounded(line.text)) for line in one.lines]
        news = [
            NewLines(*of_run, lines, dropped["beyond"], dropped["lost"])
            for of_run, (lines, dropped) in by_run.items()
            if lines or dropped.total()
        ]
        if news:
            for of_run in await persistently(lambda: self._logs.write(news)):
                _remember(self._full, of_run, None)

    async def _author(self, source: LogSource) -> Author | None:
        """None: the token is not the one of this work, attempt and session."""
        if source not in self._authors:
            _remember(self._authors, source, await persistently(lambda: author_of(self._commands, self._tokens, source)))
        return self._authors[source]

    async def close(self) -> None:
        """The sessions are over. Writes the rest, unless that takes long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._idle.wait()
        await self._writing.close()


def _remember(known: OrderedDict[K, V], key: K, value: V) -> None:
    known[key] = value
    if len(known) > MOST_KNOWN:
        known.popitem(last=False)


async def author_of(commands: CommandLoop, tokens: LeaseTokens, source: LogSource) -> Author | None:
    """Whose lines those of a piece of work are, as the log has it. None: see `kind_for`. Raises Unavailable."""
    tenant_id, _, work_id, attempt, token = source
    kind = await kind_for(commands, tokens, tenant_id, source.session_id, work_id, attempt, token)
    if kind is None:
        return None
    agent_run_id, tool, call_id = work_id, None, None
    if kind != "agent":
        call: Invocation = (await commands.load(invocations.DECIDER, tenant_id, work_id, fresh=False)).state
        assert call.requested is not None
        agent_run_id, tool, call_id = call.requested.agent_run_id, call.requested.tool, work_id
        if call.requested.asked_by != "agent_run":  # of no step
            return Author(tenant_id, call.requested.run_id, "", "", attempt, tool, call_id)
    run: AgentRun = (await commands.load(agent_runs.DECIDER, tenant_id, agent_run_id, fresh=False)).state
    if run.requested is None:  # the log lost it, as after a restore from a backup
        return None
    return Author(tenant_id, run.requested.run_id, run.requested.step, run.requested.agent, attempt, tool, call_id)


def bounded(text: str) -> str:
    """The text as it is kept: without characters that PostgreSQL refuses, and cut with a mark where it is too long."""
    clean = text.replace("\x00", "\ufffd").encode("utf-8", "replace")
    if len(clean) <= MOST_BYTES:
        return clean.decode()
    mark = f"… [cut: {len(clean):,} bytes]"
    return clean[: MOST_BYTES - len(mark.encode())].decode("utf-8", "ignore") + mark
