"""What a hosted session needs of its connection."""

from typing import Protocol

from application.workers.hosting.messages import Answer, Ending
from domain.errors import TidelogError


class Peer(Protocol):
    """The connection to a worker. No method waits."""

    @property
    def sent_at(self) -> float:
        """When something was sent last, by the monotonic clock."""
        ...

    @property
    def is_crowded(self) -> bool:
        """Whether so much waits to be sent that no more work should be added."""
        ...

    def put(self, answer: Answer, *, urgent: bool = False, alone: bool = False) -> None:
        """Sends a message after all that waits, or before all that waits and is not urgent. Does nothing after the end.

        `alone`: no other message is to be expected in this moment, so this one need not wait for company.
        """
        ...

    def end(self, ending: Ending, error: TidelogError | None = None) -> None:
        """Ends the connection after all that waits. `error`: is told before. The first end counts."""
        ...
