"""The audit trail: refused requests are counted in memory and recorded once a minute, and the trail is exported page by page."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from application.engine.background import OnDemand
from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandRequest
from application.engine.ports.pages import Page, position_cursor
from application.reads import AuditReads, AuditWanted, Positioned
from application.views.audit import AuditEntryView
from domain.audit import UNKNOWN, RecordRefusals
from domain.errors import TidelogError, Unavailable
from domain.kernel import derive_id

EVERY_S = 60.0
LAST_S = 3.0
"""Seconds that the last record may take when the process stops."""
MOST_GROUPS = 50
"""Groups of a tenant in one record, and of requests without a valid key half as many. The others are summed up."""
EXPORTED = 500
"""Entries that an export has in memory."""

log = structlog.get_logger(__name__)


class RefusedGroup(NamedTuple):
    """Refused requests that are counted together. Without an address and an action: those for which there was no room."""

    actor: str
    address: str | None = None
    action: str | None = None


class _Counts:
    """What one tenant's record will say."""

    def __init__(self) -> None:
        self.command_id = uuid7()
        """Stays the same when the record is tried again, so that nothing is recorded twice."""
        self.since = self.until = datetime.now(UTC)
        self.groups: dict[tuple[RefusedGroup, bool], int] = {}
        self.room = {True: MOST_GROUPS // 2, False: MOST_GROUPS}
        """Whether the key is unknown → the groups for which there is room."""

    def add(self, group: RefusedGroup) -> None:
        self.until = datetime.now(UTC)
        key = (group, False)
        if key not in self.groups:
            unknown = group.actor == UNKNOWN
            if self.room[unknown]:
                self.room[unknown] -= 1
            else:
                key = (RefusedGroup(UNKNOWN if unknown else "others"), True)
        self.groups[key] = self.groups.get(key, 0) + 1

    def commands(self, tenant_id: UUID) -> list[RecordRefusals]:
        return [
            RecordRefusals(
                entry_id=derive_id(self.command_id, f"refusals:{place}"), tenant_id=tenant_id, actor=group.actor,
                address=group.address, action=group.action, count=count, since=self.since, until=self.until, others=others,
            )
            for place, ((group, others), count) in enumerate(self.groups.items())
        ]  # fmt: skip


class RefusalCounter:
    """Counts refused requests. Its memory is bounded, whatever strangers send, and an idle server records nothing."""

    def __init__(self, commands: CommandLoop, *, every_s: float = EVERY_S) -> None:
        self._commands = commands
        self._every_s = every_s
        self._counts: dict[UUID, _Counts] = {}
        self._waiting: dict[UUID, _Counts] = {}
        """What could not be recorded yet."""
        self._recording = OnDemand(self._work, "record-refusals")

    def count(self, tenant_id: UUID, group: RefusedGroup) -> None:
        """`tenant_id`: of the key, or the default tenant where the key is unknown."""
        counts = self._counts.get(tenant_id)
        if counts is None:
            counts = self._counts[tenant_id] = _Counts()
        counts.add(group)
        if not self._recording.running:
            try:
                self._recording.start()
            except Unavailable:  # the process stops
                log.warning("refusal_not_recorded", actor=group.actor)

    async def close(self) -> None:
        """Records what was counted, as far as that is possible in time."""
        await self._recording.close()
        try:
            async with asyncio.timeout(LAST_S):
                await self.record()
        except TimeoutError:
            pass
        lost = sum(sum(counts.groups.values()) for counts in (*self._counts.values(), *self._waiting.values()))
        if lost:
            log.warning("refusals_not_recorded", count=lost)

    async def _work(self) -> None:
        while self._counts or self._waiting:
            await asyncio.sleep(self._every_s)
            await self.record()

    async def record(self) -> None:
        """Records what was counted. What cannot be recorded waits for the next time."""
        for tenant_id in [*self._waiting, *(tenant for tenant in self._counts if tenant not in self._waiting)]:
            if tenant_id not in self._waiting:
                self._waiting[tenant_id] = self._counts.pop(tenant_id)
            counts = self._waiting[tenant_id]
            command_id = counts.command_id
            request = CommandRequest(tenant_id, "system", command_id, command_id, str(command_id), checked=True)
            try:
                await self._commands.execute(request, *counts.commands(tenant_id))
            except TidelogError as error:
                log.warning("refusals_wait", error=error.message)
            else:
                del self._waiting[tenant_id]


class Export:
    """All entries that the filters leave, up to the position at which the export began, newest first."""

    def __init__(self, reads: AuditReads, tenant_id: UUID, wanted: AuditWanted, first: Positioned[Page[AuditEntryView]]) -> None:
        self._reads = reads
        self._tenant_id = tenant_id
        self._first: Page[AuditEntryView] | None = first.value
        self.position = first.position if wanted.until is None else min(wanted.until, first.position)
        """The export has all entries up to here."""
        self._wanted = wanted._replace(until=self.position)

    @classmethod
    async def begun(cls, reads: AuditReads, tenant_id: UUID, wanted: AuditWanted) -> "Export":
        """The export, with its first page. Its position is that of the first page."""
        wanted = wanted._replace(limit=EXPORTED)
        return cls(reads, tenant_id, wanted, await reads.list(tenant_id, wanted))

    async def pages(self) -> AsyncGenerator[Sequence[AuditEntryView], None]:
        """The entries page by page, once. The next page is read when the one before was taken."""
        page, self._first = self._first, None  # no page is held longer than it is sent
        while page is not None:
            if page.data:
                yield page.data
            before = position_cursor(page.next_cursor)
            if before is None:
                return
            page = (await self._reads.list(self._tenant_id, self._wanted._replace(before=before))).value
