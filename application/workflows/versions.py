"""The definitions of published versions. A version never changes, so a process reads each of them once."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Protocol
from uuid import UUID

from pydantic import ValidationError

from application.engine.commands.loop import CommandLoop
from domain.errors import Unavailable
from domain.kernel import Json
from domain.workflows import Workflow, WorkflowDefinition, WorkflowPublished, no_version, workflow_id_of

KEPT_STEPS = 5_000
"""Steps of all definitions that are kept. A definition counts one more than its plan has steps."""


class StoredVersions(Protocol):
    async def definition(self, tenant_id: UUID, workflow_id: UUID, version: int) -> Json | None:
        """What a version says, from a read model, which may not have the version yet: None. Raises Unavailable."""
        ...

    async def names(self, tenant_id: UUID) -> Sequence[str]:
        """The names of the workflows, a bounded number of them. Raises Unavailable."""
        ...


class Versions:
    def __init__(self, commands: CommandLoop, stored: StoredVersions) -> None:
        self._commands = commands
        self._stored = stored
        self._kept: OrderedDict[tuple[UUID, int], WorkflowDefinition] = OrderedDict()
        self._steps = 0

    async def definition(self, tenant_id: UUID, workflow: Workflow, name: str, version: int) -> WorkflowDefinition:
        """What a version says. `workflow`: the state of its stream.

        Raises NotFound; Unavailable also for a definition of a later release.
        """
        workflow_id = workflow_id_of(tenant_id, name)
        kept = self._kept.get((workflow_id, version))
        if kept is not None:
            self._kept.move_to_end((workflow_id, version))
            return kept
        if workflow.current is not None and workflow.current.version == version:
            found = workflow.current.definition
        else:
            found = await self._stored.definition(tenant_id, workflow_id, version)
            if found is None:  # the read model is behind, or is being rebuilt
                found = await self._from_log(tenant_id, workflow_id, name, version)
        return self._keep((workflow_id, version), definition_of(name, found))

    async def _from_log(self, tenant_id: UUID, workflow_id: UUID, name: str, version: int) -> Json:
        for recorded in await self._commands.history(tenant_id, workflow_id):
            if recorded.topic == WorkflowPublished.TOPIC:
                published = self._commands.registry.decoded(recorded)
                if isinstance(published, WorkflowPublished) and published.version == version:
                    return published.definition
        raise no_version(name, version)

    def _keep(self, key: tuple[UUID, int], definition: WorkflowDefinition) -> WorkflowDefinition:
        self._kept[key] = definition
        self._steps += _cost(definition)
        while self._steps > KEPT_STEPS and len(self._kept) > 1:
            self._steps -= _cost(self._kept.popitem(last=False)[1])
        return definition

    def kept(self) -> Iterator[tuple[UUID, int]]:
        return iter(self._kept)


def definition_of(name: str, stored: Json) -> WorkflowDefinition:
    """A stored definition. Raises Unavailable for one that this release does not read: it is of a later one."""
    try:
        return WorkflowDefinition.model_validate(stored)
    except ValidationError as error:
        raise Unavailable(f"this process cannot read the definition of the workflow '{name}': it is of a later release") from error


def _cost(definition: WorkflowDefinition) -> int:
    return 1 + len(definition.plan.steps)
