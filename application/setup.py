"""The first content of a fresh installation: the default tenant, its default project, and an API key."""

from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandRequest
from domain.kernel import Command, derive_id
from domain.projects import CreateProject, default_project_id
from domain.tenants import DEFAULT_TENANT_ID, CreateTenant, IssueApiKey


async def set_up(commands: CommandLoop, *, key_sha256: str | None) -> int:
    """Creates the missing content and issues the key with this hash. Returns the position from which on the key can be used."""
    tenant_id = DEFAULT_TENANT_ID
    wanted: list[tuple[str, Command]] = [
        ("setup:tenant", CreateTenant(tenant_id=tenant_id, name="default")),
        ("setup:project", CreateProject(project_id=default_project_id(tenant_id), name="default")),
    ]
    if key_sha256 is not None:
        key_id = derive_id(tenant_id, f"key:{key_sha256}")
        issue = IssueApiKey(tenant_id=tenant_id, key_id=key_id, label="development", sha256=key_sha256)
        wanted.append((f"setup:key:{key_sha256}", issue))
    position = 0
    for name, command in wanted:
        outcome = await commands.execute(_request(tenant_id, name), command)
        position = max(position, outcome.position)
    return position


def _request(tenant_id: UUID, name: str) -> CommandRequest:
    command_id = derive_id(tenant_id, name)
    return CommandRequest(tenant_id, "system", command_id, command_id, name)
