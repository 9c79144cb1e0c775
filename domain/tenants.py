"""Tenants and their API keys. An event holds a key's SHA-256, never the key: keys are 256 random bits, so a hash tells nothing.

The times come with the commands: a key ends by itself when its `expires_at` has come, and no event says so.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, assert_never
from uuid import UUID

from immutables import Map
from pydantic import AwareDatetime, Field, StringConstraints

from domain.access import Action, Role, is_within, may_give
from domain.errors import AlreadyExists, Forbidden, InvalidCommand, InvalidState, NotFound
from domain.kernel import Command, Decider, Event, ShortText
from domain.maps import PersistentMap

DEFAULT_TENANT_ID = UUID("01900000-0000-7000-8000-000000000001")
"""The one tenant of a fresh installation."""
MOST_KEYS = 1_000
"""Valid keys of one tenant."""
OVERLAP_S = 24 * 3_600.0
"""Seconds for which a key is valid beside the key that takes its place, unless the command says otherwise."""
LONGEST_OVERLAP_S = 90 * 86_400.0
LONGEST_LIFE = timedelta(days=36_525)
"""The latest expiry, from now on: a hundred years."""
MOST_PROJECTS = 20
"""Projects to which a key can be narrowed: a list of runs looks at each of them."""
MADE_ROOM_FOR = 100
"""Expired keys that one new key clears away at most."""
EXPIRED = "expired"
"""The reason with which an expired key is cleared away."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class TenantCreated(Event):
    TOPIC = "tenant.created"
    name: str


class ApiKeyIssued(Event):
    TOPIC = "tenant.api_key_issued"
    VERSION = 3
    key_id: UUID
    label: str
    sha256: str
    role: Role = Role.OWNER
    """Keys that were issued before there were roles are keys of owners."""
    expires_at: datetime | None = None
    projects: tuple[UUID, ...] | None = None
    """The projects to which the key is narrowed, in order. None: it is for the whole tenant, as every key was before."""

    @property
    def stored_version(self) -> int:
        """A release that knows no roles would take every key for one of an owner that never expires, and does not read version 2.
        One that knows no narrowed keys would take each for one of the whole tenant, and does not read version 3.
        """
        if self.projects is not None:
            return 3
        return 1 if self.role is Role.OWNER and self.expires_at is None else 2


class ApiKeyIssuedV2(ApiKeyIssued):
    """A key for the whole tenant. Such a key is still stored as this version, or as the one before."""

    VERSION = 2


class ApiKeyIssuedV1(ApiKeyIssued):
    """A key of an owner that does not expire. Such a key is still stored as this version."""

    VERSION = 1


class ApiKeyRotated(Event):
    """Another key has taken the place of this one, which stays valid up to a time."""

    TOPIC = "tenant.api_key_rotated"
    key_id: UUID
    rotated_to: UUID
    expires_at: datetime


class ApiKeyRevoked(Event):
    TOPIC = "tenant.api_key_revoked"
    key_id: UUID
    reason: str | None = None


