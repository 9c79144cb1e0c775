"""The first content of a fresh installation: the default tenant, its default project, and API keys. Also of a further tenant."""

from uuid import UUID

import structlog

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandRequest
from domain.access import Role
from domain.errors import InvalidState
from domain.kernel import Command, derive_id
from domain.projects import CreateProject, default_project_id
from domain.tenants import DEFAULT_TENANT_ID, CreateTenant, IssueApiKey

log = structlog.get_logger(__name__)


async def set_up(
    commands: CommandLoop, *, key_sha256: str | None, worker_key_sha256: str | None = None, builtin_key_sha256: str | None = None
) -> int:
    """Creates the missing content of the default tenant, and issues the keys with these hashes: one of an owner, two of workers.
    Returns the position from which on the keys can be used.

    A hash may have the id of the key in front: `<key id>:<sha256>`. A key that was revoked stays revoked.
    """
    tenant_id, position = DEFAULT_TENANT_ID, 0
    for name, command in _begin(tenant_id, "default"):
        position = max(position, (await commands.execute(_request(tenant_id, name), command)).position)
    wanted = (
        (key_sha256, "development", Role.OWNER),
        (worker_key_sha256, "worker of this server", Role.WORKER),
        (builtin_key_sha256, "worker of this server for tools that are data", Role.WORKER),
    )
    for given, label, role in wanted:
        if given is not None:
            key_id, _, sha256 = given.rpartition(":")
            issue = IssueApiKey(
                tenant_id=tenant_id,
                key_id=UUID(key_id) if key_id else derive_id(tenant_id, f"key:{sha256}"),
                label=label,
                sha256=sha256,
                role=role,
            )
            try:
                outcome = await commands.execute(_request(tenant_id, f"setup:key:{sha256}"), issue)
            except InvalidState as refused:
                log.warning("key_not_issued", label=label, key_id=str(issue.key_id), reason=refused.message)
            else:
                position = max(position, outcome.position)
    return position


async def create_tenant(commands: CommandLoop, tenant_id: UUID, name: str, key_id: UUID, key_sha256: str) -> int:
    """Creates a tenant with its default project and its first key, which is one of an owner. Returns its last position."""
    issue = IssueApiKey(tenant_id=tenant_id, key_id=key_id, label="first key", sha256=key_sha256)
    steps = [*_begin(tenant_id, name), ("setup:key", issue)]
    return max([(await commands.execute(_request(tenant_id, name), command)).position for name, command in steps])


def _begin(tenant_id: UUID, name: str) -> list[tuple[str, Command]]:
    return [
        ("setup:tenant", CreateTenant(tenant_id=tenant_id, name=name)),
        ("setup:project", CreateProject(project_id=default_project_id(tenant_id), name="default")),
    ]


def _request(tenant_id: UUID, name: str) -> CommandRequest:
    command_id = derive_id(tenant_id, name)
    return CommandRequest(tenant_id, "system", command_id, command_id, name)
