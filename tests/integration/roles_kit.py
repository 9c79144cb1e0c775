"""A key of every role."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from uuid import UUID

from application.audit import RefusalCounter
from domain.access import Role
from domain.tenants import DEFAULT_TENANT_ID, IssueApiKey
from tests.integration.system_kit import System, new_id, served, sha256


@dataclass(frozen=True)
class ServerOfRoles:
    url: str
    keys: Mapping[Role, str]


@asynccontextmanager
async def with_roles(system: System, tenant_id: UUID = DEFAULT_TENANT_ID) -> AsyncIterator[ServerOfRoles]:
    """The same server once more, on an address of its own, and with a key of each role.

    It records the refused requests when it stops: else they would come into the log at any moment of a test.
    """
    keys = {role: f"key-of-{role}-{new_id()}" for role in Role}
    for role, key in keys.items():
        issue = IssueApiKey(tenant_id=tenant_id, key_id=new_id(), label=f"test {role}", sha256=sha256(key), role=role)
        await system.command(issue, tenant_id=tenant_id)
    await system.settled()
    refusals = RefusalCounter(system.container.commands, every_s=3600)
    try:
        async with served(replace(system.container, refusals=refusals)) as url:
            yield ServerOfRoles(url, keys)
    finally:
        await refusals.close()
