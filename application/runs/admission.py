"""The bound of open runs: a start beyond it is refused before anything is looked up or appended.

Runs that wait for a worker wait in the log and in the queue, not in memory, so their number is bounded by the disk alone. The bound
tells a caller early that nobody keeps up.

A read model counts the open runs, and is asked once a second while runs are started. Starts that the read model does not show yet
are counted here. Other processes count for themselves, so all together may pass the bound by what they start within a second.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Protocol, Self
from uuid import UUID

import structlog

from application.engine.background import OnDemand
from application.views.activity import OpenRunCount
from domain.errors import TidelogError, TooManyOpenRuns, TooManyOpenRunsOfTenant
from domain.runs import RunBudget

COUNTED_EVERY_S = 1.0
FIRST_COUNT_S = 1.0
"""Seconds that the first starts of a process wait for the first count. Without one in time they are admitted."""

log = structlog.get_logger(__name__)


class CountsOpenRuns(Protocol):
    async def open_runs(self, *, by_tenant: bool) -> OpenRunCount:
        """The runs that have not ended, and the position up to which they are counted. Raises Unavailable."""
        ...


class Admitted:
    """A start, for the time of a block. Entering the block raises TooManyOpenRuns, TooManyOpenRunsOfTenant."""

    __slots__ = ("_admission", "_tenant_id", "position")

    def __init__(self, admission: "RunAdmission", tenant_id: UUID) -> None:
        self._admission = admission
        self._tenant_id = tenant_id
        self.position: int | None = None
        """Where the run was started. None: no run was started, or not yet."""

    def __enter__(self) -> Self:
        self._admission.begin(self._tenant_id)
        return self

    def __exit__(self, *_: object) -> None:
        self._admission.end(self._tenant_id, self.position)


async def _no_budget(_tenant_id: UUID, _project_id: UUID, _workflow: str | None) -> RunBudget | None:
    return None


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
        self._under_way = 0
        """Starts that have no answer yet."""
        self._under_way_of: Counter[UUID] = Counter()
        """The same by tenant, where a tenant has a bound of its own, as `_since_of`."""
        self._since: deque[tuple[int, UUID]] = deque()
        """Position and tenant of the runs that this process has started after the position of the count."""
        self._since_of: Counter[UUID] = Counter()
        self._counting = OnDemand(self._count, "open-runs")
        self._known = asyncio.Event()
        self.default_budget: Callable[[UUID, UUID, str | None], Awaitable[RunBudget | None]] = _no_budget
        """The budget of a run that is given none: by tenant, project and the name of its workflow."""

    async def close(self) -> None:
        await self._counting.close()

    @property
    def counted(self) -> bool:
        """Whether there is a count."""
        return self._counted is not None

    async def ready(self) -> None:
        """Returns when there is a count, or after a bounded time."""
        if self._counted is None:
            self._recount()
            try:
                async with asyncio.timeout(FIRST_COUNT_S):
                    await self._known.wait()
            except TimeoutError:
                log.warning("open_runs_not_counted", reason="the read model did not answer in time")

    def admitted(self, tenant_id: UUID) -> Admitted:
        """Admits a start, which takes place in the block."""
        return Admitted(self, tenant_id)

    def begin(self, tenant_id: UUID) -> None:
        """Counts a start. The caller must call `end`. Raises TooManyOpenRuns, TooManyOpenRunsOfTenant."""
        self._recount()
        self._check(tenant_id)
        self._under_way += 1
        if self._most_of_tenant:
            self._under_way_of[tenant_id] += 1

    def end(self, tenant_id: UUID, position: int | None) -> None:
        """The start has its answer. `position`: where the run was started; None: no run was started."""
        self._under_way -= 1
        if self._most_of_tenant:
            _take_one(self._under_way_of, tenant_id)
        if position is not None and (self._counted is None or position > self._counted.position):
            self._since.append((position, tenant_id))
            if self._most_of_tenant:
                self._since_of[tenant_id] += 1

    def _check(self, tenant_id: UUID) -> None:
        counted = self._counted or OpenRunCount(0, {}, 0)
        total = counted.total + len(self._since) + self._under_way
        if total >= self.most:
            raise self._told(TooManyOpenRuns(f"{total:,} runs are open, and {self.most:,} may be: try again when some have ended"))
        if not self._most_of_tenant:
            return
        own = counted.of_tenants.get(tenant_id, 0) + self._since_of[tenant_id] + self._under_way_of[tenant_id]
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
            elif self._most_of_tenant:
                _take_one(self._since_of, tenant_id)
        self._known.set()


def _take_one(counts: Counter[UUID], tenant_id: UUID) -> None:
    counts[tenant_id] -= 1
    if not counts[tenant_id]:
        del counts[tenant_id]
