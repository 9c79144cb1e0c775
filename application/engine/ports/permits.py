"""Permits and tokens of tools: limits of the calls at once, and of the calls that begin, over all processes.

A process holds a part of a tool's permits, and draws tokens in portions. `settle` is one question to one row of the tool, for many
calls. A holder is one start of a process; it is over when nobody has seen it for `HOLDER_LEASE_S`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

HOLDER_LEASE_S = 10.0
"""Seconds after which a holder that nobody saw is over. The permits of its attempts that go on come back as the attempts end."""


@dataclass(frozen=True, slots=True)
class ToolLimits:
    """What a tool declares. Of two declarations the one with the higher number counts."""

    declared: int
    """The number of the change of the tool that said so, from 1."""
    max_parallel: int | None = None
    calls: int | None = None
    """Tokens in a full bucket. None: calls begin at any rate."""
    per_s: float | None = None
    """Seconds in which an empty bucket is filled."""

    @property
    def any(self) -> bool:
        return self.max_parallel is not None or self.calls is not None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a holder keeps, has used, and needs."""

    keep: int = 0
    """Permits that are kept at most: at least those in use. What is beyond is given back."""
    want: int = 0
    """Permits that the holder has work for, with those in use."""
    like: int = 0
    """Permits that the holder takes for calls to come, where nobody waits for them."""
    spent: int = 0
    """Tokens spent since the last answer."""
    back: int = 0
    """Drawn tokens that are given back unspent."""
    ask: int = 0
    """Tokens to draw."""
    hold_s: float = 0.0
    """Seconds for which the service behind the tool asks for silence."""


@dataclass(frozen=True, slots=True)
class Settled:
    limits: ToolLimits
    """The limits in force. Their number may be higher than that of the holder's."""
    held: int
    """Permits that the holder holds now."""
    contended: bool
    """Others wait for permits, or more are held than there may be."""
    share: int
    """While others wait, a permit beyond so many is given back at the end of its call. -1: more are held than there may be, so no
    permit is used anew."""
    granted: int
    """Tokens. The first may be spent after `wait_s`, each other one `per_s / calls` later, if `wait_s` is not 0."""
    wait_s: float
    hold_s: float
    """Seconds for which no call may begin."""
    counting: bool
    """Attempts from before the limit go on, or may go on. Nobody tells when they end: ask again after a while."""


@dataclass(frozen=True, slots=True)
class LimitState:
    """What people see of a tool's limits."""

    in_use: int
    """Attempts with a permit, as the read model of open work knows them."""
    held: int
    waiting: int
    """Permits that processes want and have not got. More calls may wait in the queue."""
    waiting_since: datetime | None
    tokens: float | None
    """Tokens in the bucket. Below zero: so many are promised to calls that wait. None: nobody has counted yet."""
    held_until: datetime | None


class PermitBook(Protocol):
    """The permits and tokens of all tools."""

    async def settle(self, tenant_id: UUID, tool: str, holder_id: UUID, limits: ToolLimits, wanted: Wanted) -> Settled | None:
        """None: the holder is over. Raises Unavailable: whether it was settled is not known."""
        ...

    async def seen(self, holder_id: UUID) -> bool:
        """Renews a holder's lease. False: the holder is over, or has never settled anything. Raises Unavailable."""
        ...

    async def leave(self, holder_id: UUID) -> None:
        """The holder's process stops: the holder is over at once. Raises Unavailable."""
        ...

    async def sweep(self, lease_s: float = HOLDER_LEASE_S) -> int:
        """Takes from holders that are over what no attempt of theirs needs. Returns how many holders there are.

        Raises Unavailable.
        """
        ...

    async def tidy(self) -> int:
        """Forgets tools that nobody has called for days. Returns how many. Raises Unavailable."""
        ...

    async def state(self, tenant_id: UUID, tool: str) -> LimitState | None:
        """None: no call of the tool has met a limit. Raises Unavailable."""
        ...


class PermitNews(Protocol):
    """Tells when something about the permits of a tool may have changed for this process."""

    def call(self, told: Callable[[UUID, str, UUID], None], missed: Callable[[], None]) -> Callable[[], None]:
        """`told`: called with the tenant, the tool and the holder that brought the news about. `missed`: news may have been missed.

        Neither may wait. Returns the function that ends this.
        """
        ...
