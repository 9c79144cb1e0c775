"""When keys were last used. Written beside the requests, now and then; no part of the log."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol
from uuid import UUID


class KeyUse(NamedTuple):
    key_id: UUID
    tenant_id: UUID
    seconds_ago: float


class KeyUses(Protocol):
    async def write(self, uses: Sequence[KeyUse]) -> None:
        """Notes the uses. A later use that is known already stays. Raises Unavailable."""
        ...
