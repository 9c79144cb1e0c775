"""Calls for positions between objects of one process."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import NoReturn

from application.engine.ports.positions import Asked, Told
from domain.errors import Unavailable

Heard = Callable[[str, Mapping[str, Asked]], Awaitable[None]]


class MemoryPositionCalls:
    """Implements `application.engine.ports.positions.PositionCalls`. Objects with the same board hear one another."""

    def __init__(self, board: "MemoryPositionCalls | None" = None) -> None:
        self._board = board or self
        self.owners: list[Heard] = []
        self.processes: dict[str, Told] = {}
        self.away = False

    async def ask(self, wanted: Mapping[str, Asked], told: Told) -> None:
        self._reach()
        name = f"process {id(self)}"
        self._board.processes[name] = told
        await asyncio.sleep(0)
        for heard in list(self._board.owners):
            await heard(name, wanted)

    async def answer(self, heard: Heard) -> NoReturn:
        self._board.owners.append(heard)
        try:
            await asyncio.Event().wait()
            raise AssertionError
        finally:
            self._board.owners.remove(heard)

    async def tell(self, process: str, reached: Mapping[str, int]) -> None:
        self._reach()
        await asyncio.sleep(0)
        if process in self._board.processes:
            await self._board.processes[process](reached)

    def _reach(self) -> None:
        if self._board.away:
            raise Unavailable("the calls are away")
