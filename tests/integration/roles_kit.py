"""A key of every role, for a server whose read model says the roles of these keys through this port."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from uuid import UUID

from application.reads import ApiKeyReads, KeyOwner
from domain.access import Role
from domain.tenants import DEFAULT_TENANT_ID, IssueApiKey
from tests.integration.system_kit import System, new_id, served, sha256


@dataclass(frozen=True)
class KeysWithRoles:
    """The port `ApiKeyReads`, with a role for some keys."""

    keys: ApiKeyReads
    roles: Mapping[str, Role]
    """By the hash of the key."""

    async def owners(self, sha256s: Sequence[str]) -> dict[str, KeyOwner]:
        found = await self.keys.owners(sha256s)
        return {digest: replace(owner, role=self.roles.get(digest, owner.role)) for digest, owner in found.items()}


@dataclass(frozen=True)
class ServerOfRoles:
    url: str
    keys: Mapping[Role, str]


@asynccontextmanager
async def with_roles(system: System, tenant_id: UUID = DEFAULT_TENANT_ID) -> AsyncIterator[ServerOfRoles]:
    """The same server once more, on an address of its own, and with a key of each role."""
    keys = {role: f"key-of-{role}-{new_id()}" for role in Role}
    issue = [
        IssueApiKey(tenant_id=tenant_id, key_id=new_id(), label=f"test {role}", sha256=sha256(key)) for role, key in keys.items()
    ]
    for command in issue:
        await system.command(command, tenant_id=tenant_id)
    await system.settled()
    roles = {sha256(key): role for role, key in keys.items()}
    reads = replace(system.container.reads, keys=KeysWithRoles(system.container.reads.keys, roles))
    async with served(replace(system.container, reads=reads)) as url:
        yield ServerOfRoles(url, keys)
