"""A process that shares units with others on any leases, with a record of the units that it runs."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from application.engine.background import end
from application.engine.leases import Group, Membership
from application.engine.ports.checkpoints import LostOwnership
from application.engine.ports.leases import Leases

UNITS = tuple(f"unit:{number}" for number in range(5))


class SharingProcess:
    """Runs its share of the group `things`, and the single unit `one`; or another group instead."""

    def __init__(self, leases: Leases, units: Sequence[str] = UNITS, *, instead: Group | None = None) -> None:
        self.doing: set[str] = set()
        self.runs: list[frozenset[str]] = []
        self.lost = asyncio.Event()
        """Set: another process took one of the units."""
        groups = [Group("things", tuple(units), self._do), Group("one", ("one",), self._do)]
        self.membership = Membership(leases, groups if instead is None else [replace(instead, run=self._do)])
        self.tasks = [asyncio.create_task(worker.run()) for worker in self.membership.workers.values()]
        self.tasks.append(asyncio.create_task(self.membership.run()))

    async def _do(self, units: frozenset[str]) -> None:
        self.doing |= units
        self.runs.append(units)
        try:
            await (asyncio.Event() if "one" in units else self.lost).wait()
            self.lost.clear()
            raise LostOwnership("somebody else")
        finally:
            self.doing -= units

    @property
    def things(self) -> set[str]:
        return self.doing - {"one"}

    async def stop(self) -> None:
        await end(*self.tasks)
