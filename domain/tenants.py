"""Tenants and their API keys. An event holds a key's SHA-256, never the key: keys are 256 random bits, so a hash tells nothing."""

from dataclasses import dataclass, field, replace
from typing import Annotated, assert_never
from uuid import UUID

from immutables import Map
from pydantic import StringConstraints

from domain.errors import AlreadyExists, InvalidState, NotFound
from domain.kernel import Command, Decider, Event, ShortText
from domain.maps import PersistentMap

DEFAULT_TENANT_ID = UUID("01900000-0000-7000-8000-000000000001")
"""The one tenant of a fresh installation."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class TenantCreated(Event):
    TOPIC = "tenant.created"
    name: str


class ApiKeyIssued(Event):
    TOPIC = "tenant.api_key_issued"
    key_id: UUID
    label: str
    sha256: str


class ApiKeyRevoked(Event):
    TOPIC = "tenant.api_key_revoked"
    key_id: UUID


TenantEvent = TenantCreated | ApiKeyIssued | ApiKeyRevoked


@dataclass(frozen=True, slots=True)
class Tenant:
    name: str | None = None
    keys: PersistentMap[UUID, str] = field(default_factory=Map)
    """Key id → SHA-256 of the keys that are valid."""


class CreateTenant(Command):
    tenant_id: UUID
    name: ShortText


class IssueApiKey(Command):
    tenant_id: UUID
    key_id: UUID
    label: ShortText
    sha256: Sha256


class RevokeApiKey(Command):
    tenant_id: UUID
    key_id: UUID


TenantCommand = CreateTenant | IssueApiKey | RevokeApiKey


def decide(tenant: Tenant, command: TenantCommand) -> list[Event]:
    match command:
        case CreateTenant():
            if tenant.name == command.name:
                return []
            if tenant.name is not None:
                raise AlreadyExists(f"tenant {command.tenant_id} exists under another name")
            return [TenantCreated(name=command.name)]
        case IssueApiKey():
            if tenant.name is None:
                raise NotFound(f"there is no tenant {command.tenant_id}")
            if command.key_id in tenant.keys:
                if tenant.keys[command.key_id] == command.sha256:
                    return []
                raise InvalidState("a key of this id was issued before")
            return [ApiKeyIssued(key_id=command.key_id, label=command.label, sha256=command.sha256)]
        case RevokeApiKey():
            if command.key_id not in tenant.keys:
                return []
            return [ApiKeyRevoked(key_id=command.key_id)]
        case _:
            assert_never(command)


def evolve(tenant: Tenant, event: TenantEvent) -> Tenant:
    match event:
        case TenantCreated():
            return replace(tenant, name=event.name)
        case ApiKeyIssued():
            return replace(tenant, keys=tenant.keys.set(event.key_id, event.sha256))
        case ApiKeyRevoked():
            return replace(tenant, keys=tenant.keys.delete(event.key_id))
        case _:
            assert_never(event)


DECIDER: Decider[Tenant] = Decider("tenants", Tenant, decide, evolve)
