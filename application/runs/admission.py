"""The bound of open runs: a start beyond it is refused before anything is looked up or appended.

Runs that wait for a worker wait in the log and in the queue, not in memory, so their number is bounded by the disk alone. The bound
tells a caller early that nobody keeps up.

A read model counts the open runs, and is asked once a second while runs are started. Starts that the read model does not show yet
are counted here. Other processes count for themselves, so all together may pass the bound by what they start within a second.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

import structlog

from application.engine.background import OnDemand
from application.views.activity import OpenRunCount
from domain.errors import TidelogError, TooManyOpenRuns, TooManyOpenRunsOfTenant

COUNTED_EVERY_S = 1.0
FIRST_COUNT_S = 1.0
"""Seconds that the first starts of a process wait for the first count. Without one in time they are admitted."""

log = structlog.get_logger(__name__)


class CountsOpenRuns(Protocol):
    async def open_runs(self, *, by_tenant: bool) -> OpenRunCount:
        """The runs that have not ended, and the position up to which they are counted. Raises Unavailable."""
        ...


@dataclass(slots=True)
class Admitted:
    """A start that was admitted."""

    position: int | None = None
    """Where the run was started. None: no run was started, or not yet."""


class RunAdmission:
    """Admits the starts of one process. The owner closes it."""

    def __init__(
        self,
        runs: CountsOpenRuns,
        *,
        most: int,
        most_of_tenant: int = 0,
        refused: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`most_of_tenant`: 0: a tenant has no bound of its own. `refused`: called with the code of each refusal."""
        self.most = most
        self._most_of_tenant = most_of_tenant
        self._runs = runs
        self._refused = refused
        self._clock = clock
        self._counted: OpenRunCount | None = None
        self._asked_at = -COUNTED_EVERY_S
        self._under_way: Counter[UUID] = Counter()
        """Starts that have no answer yet, by tenant."""
        self._since: deque[tuple[int, UUID]] = deque()
        """Position and tenant of the runs that this process has started after the position of the count."""
        self._since_of: Counter[UUID] = Counter()
        self._counting = OnDemand(self._count, "open-runs")
        self._known = asyncio.Event()

    async def close(self) -> None:
        await self._counting.close()

    async def ready(self) -> None:
        """Returns when there is a count, or after a bounded time. At once from the second start of a process on."""
        if self._counted is None:
            self._recount()
            try:
                async with asyncio.timeout(FIRST_COUNT_S):
                    await self._known.wait()
            except TimeoutError:
                log.warning("open_runs_not_counted", reason="the read model did not answer in time")

    @contextmanager
    def admitted(self, tenant_id: UUID) -> Iterator[Admitted]:
        """Admits a start, which takes place in the block. Raises TooManyOpenRuns, TooManyOpenRunsOfTenant."""
        self._recount()
        self._check(tenant_id)
        self._under_way[tenant_id] += 1
        start = Admitted()
        try:
            yield start
        finally:
            _take_one(self._under_way, tenant_id)
            if start.position is not None and (self._counted is None or start.position > self._counted.position):
                self._since.append((start.position, tenant_id))
                self._since_of[tenant_id] += 1

    def _check(self, tenant_id: UUID) -> None:
        counted = self._counted or OpenRunCount(0, {}, 0)
        total = counted.total + len(self._since) + self._under_way.total()
        if total >= self.most:
            raise self._told(TooManyOpenRuns(f"{total:,} runs are open, and {self.most:,} may be: try again when some have ended"))
        if not self._most_of_tenant:
            return
        own = counted.of_tenants.get(tenant_id, 0) + self._since_of[tenant_id] + self._under_way[tenant_id]
        if own >= self._most_of_tenant:
            why = f"{own:,} runs of the tenant are open, and {self._most_of_tenant:,} may be: try again when some have ended"
            raise self._told(TooManyOpenRunsOfTenant(why))

    def _told(self, error: TidelogError) -> TidelogError:
        if self._refused is not None:
            self._refused(error.code)
        return error

    def _recount(self) -> None:
        if not self._counting.running and self._clock() - self._asked_at >= COUNTED_EVERY_S:
            self._asked_at = self._clock()
            self._counting.start()

    async def _count(self) -> None:
        """Asks once. Without an answer the count of before holds."""
        try:
            counted = await self._runs.open_runs(by_tenant=bool(self._most_of_tenant))
        except TidelogError as error:
            log.warning("open_runs_not_counted", reason=error.message)
            return
        self._counted = counted
        for _ in range(len(self._since)):  # commits are answered about in their order, not exactly
            position, tenant_id = self._since.popleft()
            if position > counted.position:
                self._since.append((position, tenant_id))
            else:
                _take_one(self._since_of, tenant_id)
        self._known.set()


def _take_one(counts: Counter[UUID], tenant_id: UUID) -> None:
    counts[tenant_id] -= 1
    if not counts[tenant_id]:
        del counts[tenant_id]
