"""A database that read models are kept in: its connections, and notifications from it."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

ConnectionT_co = TypeVar("ConnectionT_co", covariant=True)


class Database(Protocol[ConnectionT_co]):
    """Connections to a database. Driver errors come out as domain errors (Unavailable and others)."""

    def connection(self) -> AbstractAsyncContextManager[ConnectionT_co]:
        """Each statement commits by itself."""
        ...

    def transaction(self) -> AbstractAsyncContextManager[ConnectionT_co]:
        """One transaction, in pipeline mode, that commits at the end of the block."""
        ...


class Listener(Protocol):
    """A channel of notifications. A notification is a hint only: one may be lost."""

    async def wait(self, timeout: float) -> None:
        """Returns at a notification, or after the time-out (seconds)."""
        ...
