"""Positions of consumers of the log, for callers that wait until a consumer reaches a position."""

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, NoReturn, Protocol


class ConsumerPositions(Protocol):
    """Positions of read models and of the partitions of sagas."""

    async def until(self, name: str, position: int, timeout_s: float) -> None:
        """Returns when a consumer's checkpoint has reached a position. Raises ProjectionBehind after the time-out, Unavailable."""
        ...


class Asked(NamedTuple):
    """The positions of one consumer that a process waits for: the lowest and the highest."""

    lowest: int
    highest: int


Told = Callable[[Mapping[str, int]], Awaitable[None]]
"""Takes the positions that consumers have reached."""


class PositionCalls(Protocol):
    """Calls between processes that wait for positions and the owners of the consumers.

    A call may be lost, so whoever waits looks at the checkpoints from time to time.
    """

    async def ask(self, wanted: Mapping[str, Asked], told: Told) -> None:
        """Asks the owners to move consumers to positions at once. `told` is called with what they answer, now and later.

        It is called with nothing where it is known that no owner hears the question. Raises Unavailable.
        """
        ...

    async def answer(self, heard: Callable[[str, Mapping[str, Asked]], Awaitable[None]]) -> NoReturn:
        """Hands each question to a function until cancelled: the name of the process that asks, and what it waits for."""
        ...

    async def tell(self, process: str, reached: Mapping[str, int]) -> None:
        """Tells a process that asked which positions were reached. Raises Unavailable."""
        ...
