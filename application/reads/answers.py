"""What an answer of a read model is, and how far the consumers of the log are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")


MOST_NAMES = 1000


@dataclass(frozen=True, slots=True)
class Positioned(Generic[T]):
    """The answer of a read model, and the position of the read model at the time of the answer."""

    value: T
    position: int


@dataclass(frozen=True, slots=True)
class ConsumerProgress:
    """Consumer's name → its position in the log, and the number of its parked events."""

    positions: Mapping[str, int]
    parked: Mapping[str, int]


class ConsumerReads(Protocol):
    async def progress(self) -> ConsumerProgress:
        """The progress of all consumers. Events that were parked by a version of a read model that is not live are not counted."""
        ...
