"""Workflows as those who check plans see them."""

from collections.abc import Sequence
from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.plans.registry import FoundWorkflow
from application.suggestions import KnownNames
from application.workflows.looking import look_to_start
from application.workflows.versions import Versions
from domain.errors import DomainError
from domain.workflows import DECIDER, Workflow, workflow_id_of


class WorkflowsOfPlans:
    """Implements `application.plans.registry.WorkflowLookup`."""

    def __init__(self, commands: CommandLoop, versions: Versions, known: KnownNames) -> None:
        self._commands = commands
        self._versions = versions
        self._known = known

    async def found(self, tenant_id: UUID, name: str, version: int | None) -> FoundWorkflow | None:
        try:
            workflow, chosen, _ = await look_to_start(self._commands, tenant_id, name, version, fresh=False)
            definition = await self._versions.definition(tenant_id, workflow, name, chosen)
        except DomainError as error:
            loaded = await self._commands.load(DECIDER, tenant_id, workflow_id_of(tenant_id, name), fresh=False)
            state: Workflow = loaded.state
            return FoundWorkflow(error.message) if state.is_there else None
        plan = definition.plan.model_dump(mode="json", exclude_defaults=True)
        return FoundWorkflow(None, definition.parameters, plan, chosen)

    async def names(self, tenant_id: UUID) -> Sequence[str]:
        return await self._known.names(tenant_id)
