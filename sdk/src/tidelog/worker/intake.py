"""Brings the agents and tools of folders into a worker: most at once, and those whose import takes long when they come."""

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from tidelog.calling import end_tasks, keep_process, run_in_thread
from tidelog.discovery import Discovery, Problem, Scan
from tidelog.loading import PATIENCE_S
from tidelog.logs import log, log_failure
from tidelog.worker.runtime import Worker

logger = logging.getLogger(__name__)

FIRST_REMINDER_S, LONGEST_REMINDER_S = 60.0, 600.0
"""Seconds between the log lines about imports that still hang; the pause doubles."""


class Intake:
    """Scans folders in the background for as long as the context is open."""

    def __init__(self, folders: Iterable[Path], worker: Worker, patience_s: float = PATIENCE_S, *, some: bool = False) -> None:
        """`some`: the worker has something to run already."""
        self._loop = asyncio.get_running_loop()
        self._scan = Scan(list(folders), self._changed, patience_s)
        self._worker = worker
        self._news = asyncio.Event()
        self._decided = asyncio.Event()
        """Set when the worker has something to run, or never will."""
        self._some = some
        self._taken: set[str] = set()
        self._told: set[Problem] = set()
        self._shown: list[Problem] = []

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="intake")
        self._task.add_done_callback(self._ended)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await end_tasks(self._task)

    async def something(self, stop: asyncio.Event) -> bool:
        """Wait until the worker has an agent or a tool. Returns False if it never will, or if `stop` is set before."""
        waits = {asyncio.create_task(event.wait(), name="wait for agents") for event in (self._decided, stop)}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end_tasks(*waits)
        return self._some and not stop.is_set()

    async def _run(self) -> None:
        scanning = asyncio.ensure_future(run_in_thread(self._scan.run))
        scanning.add_done_callback(lambda _: self._news.set())
        try:
            await self._follow(scanning)
        finally:
            scanning.cancel()

    async def _follow(self, scanning: "asyncio.Future[Discovery]") -> None:
        """Take what has been found, until the scan and all hanging imports have ended."""
        pause_s = FIRST_REMINDER_S
        while True:
            self._news.clear()
            over = scanning.done() and not self._scan.hanging()
            self._take(self._scan.present())
            if over:
                await scanning
                return
            try:
                async with asyncio.timeout(pause_s):
                    await self._news.wait()
            except TimeoutError:
                pause_s = min(pause_s * 2, LONGEST_REMINDER_S)
                for problem in self._scan.hanging():
                    self._log(problem)

    def _take(self, found: Discovery) -> None:
        if found.problems != self._shown:
            self._shown = found.problems
            self._worker.show_problems(found.problems)
        for problem in found.problems:
            if problem not in self._told:
                self._told.add(problem)
                self._log(problem)
        agents = [(f"agent {name}", partial(self._worker.add, [agent.cls], [])) for name, agent in found.agents.items()]
        tools = [(f"tool {name}", partial(self._worker.add, [], [tool.tool])) for name, tool in found.tools.items()]
        for name, add in [*agents, *tools]:
            if name in self._taken:
                continue
            self._taken.add(name)
            try:
                with keep_process():
                    add()
            except Exception as error:  # noqa: BLE001  # code of users may be asked for the definition
                log_failure(logger, "problem_in_agents", error, what=name)
            else:
                self._some = True
        if self._some:
            self._decided.set()

    def _log(self, problem: Problem) -> None:
        level = logging.WARNING if problem.kind == "import-hangs" else logging.ERROR
        log(logger, level, "problem_in_agents", path=str(problem.path), kind=problem.kind, message=problem.message)

    def _changed(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._news.set)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log_failure(logger, "intake_failed", error)
        self._decided.set()
