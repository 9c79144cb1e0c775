"""Which mutants need not be killed, and how many of the others must be: tests/mutation/listed.toml.

A mutant is told by the function that it breaks and by its changed lines, so that an entry survives changes around it and ends with
the line that it is about.
"""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_suffix(".toml")


@dataclass(frozen=True, slots=True)
class Change:
    """What a mutant does to a function. Lines are without indentation, several are joined by a line break."""

    function: str
    """`domain.runs.decide`, `domain.runs.Run.step`."""
    was: str
    now: str
    """Empty: the lines are gone."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Mutants of one kind, wherever they are."""

    change: re.Pattern[str]
    """A pattern that all of `was → now` must fit."""
    why: str

    def holds(self, change: Change) -> bool:
        return self.change.fullmatch(f"{change.was} → {change.now}") is not None


@dataclass(frozen=True, slots=True)
class Accepted:
    """Mutants of one place that no test can tell from the code, or that no test should."""

    function: str
    was: str
    now: tuple[str, ...]
    why: str

    def holds(self, change: Change) -> bool:
        return (change.function, change.was) == (self.function, self.was) and change.now in self.now


@dataclass(frozen=True, slots=True)
class Floors:
    """In percent. What is below ends the run with an error."""

    reached: float
    """Of all mutants of a room: those in functions that a unit test calls."""
    score: float
    """Of those that were tried: those that were killed."""


@dataclass(frozen=True, slots=True)
class Listed:
    floors: dict[str, Floors]
    """By room."""
    rules: tuple[Rule, ...]
    accepted: tuple[Accepted, ...]

    def room(self, path: Path) -> str:
        """The room of a file. Raises StopIteration for a file outside of all rooms."""
        return next(room for room in self.floors if path.is_relative_to(room))

    def ruled_out(self, change: Change) -> bool:
        return any(rule.holds(change) for rule in self.rules)

    def is_accepted(self, change: Change) -> bool:
        return any(entry.holds(change) for entry in self.accepted)


def read(file: Path = FILE) -> Listed:
    document: dict[str, Any] = tomllib.loads(file.read_text("utf-8"))
    return Listed(
        {room: Floors(**floors) for room, floors in document["floors"].items()},
        tuple(Rule(re.compile(rule["change"]), rule["why"]) for rule in document["rules"]),
        tuple(_accepted(entry) for entry in document["accepted"]),
    )


def _accepted(entry: dict[str, Any]) -> Accepted:
    return Accepted(entry["in"], _lines(entry["was"]), tuple(_lines(text) for text in entry["now"]), entry["why"])


def _lines(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().splitlines())
