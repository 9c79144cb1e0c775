"""A process of the api, as far as workflows go, over the ports in memory."""

from typing import Any
from uuid import UUID

from adapters.expressions.evaluator import CelExpressions
from application.catalog import CATALOG
from application.engine.commands.request import CommandOutcome, CommandRequest
from application.plans.check import PlanChecks
from application.runs.terms import NO_TERMS, Terms
from application.workflows import AskedWorkflow, WorkflowChanges, Workflows
from domain import agents, runs
from domain.kernel import Json
from domain.plans import Plan, sequential
from domain.projects import default_project_id
from domain.workflows import (
    DeprecateWorkflow,
    DraftWorkflow,
    WorkflowDefinition,
    WorkflowPublished,
    workflow_id_of,
)
from tests.kit.engine import Engine
from tests.kit.memory import MemoryNames
from tests.kit.waiting import TENANT, new_id, request_of


class MemoryVersions:
    """Implements `StoredVersions`, of a read model that may stand still."""

    def __init__(self, engine: Engine) -> None:
        self._log = engine.log
        self.asked: list[int] = []
        self.is_behind = False

    async def definition(self, tenant_id: UUID, workflow_id: UUID, version: int) -> Json | None:
        self.asked.append(version)
        for event in () if self.is_behind else self._log.streams.get(workflow_id, ()):
            said = CATALOG.registry.decoded(event)
            if isinstance(said, WorkflowPublished) and said.version == version and event.tenant_id == tenant_id:
                return said.definition
        return None

    async def names(self, tenant_id: UUID) -> list[str]:
        found = [CATALOG.registry.decoded(e) for e in self._log.events if e.topic == WorkflowPublished.TOPIC]
        return sorted({event.name for event in found if isinstance(event, WorkflowPublished)})


class Process:
    """A process of the api, as far as workflows go."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.stored = MemoryVersions(engine)
        self.workflows = Workflows(engine.commands, self.stored)
        self.changes = WorkflowChanges(engine.commands, self.workflows, PlanChecks(CelExpressions(), frame=WorkflowDefinition))

    def another(self) -> "Process":
        return Process(self.engine.another())

    async def publish(self, name: str = "digest", **said: Any) -> CommandOutcome:
        definition = WorkflowDefinition(**{"plan": sequential(("alpha",))} | said)
        return await self.changes.publish(request_of(), name, definition, None, None)

    async def start(
        self, name: str = "digest", version: int | None = None, *, run_id: UUID | None = None,
        request: CommandRequest | None = None, terms: Terms = NO_TERMS, **said: Any,
    ) -> UUID:  # fmt: skip
        run_id = run_id or new_id()
        outcome = await self.workflows.start(
            request or request_of(command_id=run_id, repeatable=True), AskedWorkflow(name, version, **said), run_id=run_id,
            project_id=default_project_id(TENANT), known=MemoryNames(self.engine.log, agents.AgentRegistered),
            admission=self.engine.admission, terms=terms,
        )  # fmt: skip
        return outcome.begun(run_id)[0]

    def deadline(self, run_id: UUID) -> float | None:
        events = map(CATALOG.registry.decoded, self.engine.log.streams[run_id])
        return next((event.deadline_s for event in events if isinstance(event, runs.DeadlineSet)), None)

    async def start_plan(self, plan: Plan, run_id: UUID) -> UUID:
        outcome = await self.workflows.start_plan(
            request_of(command_id=run_id, repeatable=True), run_id=run_id, project_id=default_project_id(TENANT), plan=plan,
            input=None, metadata={}, priority="normal", compensate="never",
            known=MemoryNames(self.engine.log, agents.AgentRegistered), admission=self.engine.admission,
        )  # fmt: skip
        return outcome.begun(run_id)[0]

    def started(self, run_id: UUID) -> runs.RunStarted:
        event = CATALOG.registry.decoded(self.engine.log.streams[run_id][0])
        assert isinstance(event, runs.RunStarted)
        return event

    async def deprecate(self, version: int | None = None, name: str = "digest") -> None:
        await self.engine.give(DeprecateWorkflow(workflow_id=workflow_id_of(TENANT, name), name=name, version=version))

    async def draft(self, name: str = "digest", **said: Any) -> None:
        definition = WorkflowDefinition(**{"plan": sequential(("alpha",))} | said)
        await self.engine.give(DraftWorkflow(workflow_id=workflow_id_of(TENANT, name), name=name, definition=definition))
