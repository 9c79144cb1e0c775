"""Secrets of webhooks: what proves that a delivery comes from where it says. They are in no event and in no log."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True)
class HookOwner:
    """Whose webhook it is, and what proves deliveries at this moment. Nothing here is for people to see."""

    tenant_id: UUID
    name: str
    """Of its trigger."""
    scheme: str
    """How the secrets are used."""
    secrets: tuple[bytes, ...]

    def __repr__(self) -> str:
        return f"HookOwner(tenant_id={self.tenant_id}, name={self.name!r}, {len(self.secrets)} secrets)"


class SecretLife(NamedTuple):
    """A secret as people may see it."""

    number: int
    made_at: datetime
    ends_at: datetime | None


class StrayHook(NamedTuple):
    hook_id: UUID
    tenant_id: UUID
    name: str
    """Of the trigger that was to have it."""


class HookSecrets(Protocol):
    async def find(self, hook_id: UUID) -> HookOwner | None:
        """The owner of a webhook, with the secrets that are valid. None: there is none. Raises Unavailable."""
        ...

    async def add(self, hook_id: UUID, tenant_id: UUID, name: str, scheme: str, secret: bytes, *, overlap_s: float) -> int:
        """Adds a secret, and returns its number. The others end after the overlap, or as they did before. Raises Unavailable."""
        ...

    async def lives(self, hook_id: UUID) -> Sequence[SecretLife]:
        """The valid secrets, the oldest first. Raises Unavailable."""
        ...

    async def astray(self, *, older_than_s: float, after: UUID, limit: int) -> Sequence[StrayHook]:
        """Webhooks with secrets of before, of which the read model of triggers knows nothing: perhaps nobody uses them. By their
        ids, those after one. Raises Unavailable.
        """
        ...

    async def remove(self, hook_id: UUID) -> None:
        """Removes all secrets of a webhook. Raises Unavailable."""
        ...
