"""The queue that workers pull from, and the open work in the log that the queue must hold."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from domain.kernel import Priority


@dataclass(frozen=True, slots=True)
class WorkItem:
    """One piece of work for a worker: run an agent, call a tool, or ask whether a call of a tool took effect."""

    tenant_id: UUID
    kind: str
    """`agent`, `tool`, or `reconcile`: asking a tool's `reconcile` function."""
    pool: str
    """The name of the agent or tool. Workers that have the agent, the tool or the function pull from its queue."""
    work_id: UUID
    """The id of the agent run or of the invocation."""
    dispatch: int
    """Number of the dispatch, from 1. Each retry or wake-up is a further dispatch."""
    root_id: UUID
    priority: Priority = "normal"
    """The class among whose work the item waits."""


@dataclass(frozen=True, slots=True)
class Queue:
    """The address of the work of one agent or tool: a stream, and a durable consumer on it for work of the class `normal`.

    The consumer need not exist before there is work.
    """

    kind: str
    pool: str
    stream: str
    consumer: str
    log_id: str
    """Id of the log that the work belongs to. Several logs may share the server of the queue."""
    tenant_id: UUID
    max_pending: int = field(compare=False)
    """The largest number of items of one class that may be held at once."""


class Delivery(Protocol):
    """An item that this process has taken from a queue. It is this process's for the queue's `ack_wait_s`."""

    @property
    def item(self) -> WorkItem: ...

    @property
    def number(self) -> int:
        """How often the queue has delivered the item, from 1."""
        ...

    async def ack(self) -> None:
        """The item leaves the queue. Raises Unavailable."""
        ...

    async def in_progress(self) -> None:
        """The item is this process's for another `ack_wait_s`. Raises Unavailable."""
        ...

    async def give_back(self, delay_s: float = 0.0) -> None:
        """The queue delivers the item again after the delay (seconds). Raises Unavailable."""
        ...


class WorkPuller(Protocol):
    """Takes the items of one queue for this process, with one request at a time.

    Items of the class `high` come before those of `normal`, and those before `low`. Every eighth item comes from a lower class, if
    one waits there (`application/engine/ports/precedence.py`). Within a class, items come in the order in which they were put.
    """

    @property
    def asked(self) -> int:
        """Items of the request under way that have not come. 0: no request is under way."""
        ...

    async def ask(self, count: int) -> None:
        """Asks for the next items, at most `count`. Does nothing while a request is under way.

        The request ends when all items have come, after about a minute, when there is work for which the puller has to ask anew, or
        with `stop`. The owner, who is told of each end, asks again. Raises Unavailable.
        """
        ...

    def arrived(self) -> "Sequence[Delivery]":
        """The items that have come since the last call.

        Raises Unavailable: the queue is lost, or the connection to it. Then the owner closes this puller and makes another one.
        """
        ...

    async def stop(self) -> None:
        """Takes the request back. Raises Unavailable.

        Items that were on their way have arrived when this returns. An item that comes later is given back at once.
        """
        ...

    async def close(self) -> None:
        """Takes the request back, and gives back the items that nobody has taken over with `arrived`."""
        ...


class WorkQueue(Protocol):
    """The queue that workers pull from. It is derived data: lost items are dispatched again from the log."""

    @property
    def ack_wait_s(self) -> float:
        """If a worker is silent about an item for so many seconds, the queue gives the item to another worker."""
        ...

    async def publish(self, items: Sequence[WorkItem]) -> None:
        """Puts work on the queue, among the work of its class, unless the item already waits there. Raises Unavailable."""
        ...

    def address(self, tenant_id: UUID, kind: str, pool: str, *, max_pending: int) -> Queue:
        """The queue of one agent or tool. Nothing is asked of the server."""
        ...

    def puller(self, queue: Queue, changed: Callable[[], None]) -> WorkPuller:
        """A new puller of one queue, which makes what is missing there once there is work.

        `changed`: called when an item has arrived, and when a request has ended or was lost.
        """
        ...


class OpenWork(Protocol):
    """The open work in the log, which the queue must hold."""

    async def older_than(self, seconds: float, *, after: UUID | None, limit: int) -> list[WorkItem]:
        """A page of open work that was dispatched longer ago, in the order of ids. `after`: the last id of the page before.

        Without work that a session has claimed: the queue need not hold it.

        Work that was dispatched as far in the future belongs to it: the database's clock was set back, and the age is not known.
        """
        ...
