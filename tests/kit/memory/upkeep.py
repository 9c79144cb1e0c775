"""Upkeep in memory: the commands that the log recognises, and the record of the chores."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from adapters.memory.log import MemoryLog
from application.engine.ports.upkeep import UpkeepRun, UpkeepState
from tests.kit.memory.checkpoints import MemoryCheckpoints
from tests.kit.memory.timers import MemoryTimers


class MemoryRecordedCommands:
    """Implements `application.engine.ports.upkeep.RecordedCommands`."""

    def __init__(self, log: MemoryLog, checkpoints: MemoryCheckpoints, timers: MemoryTimers | None = None) -> None:
        self.log = log
        self._checkpoints = checkpoints
        self._timers = timers

    async def prune(self, *, older_than_s: float, consumers: Sequence[str], parking: Sequence[str]) -> int:
        self.log.reach()
        rows = self._checkpoints.rows
        parked = [*self._checkpoints.parked.values(), *(self._timers.parked if self._timers else ())]
        bound = min(
            *(rows[name].position if name in rows else 0 for name in consumers),
            *(row.event.position for row in parked if row.consumer in parking),
            self.log.head,
        )
        now = min(self.log.clock.now(), self.log.events[-1].recorded_at) if self.log.events else self.log.clock.now()
        before = now - timedelta(seconds=older_than_s)
        old = [key for key, row in self.log.commands.items() if row.recorded_at < before and row.last_position <= bound]
        for key in old:
            del self.log.commands[key]
        return len(old)


@dataclass
class _Row:
    run: UpkeepRun
    ended_at: datetime
    succeeded_at: datetime | None
    removed_in_all: int


@dataclass
class MemoryUpkeepRuns:
    """Implements `application.engine.ports.upkeep.UpkeepRuns`."""

    log: MemoryLog
    rows: dict[str, _Row] = field(default_factory=dict)

    async def record(self, run: UpkeepRun) -> None:
        self.log.reach()
        now, before = self.log.clock.now(), self.rows.get(run.name)
        succeeded_at = now if run.error is None else before and before.succeeded_at
        self.rows[run.name] = _Row(run, now, succeeded_at, run.removed + (before.removed_in_all if before else 0))

    async def states(self) -> Sequence[UpkeepState]:
        self.log.reach()
        now = self.log.clock.now()
        return [
            UpkeepState(
                name, row.run.every_s, row.ended_at, (now - row.ended_at).total_seconds(),
                None if row.succeeded_at is None else (now - row.succeeded_at).total_seconds(),
                row.run.seconds, row.run.removed, row.removed_in_all, row.run.error,
            )
            for name, row in sorted(self.rows.items())
        ]  # fmt: skip
