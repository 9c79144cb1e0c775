"""The database of read models: its connections and its notifications."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

ConnectionT_co = TypeVar("ConnectionT_co", covariant=True)


class Database(Protocol[ConnectionT_co]):
    """Connections to a database. Driver errors are turned into domain errors (Unavailable and others)."""

    def connection(self) -> AbstractAsyncContextManager[ConnectionT_co]:
        """A connection on which each statement commits by itself."""
        ...

    def transaction(self) -> AbstractAsyncContextManager[ConnectionT_co]:
        """A connection with one transaction, in pipeline mode. The transaction commits at the end of the block."""
        ...


class Listener(Protocol):
    """A channel of notifications. A notification is only a hint: it may be lost."""

    async def wait(self, timeout: float) -> None:
        """Returns at a notification, or after the time-out in seconds."""
        ...
