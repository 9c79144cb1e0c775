"""Waits of an agent in memory: sleeps on the clock of the test, and signals of the test. They do not crash with the agent."""

import asyncio
from datetime import timedelta

from tidelog.calling import end_tasks
from tidelog.journal import EntryError, JournalEntry, Wait
from tidelog.testing.clock import KitClock
from tidelog.testing.journal import MemoryJournal


class KitWaits:
    """The waits of one execution."""

    def __init__(self, journal: MemoryJournal, clock: KitClock) -> None:
        self._journal = journal
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, key: str, wait: Wait) -> None:
        entry = JournalEntry(key=key, kind=wait.kind, status="pending", fingerprint=wait.fingerprint)
        until = wait.until
        if wait.delay_s is not None:
            until = self._clock.now() + timedelta(seconds=wait.delay_s)
        self._journal.waits[key] = (entry, wait, until)
        self._journal.record(entry)
        self._follow(key)

    def resume(self) -> None:
        for key in self._journal.waits:
            self._follow(key)

    async def close(self) -> None:
        await end_tasks(*self._tasks)

    def _follow(self, key: str) -> None:
        entry, wait, until = self._journal.waits[key]
        if self._journal.hand_out(wait.name, key) or until is None or self._journal.is_settled(key):
            return
        left = max(0.0, (until - self._clock.now()).total_seconds())
        task = asyncio.get_running_loop().create_task(self._end(entry, wait, left), name=f"wait {key}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end(self, entry: JournalEntry, wait: Wait, left: float) -> None:
        await self._clock.wait(asyncio.get_running_loop().create_future(), left)
        if wait.kind == "sleep":
            self._journal.record(entry.model_copy(update={"status": "ok"}))
        else:
            error = EntryError(
                type="WaitTimeout", message=f"no signal '{wait.name}' came within {wait.delay_s:g} s", kind="timeout"
            )
            self._journal.record(entry.model_copy(update={"status": "error", "error": error}))
