"""Calls that wait for more of a budget that asks: they stand in line at its allowance, behind one question to people.

Each call in the line begins as soon as there is enough for it, first come, first served: because a person gave more, or because
another call used less than was set aside for it. Nobody is asked twice at a time, however many calls wait. What a person denies
ends all calls in the line, and the budget asks no more until somebody changes it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from immutables import Map

from domain.allowances.events import WaitingCall
from domain.amounts import Amounts
from domain.kernel import derive_id
from domain.maps import PersistentMap

AT_ONCE = 40
"""Calls that one append lets go on. The next ones follow in appends of their own."""


class PlaceInLine(NamedTuple):
    """A call in the line."""

    holder: UUID
    call: WaitingCall
    amounts: Amounts


@dataclass(frozen=True)
class WaitingLine:
    """The calls that wait, in order, and the question behind which they stand."""

    places: PersistentMap[int, PlaceInLine] = field(default_factory=Map)
    """By number, in the order in which they came."""
    numbers: PersistentMap[UUID, int] = field(default_factory=Map)
    """Call → its place."""
    came: int = 0
    refused: PersistentMap[UUID, str] = field(default_factory=Map)
    """Calls that were refused, until their agent runs have said that they know."""
    asked: int = 0
    """The number of the newest question."""
    is_open: bool = False
    """Whether it waits for its answer."""
    denied: str | None = None
    """Why calls that come are refused. None: they are not."""

    def in_order(self) -> Iterator[PlaceInLine]:
        for _, place in sorted(self.places.items()):
            yield place

    @property
    def question(self) -> int:
        """The number of the question for which a call that comes now waits."""
        return self.asked if self.is_open else self.asked + 1

    @property
    def wanted(self) -> Amounts:
        """What all calls in the line may cost."""
        total = Amounts()
        for place in self.places.values():
            total = total + place.amounts
        return total


def question_id_of(allowance_id: UUID, number: int) -> UUID:
    """The approval that a question is."""
    return derive_id(allowance_id, f"approval:{number}")
