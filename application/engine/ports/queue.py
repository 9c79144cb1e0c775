"""The queue that workers pull from, and the open work that the log says it must hold."""

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
    """The name of the agent or tool: workers that have it pull from its queue."""
    work_id: UUID
    """The agent run's or the invocation's id."""
    dispatch: int
    """1 for the first dispatch, one more each time the work is to be picked up again (a retry, a wake-up)."""
    root_id: UUID


@dataclass(frozen=True, slots=True)
class Queue:
    """Where workers pull the work of one agent or tool: a stream and a durable consumer on it."""

    kind: str
    pool: str
    stream: str
    consumer: str
    log_id: str
    """Of the log whose work it is: several may share the server of the queue."""


class WorkQueue(Protocol):
    """The queue that workers pull from. Derived data: what it loses is dispatched again from the log."""

    @property
    def ack_wait_s(self) -> float:
        """Seconds of a worker's silence about an item after which the queue gives the item to another worker."""
        ...

    async def publish(self, items: Sequence[WorkItem]) -> None:
        """Puts work on the queue; an item that still waits there is left alone. Raises Unavailable."""
        ...

    async def ensure(self, tenant_id: UUID, kind: str, pool: str, *, max_pending: int) -> Queue:
        """Makes the consumer of one agent or tool, if it is not there. Raises Unavailable."""
        ...


class OpenWork(Protocol):
    """Work that the log says is open: what the queue must hold."""

    async def older_than(self, seconds: float, *, after: UUID | None, limit: int) -> list[WorkItem]:
        """Open work that was dispatched longer ago, by id; `after` is the last id of the page before."""
        ...
