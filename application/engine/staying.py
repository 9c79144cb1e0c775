"""Checkpoints that stay where they are while the log has nothing for their consumers.

Each move of a checkpoint writes a version of its row, and while another session holds an old snapshot all of them are kept. So a
consumer that has nothing of a batch stays where it is. Its owner alone knows how far it has read in vain. A stay has bounds: the
next owner reads little again, and whoever looks at the table sees about where the consumer is. A consumer that somebody waits for
moves at once.
"""

import asyncio
from collections.abc import Iterable, Mapping

from application.engine.ports.positions import ConsumerPositions
from domain.errors import TidelogError

STAY_S = 1.0
"""Seconds after which consumers that have stayed move, also when nothing more comes. Then they are silent."""
STAY_EVENTS = 1_000
"""Events that the next owner of a consumer reads again at most, because the consumer has stayed. Far fewer than make it late."""

ASKED_S = 0.1
"""Seconds that consumers get to say where they are, before somebody is shown how far they are behind."""


class Stay:
    """How far the consumers of one owner have read, and since when some of them have stayed behind that."""

    def __init__(self, *, allowed: bool, seconds: float = STAY_S) -> None:
        """`allowed`: whether those who wait for a position can ask. If not, a consumer that stays would keep them waiting."""
        self.passed = 0
        """All consumers have everything up to this position that is theirs."""
        self.until: float | None = None
        """When those move that stay. None: none stays."""
        self._allowed = allowed
        self._seconds = seconds

    def may_last(self, positions: Iterable[int], position: int) -> bool:
        """Whether consumers at these positions may stay there while their owner goes on to a position."""
        if not self._allowed or self.is_over():
            return False
        return position - min(positions, default=position) <= STAY_EVENTS

    def is_over(self) -> bool:
        """Whether it is time to move for those that stay."""
        return self.until is not None and asyncio.get_running_loop().time() >= self.until

    def end_within(self, seconds: float) -> None:
        """Lets no consumer stay longer than so many seconds from now."""
        soon = asyncio.get_running_loop().time() + seconds
        self.until = soon if self.until is None else min(self.until, soon)

    def note(self, positions: Iterable[int]) -> None:
        """Takes where the consumers stand now."""
        if all(position >= self.passed for position in positions):
            self.until = None
        elif self.until is None:
            self.until = asyncio.get_running_loop().time() + self._seconds


async def asked_to_move(positions: ConsumerPositions, found: Mapping[str, int], head: int) -> bool:
    """Lets consumers move that may only have stayed, before their lags are shown.

    Answers whether there were any: where they are now is to be looked up again. `found`: positions by consumer. A consumer that is
    farther behind than one can stay is not asked.
    """
    staying = [name for name, position in found.items() if 0 < head - position <= 2 * STAY_EVENTS]
    waits = (positions.until(name, head, ASKED_S) for name in staying)
    for answer in await asyncio.gather(*waits, return_exceptions=True):
        if isinstance(answer, BaseException) and not isinstance(answer, TidelogError):
            raise answer
    return bool(staying)
