"""Which class of work goes first: the higher one, and in every eighth turn a lower one, so that no class waits for ever."""

from collections.abc import Sequence

from domain.kernel import Priority

EVERY = 8


class Precedence:
    """Divides turns among classes that have work. A turn is one item.

    Every eighth turn goes past the highest class, and every eighth of those goes past the next one. With two classes the lower one
    gets an eighth; with three the middle one gets seven, and the lowest one, of 64 turns.
    """

    __slots__ = ("_turns",)

    def __init__(self) -> None:
        self._turns = 0

    def split(self, count: int, classes: Sequence[Priority]) -> dict[Priority, int]:
        """How many of the next `count` items are to come from each class. `classes`: the highest first, at least one."""
        shares = dict.fromkeys(classes, 0)
        for turn in range(self._turns + 1, self._turns + count + 1):
            place = 0
            while place < len(classes) - 1 and turn % EVERY ** (place + 1) == 0:
                place += 1
            shares[classes[place]] += 1
        return shares

    def took(self, count: int) -> None:
        """So many items have come."""
        self._turns += count
