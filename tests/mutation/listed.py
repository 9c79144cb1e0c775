"""Reads tests/mutation/listed.toml: the accepted mutants, and the floors of the scores.

An entry names a mutant by its function and its changed lines. Changes around these lines leave the entry valid, and a change of
these lines ends it.
"""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_suffix(".toml")


@dataclass(frozen=True, slots=True)
class Change:
    """The change that a mutant makes to a function. Lines have no indentation; several lines are joined by a line break."""

    function: str
    """`domain.runs.decide`, `domain.runs.Run.step`."""
    was: str
    now: str
    """Empty: the mutant removes the lines."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Mutants of one kind, in any function."""

    change: re.Pattern[str]
    """A pattern that the whole text `was → now` must match."""
    why: str

    def holds(self, change: Change) -> bool:
        return self.change.fullmatch(f"{change.was} → {change.now}") is not None


@dataclass(frozen=True, slots=True)
class Accepted:
    """Mutants of one function that no test can tell from the code, or that no test should tell."""

    function: str
    was: str
    now: tuple[str, ...]
    why: str

    def holds(self, change: Change) -> bool:
        return (change.function, change.was) == (self.function, self.was) and change.now in self.now


@dataclass(frozen=True, slots=True)
class Floors:
    """Floors in percent. A lower score ends the run with an error."""

    reached: float
    """The share of a room's mutants in functions that a unit test calls."""
    score: float
    """The share of killed mutants among the tried ones."""


@dataclass(frozen=True, slots=True)
class Listed:
    floors: dict[str, Floors]
    """Floors by room."""
    rules: tuple[Rule, ...]
    accepted: tuple[Accepted, ...]

    def room(self, path: Path) -> str:
        """Returns the room of a file. Raises StopIteration for a file outside all rooms."""
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
