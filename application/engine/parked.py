"""Parked events of read models, sagas and due timers, for operators: reading them, and retrying them root by root."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from application.engine.ports.pages import Page
from application.engine.ports.parked import ParkedEvents, ParkedView, Retried
from application.engine.ports.projections import ProjectionOperations
from application.engine.ports.timers import PARKED_AS as DUE_TIMERS
from application.engine.retry_parked import EffectRetry
from application.engine.sagas.manager import PARTITIONS
from domain.errors import NotFound

SAGAS = "sagas"
"""All partitions of the sagas together."""
MAX_ROOTS = 1_000
"""Roots that one call retries. The answer says whether more roots have parked events."""
RETRY_TIMEOUT_S = 25.0


@dataclass(frozen=True, slots=True)
class RetriedRoots:
    roots: Sequence[Retried]
    more: bool
    """Whether other roots have parked events that were not tried."""


class ParkedOperations:
    """Operations on parked events.

    `name`: a read model, `sagas`, one partition of the sagas, such as `sagas:3`, or `due-timers`.
    """

    def __init__(self, parked: ParkedEvents, projections: ProjectionOperations, *, sagas: EffectRetry, timers: EffectRetry) -> None:
        self._parked = parked
        self._projections = projections
        self._sagas = sagas
        self._timers = timers

    def consumers_of(self, name: str) -> list[str]:
        """The names of the consumers that have parked the events. Raises NotFound."""
        if name == SAGAS:
            return [SAGAS, *PARTITIONS]
        if name != DUE_TIMERS and name not in PARTITIONS:
            self._projections.must_know(name)
        return [name]

    def must_know(self, name: str) -> None:
        """Raises NotFound if the name is unknown."""
        self.consumers_of(name)

    async def list(self, name: str, *, limit: int, after: int) -> Page[ParkedView]:
        """Parked events after a position, in the order of the log. Raises NotFound, Unavailable."""
        return await self._parked.list(self.consumers_of(name), limit=limit, after=after)

    async def retry(self, name: str, root_id: UUID | None = None) -> RetriedRoots:
        """Retries root by root, oldest root first, each root in order. Events that fail again stay parked.

        The answer has the error. `root_id`: only the events of this root. Raises NotFound if the name is unknown or the root has no
        parked events; Unavailable.
        """
        consumers = self.consumers_of(name)
        retry: Callable[[UUID], Awaitable[Retried]] = partial(self._projections.retry_parked, name)
        if name == SAGAS or name in PARTITIONS:
            retry = partial(self._sagas.retry, consumers)
        elif name == DUE_TIMERS:
            retry = partial(self._timers.retry, consumers)
        roots = [root_id] if root_id else await self._parked.roots(consumers, MAX_ROOTS + 1)
        results: list[Retried] = []
        give_up_at = asyncio.get_running_loop().time() + RETRY_TIMEOUT_S
        for root in roots[:MAX_ROOTS]:
            results.append(await retry(root))
            if asyncio.get_running_loop().time() > give_up_at:
                break
        if root_id and not results[0].events:
            raise NotFound(f"no events of {root_id} are parked for '{name}'")
        return RetriedRoots(results, len(results) < len(roots))
