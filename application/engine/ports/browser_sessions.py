"""Browsers that are signed in. Of the token that a browser has, only the SHA-256 is known here. No part of the log."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID


class SignedBy(NamedTuple):
    """The key with which a browser is signed in."""

    tenant_id: UUID
    key_id: UUID
    key_sha256: str


class BrowserSession(NamedTuple):
    session_id: UUID
    by: SignedBy
    made_at: datetime
    ends_at: datetime
    left_s: float
    """Seconds up to `ends_at`, by the clock of the store."""


class BrowserSessions(Protocol):
    async def begin(self, token_sha256: str, session_id: UUID, by: SignedBy, *, life_s: float, most: int) -> BrowserSession:
        """Begins a session. Of the sessions of its key the newest `most` stay, and the others end. Raises Unavailable."""
        ...

    async def find(self, token_sha256s: Sequence[str]) -> Mapping[str, BrowserSession]:
        """The sessions that have not ended. Raises Unavailable."""
        ...

    async def end(self, tenant_id: UUID, session_id: UUID) -> None:
        """Ends a session, and tells all processes. Of one that has ended nothing is told. Raises Unavailable."""
        ...

    async def make_link(self, token_sha256: str, by: SignedBy, *, life_s: float, most: int) -> datetime:
        """Makes a link, and returns when it ends. Of the links of its key the newest `most` stay. Raises Unavailable."""
        ...

    async def take_link(self, token_sha256: str) -> SignedBy | None:
        """Uses a link up. None: there is none, it was used, or it has ended. Raises Unavailable."""
        ...

    async def expire(self) -> int:
        """Removes sessions and links that have ended by themselves. Returns how many. Raises Unavailable."""
        ...


class SessionEndings(Protocol):
    """Tells of sessions that ended before their time, in any process."""

    @property
    def told(self) -> bool:
        """Whether each end from now on is told."""
        ...

    async def listen(self, ended: Callable[[UUID], None], doubt: Callable[[], None]) -> Callable[[], None]:
        """`ended`: called with the id of each session that is ended. `doubt`: ends may have been missed, or may be from now on.

        Neither may wait. Returns the function that ends this.
        """
        ...
