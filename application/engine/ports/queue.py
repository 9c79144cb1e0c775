"""The queue that workers pull from, and the open work in the log that the queue must hold."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True)
class WorkItem:
    """One piece of work for a worker: run an agent, or call a tool."""

    tenant_id: UUID
    kind: str
    """`agent` or `tool`."""
    pool: str
    """The name of the agent or tool. Workers that have the agent or tool pull from its queue."""
    work_id: UUID
    """The id of the agent run or of the invocation."""
    dispatch: int
    """Number of the dispatch, from 1. Each retry or wake-up is a further dispatch."""
    root_id: UUID


@dataclass(frozen=True, slots=True)
class Queue:
    """The address of the work of one agent or tool: a stream and a durable consumer on it."""

    kind: str
    pool: str
    stream: str
    consumer: str
    log_id: str
    """Id of the log that the work belongs to. Several logs may share the server of the queue."""


class WorkQueue(Protocol):
    """The queue that workers pull from. It is derived data: lost items are dispatched again from the log."""

    @property
    def ack_wait_s(self) -> float:
        """If a worker is silent about an item for so many seconds, the queue gives the item to another worker."""
        ...

    async def publish(self, items: Sequence[WorkItem]) -> None:
        """Puts work on the queue, unless the item already waits there. Raises Unavailable."""
        ...

    async def ensure(self, tenant_id: UUID, kind: str, pool: str, *, max_pending: int) -> Queue:
        """Creates the consumer of one agent or tool, if it does not exist. Raises Unavailable."""
        ...


class OpenWork(Protocol):
    """The open work in the log, which the queue must hold."""

    async def older_than(self, seconds: float, *, after: UUID | None, limit: int) -> list[WorkItem]:
        """A page of open work that was dispatched longer ago, in the order of ids. `after`: the last id of the page before.

        Without work that a session has claimed: the queue need not hold it.

        Work that was dispatched as far in the future belongs to it: the database's clock was set back, and the age is not known.
        """
        ...
