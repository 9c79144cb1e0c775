"""Ports of queries: API keys, and the audit trail."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol
from uuid import UUID

from application.engine.ports.pages import Page
from application.reads.answers import Positioned
from application.views.audit import AuditEntryView
from application.views.tenants import ApiKeyView
from domain.access import Role


@dataclass(frozen=True, slots=True)
class KeyOwner:
    """The owner of a valid API key."""

    key_id: UUID
    tenant_id: UUID
    role: Role = Role.OWNER
    valid_for_s: float | None = None
    """Seconds up to the expiry. None: the key does not expire."""
    projects: frozenset[UUID] | None = None
    """The projects to which the key is narrowed. None: it is for the whole tenant."""


class KeysFound(NamedTuple):
    """Valid keys, and the position of the read model in which they were looked up."""

    owners: Mapping[str, KeyOwner]
    """By the hash of the key."""
    position: int


class ApiKeyReads(Protocol):
    async def owners(self, sha256s: Sequence[str]) -> KeysFound:
        """All valid keys among those with the given hashes."""
        ...

    async def list(self, tenant_id: UUID, *, limit: int, before: UUID | None) -> Positioned[Page[ApiKeyView]]:
        """Keys before an id, newest first, also those that are not valid any more."""
        ...

    async def get(self, tenant_id: UUID, key_id: UUID) -> Positioned[ApiKeyView | None]:
        """A key; None if the tenant has no such key."""
        ...


class AuditWanted(NamedTuple):
    """A page of the audit trail."""

    limit: int
    before: int | None = None
    """Only entries before this position. None: from the newest on."""
    actor: str | None = None
    action: str | None = None
    target: str | None = None
    """The id of what an action was done to."""
    on_behalf_of: str | None = None
    result: str | None = None
    after: int = 0
    until: int | None = None
    """Only entries after the one position, and up to the other."""


class AuditReads(Protocol):
    async def list(self, tenant_id: UUID, wanted: AuditWanted) -> Positioned[Page[AuditEntryView]]:
        """Entries newest first. A page before the last one may have fewer than `limit` entries, or none."""
        ...