TenantEvent = TenantCreated | ApiKeyIssued | ApiKeyRotated | ApiKeyRevoked


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that was not revoked."""

    sha256: str
    label: str
    role: Role = Role.OWNER
    expires_at: datetime | None = None
    rotated_to: UUID | None = None
    projects: tuple[UUID, ...] | None = None

    @property
    def lasts(self) -> bool:
        """Whether it is a key of an owner of the whole tenant that never expires."""
        return self.role is Role.OWNER and self.expires_at is None and self.projects is None

    def has_expired(self, at: datetime) -> bool:
        return self.expires_at is not None and self.expires_at <= at


@dataclass(frozen=True, slots=True)
class Tenant:
    name: str | None = None
    keys: PersistentMap[UUID, ApiKey] = field(default_factory=Map)
    """Key id → each key that was not revoked. Some may have expired."""
    revoked: PersistentMap[UUID, bool] = field(default_factory=Map)
    """The ids of keys that were revoked. None of them is given again."""
    before: PersistentMap[UUID, UUID] = field(default_factory=Map)
    """Key id → the key whose place it took, where one was rotated."""

    def same_holder(self, key_id: UUID) -> frozenset[UUID]:
        """The key, the keys whose place it took, and those that took its place: they are of one holder."""
        found, one = {key_id}, self.before.get(key_id)
        while one is not None and one not in found:
            found.add(one)
            one = self.before.get(one)
        after = self.keys.get(key_id)
        while after is not None and after.rotated_to is not None and after.rotated_to not in found:
            found.add(after.rotated_to)
            after = self.keys.get(after.rotated_to)
        return frozenset(found)


class CreateTenant(Command):
    tenant_id: UUID
    name: ShortText


class IssueApiKey(Command):
    tenant_id: UUID
    key_id: UUID
    label: ShortText
    sha256: Sha256
    role: Role = Role.OWNER
    expires_at: AwareDatetime | None = None
    projects: tuple[UUID, ...] | None = Field(default=None, min_length=1, max_length=MOST_PROJECTS)
    """The only projects that the key is for. None: the whole tenant."""
    giver: Role = Role.OWNER
    """The role of the caller. The installation itself gives as an owner."""
    giver_projects: tuple[UUID, ...] | None = None
    """The projects to which the caller is narrowed."""
    at: AwareDatetime | None = None
    """The present time. None: no key is taken for expired."""


class RotateApiKey(Command):
    """Issues a key that takes the place of another. It has the same label, role and projects, and, unless said otherwise, the same
    expiry.
    """

    tenant_id: UUID
    key_id: UUID
    to_key_id: UUID
    sha256: Sha256
    at: AwareDatetime
    overlap_s: float = Field(default=OVERLAP_S, ge=0, le=LONGEST_OVERLAP_S)
    expires_at: AwareDatetime | None = None
    """None: as the old key."""
    giver: Role = Role.OWNER
    giver_projects: tuple[UUID, ...] | None = None


class RevokeApiKey(Command):
    tenant_id: UUID
    key_id: UUID
    reason: ShortText | None = None
    giver: Role = Role.OWNER
    giver_projects: tuple[UUID, ...] | None = None


TenantCommand = CreateTenant | IssueApiKey | RotateApiKey | RevokeApiKey


def decide(tenant: Tenant, command: TenantCommand) -> list[Event]:
    match command:
        case CreateTenant():
            if tenant.name == command.name:
                return []
            if tenant.name is not None:
                raise AlreadyExists(f"tenant {command.tenant_id} exists under another name")
            return [TenantCreated(name=command.name)]
        case IssueApiKey():
            return _issue(tenant, command)
        case RotateApiKey():
            return _rotate(tenant, command)
        case RevokeApiKey():
            return _revoke(tenant, command)
        case _:
            assert_never(command)


def _issue(tenant: Tenant, command: IssueApiKey) -> list[Event]:
    if tenant.name is None:
        raise NotFound(f"there is no tenant {command.tenant_id}")
    _must_give(command, command.role, command.projects, Action.KEYS_ISSUE)
    if command.projects is not None and command.role is Role.WORKER:
        raise InvalidCommand("a key of the role worker cannot be narrowed: it takes work of all projects", pointer="/projects")
    known = tenant.keys.get(command.key_id)
    if known is not None and known.sha256 == command.sha256:
        return []
    _must_be_new(tenant, command.key_id, command.sha256)
    expires_at = _expiry(command.expires_at, command.at)
    if command.role is Role.OWNER and not any(_lasting(tenant)):
        if expires_at is not None:
            raise InvalidState("the only key of an owner must not expire: nobody could issue another")
        if command.projects is not None:
            raise InvalidState("the only key of an owner must not be narrowed: nobody could issue another")
    return [
        *_room(tenant, command.at),
        ApiKeyIssued(
            key_id=command.key_id,
            label=command.label,
            sha256=command.sha256,
            role=command.role,
            expires_at=expires_at,
            projects=None if command.projects is None else tuple(sorted(set(command.projects))),
        ),
    ]


def _rotate(tenant: Tenant, command: RotateApiKey) -> list[Event]:
    old = tenant.keys.get(command.key_id)
    if old is None:
        if command.key_id in tenant.revoked:
            raise InvalidState("the key was revoked: issue another one")
        raise NotFound(f"there is no key {command.key_id}")
    _must_give(command, old.role, old.projects, Action.KEYS_ROTATE)
    known = tenant.keys.get(command.to_key_id)
    if old.rotated_to == command.to_key_id and known is not None and known.sha256 == command.sha256:
        return []
    if old.rotated_to is not None:
        raise InvalidState(f"the key was rotated before: {old.rotated_to} has taken its place")
    if old.has_expired(command.at):
        raise InvalidState("the key has expired: issue another one")
    _must_be_new(tenant, command.to_key_id, command.sha256)
    expires_at = _expiry(command.expires_at, command.at) or old.expires_at
    if old.lasts and expires_at is not None:
        _must_leave_an_owner(tenant, command.key_id, "expire")
    ends = command.at + timedelta(seconds=command.overlap_s)
    if old.expires_at is not None:
        ends = min(ends, old.expires_at)
    events: list[Event] = [
        *_room(tenant, command.at),
        ApiKeyIssued(
            key_id=command.to_key_id,
            label=old.label,
            sha256=command.sha256,
            role=old.role,
            expires_at=expires_at,
            projects=old.projects,
        ),
        ApiKeyRotated(key_id=command.key_id, rotated_to=command.to_key_id, expires_at=ends),
    ]
    if command.overlap_s == 0:  # at once, whatever the clocks of the processes say
        events.append(ApiKeyRevoked(key_id=command.key_id, reason="rotated without an overlap"))
    return events


def _revoke(tenant: Tenant, command: RevokeApiKey) -> list[Event]:
    old = tenant.keys.get(command.key_id)
    if old is None:
        return []
    _must_give(command, old.role, old.projects, Action.KEYS_REVOKE)
    if old.lasts:
        _must_leave_an_owner(tenant, command.key_id, "be revoked")
    return [ApiKeyRevoked(key_id=command.key_id, reason=command.reason)]


def _must_give(
    command: IssueApiKey | RotateApiKey | RevokeApiKey, given: Role, projects: tuple[UUID, ...] | None, action: Action
) -> None:
    """Raises Forbidden: nobody gives or takes more than what they have themselves."""
    if not may_give(command.giver, given):
        raise Forbidden(f"{action}: a key of the role {command.giver} may not do this with keys of the role {given}")
    if not is_within(projects, command.giver_projects):
        raise Forbidden(f"{action}: a key that is narrowed to projects may not do this with keys of others")


def _expiry(given: datetime | None, at: datetime | None) -> datetime | None:
    """The expiry of a new key, in UTC. Raises InvalidCommand."""
    if given is None:
        return None
    if at is not None and given <= at:
        raise InvalidCommand("the key would have expired already", pointer="/expires_at")
    if at is not None and given - at > LONGEST_LIFE:
        raise InvalidCommand("a key expires within a hundred years, or not at all", pointer="/expires_at")
    return given.astimezone(UTC)


def _must_be_new(tenant: Tenant, key_id: UUID, sha256: str) -> None:
    """Raises InvalidState if the tenant had a key of this id, or has one with this hash."""
    if key_id in tenant.keys or key_id in tenant.revoked:
        raise InvalidState("a key of this id was issued before")
    if any(key.sha256 == sha256 for key in tenant.keys.values()):
        raise InvalidState("this key was issued before, under another id")


def _lasting(tenant: Tenant) -> Iterator[UUID]:
    """The ids of the keys of owners that never expire."""
    return (key_id for key_id, key in tenant.keys.items() if key.lasts)


def _must_leave_an_owner(tenant: Tenant, key_id: UUID, end: str) -> None:
    """Raises InvalidState if no other key of an owner is left that never expires."""
    if not any(other != key_id for other in _lasting(tenant)):
        raise InvalidState(f"the last key of an owner that does not expire must not {end}: issue another one first")


def _room(tenant: Tenant, at: datetime | None) -> list[Event]:
    """What makes room for one more key. Raises InvalidState if the tenant has as many valid keys as it may have."""
    if len(tenant.keys) < MOST_KEYS:
        return []
    gone = [] if at is None else [key_id for key_id, key in sorted(tenant.keys.items()) if key.has_expired(at)]
    if len(tenant.keys) - len(gone) >= MOST_KEYS:
        raise InvalidState(f"the tenant has its {MOST_KEYS:,} valid keys: revoke some")
    return [ApiKeyRevoked(key_id=key_id, reason=EXPIRED) for key_id in gone[:MADE_ROOM_FOR]]


def evolve(tenant: Tenant, event: TenantEvent) -> Tenant:
    match event:
        case TenantCreated():
            return replace(tenant, name=event.name)
        case ApiKeyIssued():
            if event.key_id in tenant.revoked:  # an earlier release issued revoked keys again; nobody could use them
                return tenant
            key = ApiKey(event.sha256, event.label, event.role, event.expires_at, projects=event.projects)
            return replace(tenant, keys=tenant.keys.set(event.key_id, key))
        case ApiKeyRotated():
            old = tenant.keys[event.key_id]
            rotated = replace(old, rotated_to=event.rotated_to, expires_at=event.expires_at)
            before = tenant.before.set(event.rotated_to, event.key_id)
            return replace(tenant, keys=tenant.keys.set(event.key_id, rotated), before=before)
        case ApiKeyRevoked():
            keys = tenant.keys.delete(event.key_id) if event.key_id in tenant.keys else tenant.keys
            return replace(tenant, keys=keys, revoked=tenant.revoked.set(event.key_id, True))
        case _:
            assert_never(event)


DECIDER: Decider[Tenant] = Decider("tenants", Tenant, decide, evolve)
