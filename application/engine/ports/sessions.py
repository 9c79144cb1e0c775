"""Sessions of workers: the lease of all work that a worker has, and the work that a session has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol
from uuid import UUID

LEASE_S = 10.0
"""Seconds after which a session that nobody saw is lost, with all its work."""
SEEN_EVERY_S = 3.0
"""Seconds between two renewals of the sessions of a process."""
READY_S = 5.0
"""Seconds for which an api process counts as ready after a renewal."""
KEPT_S = 60.0
"""Seconds for which a session that is over is kept: work that it claimed last may come into sight late."""
MOST_LISTED = 1_000


@dataclass(frozen=True, slots=True)
class WorkerSession:
    """A session as the process knows it that has the worker's connection."""

    session_id: UUID
    tenant_id: UUID
    worker_id: str
    actor: str
    """The actor of the key that opened the session."""
    incarnation: UUID
    """Names one start of the worker's process."""
    release: str


@dataclass(frozen=True, slots=True)
class Offered:
    """What a worker takes work for, as far as the server has accepted its definitions: names and versions."""

    agents: Mapping[str, str] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UnofferedWork:
    """An agent or tool with work that waits, and that no session of the work's tenant offers."""

    kind: str
    """`agent` or `tool`."""
    name: str
    waiting: int
    oldest_waiting_s: float


@dataclass(frozen=True, slots=True)
class ListedSession:
    """A session for people."""

    session: WorkerSession
    since: datetime
    seen_at: datetime
    agent_runs: int
    """Agent runs that the session has claimed."""
    calls: int
    """Tool calls that the session has claimed."""
    offered: Offered | None
    """None: not known yet, as the worker's definitions are being registered, or the session's process is of an older release."""


@dataclass(frozen=True, slots=True)
class WorkInHand:
    """A piece of work that a session has claimed, for people."""

    kind: str
    """`agent`, `tool` or `reconcile`."""
    name: str
    """Of the agent or the tool."""
    work_id: UUID
    root_id: UUID
    attempt: int
    dispatched_at: datetime


@dataclass(frozen=True, slots=True)
class HeldWork:
    """A piece of work that a session has claimed."""

    tenant_id: UUID
    kind: str
    """`agent` or `tool`."""
    work_id: UUID
    root_id: UUID
    attempt: int
    session_id: UUID


@dataclass(frozen=True, slots=True)
class KnownWork:
    """The work of some sessions, as the read model knows it at one moment."""

    position: int
    """The position up to which the read model has taken the log."""
    work: Sequence[HeldWork]
    """In the order of the ids of the sessions and of the work."""


@dataclass(frozen=True, slots=True)
class LapsedWork:
    """A piece of work that a session has claimed which is over."""

    work: HeldWork
    reason: Literal["lost", "left"]


@dataclass(frozen=True, slots=True)
class Seen:
    kept: frozenset[UUID]
    """The given sessions that go on and belong to this process."""
    any_session: bool
    """Whether any worker has a session, here or elsewhere. While that is so, the process goes on saying that it is ready."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the sweeper needs to know at one moment."""

    now: datetime
    """By the database's clock."""
    ready: int
    """Number of api processes that take sessions."""
    going_on: int
    """Number of sessions that are not over."""
    over: int
    """Number of sessions that are over and are still kept."""
    unseen: frozenset[UUID]
    """Sessions that nobody saw for the time of the lease."""


class WorkerSessions(Protocol):
    """The sessions of all workers. One object serves one process."""

    async def open(self, session: WorkerSession, secret: str, *, most_of_actor: int, most_of_tenant: int) -> bool:
        """Opens a session at this process. `secret`: what the worker must know to come back; only a hash is kept.

        False: the key or the tenant has as many sessions as it may have. Raises Unavailable.
        """
        ...

    async def resume(self, tenant_id: UUID, session_id: UUID, secret: str, incarnation: UUID) -> WorkerSession | None:
        """Takes a session over: from now on it belongs to this process.

        None: there is no such session with this secret and incarnation, or it is over. Raises Unavailable.
        """
        ...

    async def seen(self, session_ids: Sequence[UUID]) -> Seen:
        """Renews sessions of this process, and says that the process takes sessions. One statement. Raises Unavailable."""
        ...

    async def withdraw(self) -> None:
        """Says that this process takes no sessions any more. Raises Unavailable."""
        ...

    async def end(self, session_ids: Sequence[UUID]) -> None:
        """Ends sessions of this process whose workers have left. Their work lapses soon. Raises Unavailable."""
        ...

    async def offer(self, session_id: UUID, offered: Offered) -> None:
        """Says what a session offers from now on. Raises Unavailable."""
        ...

    async def of_tenant(
        self, tenant_id: UUID, *, limit: int = MOST_LISTED, after: tuple[str, UUID] | None = None
    ) -> list[ListedSession]:
        """The sessions of a tenant that go on, in the order of the worker's id and the session's, after such a pair.

        Raises Unavailable.
        """
        ...

    async def in_hand(self, tenant_id: UUID, session_id: UUID, *, limit: int) -> list[WorkInHand] | None:
        """What a session of the tenant that goes on has claimed, what was dispatched first in front. None: no such session.

        Raises Unavailable.
        """
        ...

    async def offering(self, tenant_id: UUID, kind: str, names: Sequence[str]) -> Mapping[str, int]:
        """Name → number of workers with a session that offers the agent or tool. Names that nobody offers are missing.

        Raises Unavailable.
        """
        ...

    async def unoffered(self, *, waiting_s: float, limit: int) -> list[UnofferedWork]:
        """Agents and tools of all tenants with unclaimed work that was dispatched so long ago and that no session offers.

        The oldest first. A tenant with a session whose offers are not known is left out. Work that a worker without a session
        is doing looks unclaimed. Reads all open work, so it is asked only with a suspicion. Raises Unavailable.
        """
        ...

    async def held_by(self, session_ids: Sequence[UUID]) -> KnownWork:
        """The work of some sessions, as far as the read model knows. Raises Unavailable."""
        ...

    async def over(self, session_ids: Sequence[UUID]) -> frozenset[UUID]:
        """Those of the given sessions that are over or do not exist. Raises Unavailable."""
        ...

    async def look(self, *, lease_s: float = LEASE_S, ready_s: float = READY_S) -> Look:
        """What the sweeper needs, in one statement. Raises Unavailable."""
        ...

    async def lose(self, session_ids: Sequence[UUID], *, lease_s: float = LEASE_S) -> None:
        """Ends those of the given sessions that nobody has seen up to now. Raises Unavailable."""
        ...

    async def lapsed(self, *, after: UUID | None, limit: int) -> list[LapsedWork]:
        """A page of the work of sessions that are over or do not exist, by the ids of the work. Raises Unavailable."""
        ...

    async def tidy(self, *, kept_s: float = KEPT_S) -> None:
        """Removes sessions that have been over for so long and have no work. Forgets processes that have vanished.

        Raises Unavailable.
        """
        ...


class InstallationSecrets(Protocol):
    """The secret of this installation."""

    async def secret(self) -> bytes:
        """32 bytes that only the server knows. Raises Unavailable."""
        ...
