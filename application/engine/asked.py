"""The positions of a process's own consumers that somebody waits for."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from application.engine.ports.positions import Asked, PositionCalls
from domain.errors import Unavailable

KEPT_S = 10.0
"""Seconds for which a question counts. Whoever still waits asks again."""
NOBODY = 2**63
"""A position that no event has."""


@dataclass(slots=True)
class _Question:
    lowest: int
    highest: int
    until: float


class AskedPositions:
    """What other processes wait for, of consumers that move together."""

    def __init__(self, calls: PositionCalls | None, positions: Callable[[], Mapping[str, int]]) -> None:
        """`positions`: where the consumers stand. Without calls nobody can ask."""
        self._calls = calls
        self._positions = positions
        self._questions: dict[tuple[str, str], _Question] = {}
        """By process and consumer."""
        self.lowest = NOBODY
        """The lowest position that somebody waits for."""
        self.on_question: Callable[[], None] = lambda: None

    def names(self, position: int) -> frozenset[str]:
        """The consumers of which somebody waits for a position up to this one."""
        return frozenset(name for (_, name), question in self._questions.items() if question.lowest <= position)

    async def listen(self) -> NoReturn:
        """Takes questions until cancelled."""
        if self._calls is None:
            await asyncio.Event().wait()
            raise AssertionError
        await self._calls.answer(self._hear)

    async def _hear(self, process: str, wanted: Mapping[str, Asked]) -> None:
        own = self._positions()
        asked = {name: one for name, one in wanted.items() if name in own}
        until = asyncio.get_running_loop().time() + KEPT_S
        for name, one in asked.items():
            if own[name] < one.highest:
                known = self._questions.get((process, name), one)
                lowest = max(min(one.lowest, known.lowest), own[name] + 1)
                self._questions[process, name] = _Question(lowest, max(one.highest, known.highest), until)
        self._count()
        if reached := {name: own[name] for name, one in asked.items() if own[name] >= one.lowest}:
            await self._tell(process, reached)
        if asked:
            self.on_question()

    async def moved(self) -> None:
        """Tells all who wait where the consumers stand now."""
        if not self._questions:
            return
        own, now = self._positions(), asyncio.get_running_loop().time()
        news: dict[str, dict[str, int]] = {}
        for (process, name), question in list(self._questions.items()):
            position = own.get(name, 0)
            if position >= question.lowest:
                news.setdefault(process, {})[name] = position
            if position >= question.highest or now > question.until:
                del self._questions[process, name]
            else:
                question.lowest = max(question.lowest, position + 1)
        self._count()
        for process, reached in news.items():
            await self._tell(process, reached)

    def _count(self) -> None:
        self.lowest = min((question.lowest for question in self._questions.values()), default=NOBODY)

    async def _tell(self, process: str, reached: Mapping[str, int]) -> None:
        assert self._calls is not None
        with suppress(Unavailable):  # whoever waits looks at the checkpoints from time to time
            await self._calls.tell(process, reached)
