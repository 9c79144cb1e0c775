"""Tenants and API keys as people see them. Neither has anything of a key's secret."""

from typing import Literal
from uuid import UUID

from pydantic import BaseModel

from application.engine.ports.views import Timestamp
from domain.access import Role

KeyStatus = Literal["valid", "expired", "revoked"]


class ApiKeyView(BaseModel):
    key_id: UUID
    label: str
    role: Role
    status: KeyStatus
    issued_at: Timestamp
    expires_at: Timestamp | None = None
    rotated_to: UUID | None = None
    """The key that has taken the place of this one, which is valid up to `expires_at`."""
    revoked_at: Timestamp | None = None
    revoke_reason: str | None = None
    last_used_at: Timestamp | None = None
    """Up to a minute late. None: never used, or last used by a release that did not write it down."""
    projects: list[UUID] | None = None
    """The projects to which the key is narrowed. None: it is for the whole tenant."""


class TenantView(BaseModel):
    tenant_id: UUID
    name: str
    created_at: Timestamp
