"""The database of read models: its connections and its notifications."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar
from uuid import UUID

ConnectionT_co = TypeVar("ConnectionT_co", covariant=True)


class Database(Protocol[ConnectionT_co]):
    """Connections to a database. Driver errors are turned into domain errors (Unavailable and others).

    `tenant_id`: the tenant whose rows the connection is to read. Connections for the reads of requests show no other tenant's rows,
    whatever the statement says, and none without it. Other connections show all rows.
    """

    def connection(self, tenant_id: UUID | None = None) -> AbstractAsyncContextManager[ConnectionT_co]:
        """A connection on which each statement commits by itself."""
        ...

    def transaction(self, tenant_id: UUID | None = None) -> AbstractAsyncContextManager[ConnectionT_co]:
        """A connection with one transaction, in pipeline mode. The transaction commits at the end of the block."""
        ...


class Listener(Protocol):
    """A channel of notifications. A notification is only a hint: it may be lost."""

    matters: Callable[[str], bool]
    """Whether a notification with a payload wakes who waits. By default each one does."""

    async def wait(self, timeout: float) -> None:
        """Returns at a notification, or after the time-out in seconds."""
        ...
