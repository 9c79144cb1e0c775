"""What changes workflows: drafts, new versions, going back to an older one."""

from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandOutcome, CommandRequest
from application.plans.check import PlanChecks
from application.workflows.checking import check_definition
from application.workflows.start import Workflows
from application.workflows.versions import definition_of
from domain.errors import NotFound
from domain.workflows import (
    DECIDER,
    PublishWorkflow,
    Workflow,
    WorkflowDefinition,
    no_version,
    no_workflow,
    workflow_id_of,
)


class WorkflowChanges:
    def __init__(self, commands: CommandLoop, workflows: Workflows, checks: PlanChecks) -> None:
        self._commands = commands
        self._workflows = workflows
        self._checks = checks

    async def publish(
        self, request: CommandRequest, name: str, definition: WorkflowDefinition, note: str | None, expected_version: int | None
    ) -> CommandOutcome:
        """A new version, which is the current one from then on. Nothing, if the current version says the same.

        Raises InvalidCommand, whose `faults` are all that is wrong with the definition; VersionConflict, Unavailable.
        """
        await check_definition(self._workflows, self._checks, request.tenant_id, name, definition)
        command = PublishWorkflow(workflow_id=workflow_id_of(request.tenant_id, name), name=name, definition=definition, note=note)
        return await self._commands.execute(request, command, expected_version=expected_version)

    async def publish_draft(
        self, request: CommandRequest, name: str, note: str | None, expected_version: int | None
    ) -> CommandOutcome:
        """The draft becomes a version. Raises NotFound, InvalidState without a draft, and as `publish`."""
        workflow = await self._load(request.tenant_id, name)
        definition = None
        if workflow.draft is not None:
            definition = definition_of(name, workflow.draft.definition)
            await check_definition(self._workflows, self._checks, request.tenant_id, name, definition)
        command = PublishWorkflow(
            workflow_id=workflow_id_of(request.tenant_id, name), name=name, definition=definition, of_draft=True, note=note
        )
        return await self._commands.execute(request, command, expected_version=expected_version)

    async def revert(
        self, request: CommandRequest, name: str, version: int, note: str | None, expected_version: int | None
    ) -> CommandOutcome:
        """What an older version says becomes a new version. Raises NotFound, and as `publish`."""
        definition = await self.definition(request.tenant_id, name, version)
        await check_definition(self._workflows, self._checks, request.tenant_id, name, definition)
        command = PublishWorkflow(
            workflow_id=workflow_id_of(request.tenant_id, name), name=name, definition=definition, note=note, reverted_from=version
        )
        return await self._commands.execute(request, command, expected_version=expected_version)

    async def definition(self, tenant_id: UUID, name: str, version: int | None) -> WorkflowDefinition:
        """What a version says. `version`: None for the draft. Raises NotFound."""
        workflow = await self._load(tenant_id, name)
        if not workflow.is_there:
            raise no_workflow(name)
        if version is None:
            if workflow.draft is None:
                raise NotFound(f"workflow '{name}' has no draft")
            return definition_of(name, workflow.draft.definition)
        if not 1 <= version <= workflow.versions:
            raise no_version(name, version)
        return await self._workflows.versions.definition(tenant_id, workflow, name, version)

    async def current(self, tenant_id: UUID, name: str) -> Workflow:
        """The workflow as the log has it. Raises NotFound."""
        workflow = await self._load(tenant_id, name)
        if not workflow.is_there:
            raise no_workflow(name)
        return workflow

    async def _load(self, tenant_id: UUID, name: str) -> Workflow:
        workflow: Workflow = (await self._commands.load(DECIDER, tenant_id, workflow_id_of(tenant_id, name))).state
        return workflow
