"""Positions of consumers of the log, for callers that wait until a consumer reaches a position."""

from typing import Protocol


class ConsumerPositions(Protocol):
    """Positions of read models and of the partitions of sagas."""

    async def until(self, name: str, position: int, timeout_s: float) -> None:
        """Returns when a consumer's checkpoint has reached a position. Raises ProjectionBehind after the time-out, Unavailable."""
        ...
