"""What the dispatcher needs of a session."""

from collections.abc import Collection
from typing import Protocol
from uuid import UUID

from application.engine.commands.request import Caller
from application.engine.ports.sessions import WorkerSession
from application.workers.hosting.credit import Slots
from application.workers.hosting.hand import Hand
from application.workers.hosting.hands import Hands
from application.workers.sessions import Claimed


class Taker(Protocol):
    """A session that takes work."""

    @property
    def tenant_id(self) -> UUID: ...
    @property
    def caller(self) -> Caller: ...
    @property
    def session(self) -> WorkerSession | None: ...
    @property
    def slots(self) -> Slots: ...
    @property
    def hands(self) -> Hands: ...
    @property
    def is_over(self) -> bool: ...

    def free(self, kind: str) -> int:
        """Free slots for work of a kind, at this moment."""
        ...

    def offered(self, kind: str) -> Collection[str]:
        """The names of the agents or tools that the session offers."""
        ...

    def hand_over(self, hand: Hand, claimed: Claimed, *, reserved: bool) -> None:
        """Sends claimed work. `reserved`: a slot was kept for it."""
        ...
