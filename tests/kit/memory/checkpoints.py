"""Checkpoints in memory, fenced by position and by epoch like the real checkpoints."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from adapters.memory.log import MemoryLog
from application.engine.ports.checkpoints import Checkpoint, LostOwnership
from domain.kernel import RecordedEvent


class Parked(NamedTuple):
    consumer: str
    event: RecordedEvent
    error: str


class MemoryCheckpoints:
    """Implements `application.engine.ports.checkpoints.Checkpoints` in the database of the log."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self.rows: dict[str, Checkpoint] = {}
        self.parked: dict[tuple[str, int], Parked] = {}

    async def take(self, names: Sequence[str]) -> dict[str, Checkpoint]:
        self.log.reach()
        await asyncio.sleep(0)
        for name in names:
            known = self.rows.get(name, Checkpoint(0, 0))
            self.rows[name] = Checkpoint(known.position, known.epoch + 1)
        return {name: self.rows[name] for name in names}

    async def advance(self, known: dict[str, Checkpoint], position: int) -> dict[str, Checkpoint]:
        self.log.reach()
        await asyncio.sleep(0)
        for name, expected in known.items():
            row = self.rows.get(name)
            # The checkpoint is at the new position already: the answer to the same move was lost.
            if row is None or row.epoch != expected.epoch or row.position not in (expected.position, position):
                raise LostOwnership(f"another process owns one of {', '.join(known)}")
        moved = {name: Checkpoint(position, expected.epoch) for name, expected in known.items()}
        self.rows |= moved
        self.log.wake()
        return moved

    async def park(self, name: str, event: RecordedEvent, error: str) -> None:
        self.log.reach()
        await asyncio.sleep(0)
        self.parked.setdefault((name, event.position), Parked(name, event, error[:10_000].replace("\x00", "")))
