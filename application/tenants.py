"""API keys of a tenant: issue, rotate, revoke. The secret of a key comes into none of these."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandOutcome, CommandRequest
from domain import tenants
from domain.errors import NotFound
from domain.projects import DECIDER as PROJECTS
from domain.projects import Project, UnknownProject
from domain.tenants import RevokeApiKey


def present() -> datetime:
    """The time that comes with a command."""
    return datetime.now(UTC)


async def revoke_key(commands: CommandLoop, request: CommandRequest, command: RevokeApiKey) -> CommandOutcome:
    """Revokes a key. A key that was revoked before stays so. Raises NotFound for a key that the tenant does not have."""
    outcome = await commands.execute(request, command)
    if not outcome.events and not outcome.duplicate:
        loaded = await commands.load(tenants.DECIDER, command.tenant_id, command.tenant_id, fresh=False)
        if command.key_id not in loaded.state.revoked:
            raise no_key(command.key_id)
    return outcome


async def must_be_projects(commands: CommandLoop, tenant_id: UUID, projects: Sequence[UUID]) -> None:
    """Raises UnknownProject for the first one that the tenant does not have, or that was removed."""
    for number, project_id in enumerate(projects):
        project: Project = (await commands.load(PROJECTS, tenant_id, project_id)).state
        if project.created is None or project.removed:
            raise UnknownProject(f"there is no project {project_id}", pointer=f"/projects/{number}")


def no_key(key_id: UUID) -> NotFound:
    return NotFound(f"there is no key {key_id}")
