"""A workflow as the log has it, and which version of it a start takes."""

from uuid import UUID

from application.engine.commands.loop import CommandLoop
from domain.errors import DomainError
from domain.workflows import DECIDER, UseWorkflow, Workflow, version_to_start, workflow_id_of


async def look_to_start(
    commands: CommandLoop, tenant_id: UUID, name: str, asked: int | None, *, fresh: bool
) -> tuple[Workflow, int, UseWorkflow]:
    """The workflow, the version with which a run starts, and the condition that the workflow is as it was looked at.

    Raises UnknownWorkflow, DeprecatedWorkflow. Before that the log is asked: another process may have changed the workflow.
    """
    workflow_id = workflow_id_of(tenant_id, name)
    while True:
        workflow: Workflow = (await commands.load(DECIDER, tenant_id, workflow_id, fresh=fresh)).state
        try:
            version = version_to_start(workflow, name, asked)
        except DomainError:
            if fresh:
                raise
            fresh = True
        else:
            return workflow, version, UseWorkflow(workflow_id=workflow_id, name=name, changes=workflow.changes)
