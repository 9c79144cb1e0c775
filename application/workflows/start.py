"""Starts by name: which plan a run of a workflow gets, with what input, and what it has unless the start says others."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from application.budgets.books import given_budget
from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandOutcome, CommandRequest
from application.plans.capabilities import KnownAgents
from application.runs.admission import RunAdmission
from application.runs.keys import key_of_run
from application.runs.start import check_repeat, check_terms, first_answer, start_run
from application.runs.terms import NO_TERMS, Terms
from application.suggestions import did_you_mean, names_of
from application.workflows.asked_agents import with_asked_agents
from application.workflows.children import Children, PlanWithChildren
from application.workflows.looking import look_to_start
from application.workflows.lookup import WorkflowsOfPlans
from application.workflows.versions import StoredVersions, Versions
from domain import runs
from domain.concurrency import Concurrency
from domain.errors import DomainError, InvalidCommand, NotFound, Unavailable
from domain.kernel import Command, Json, Priority
from domain.workflows import DECIDER, Compensate, UnknownWorkflow, WorkflowChanged, WorkflowDefinition, defaults_of, workflow_id_of
from domain.written_budgets import WrittenBudget

if TYPE_CHECKING:
    from application.tool_schemas import ToolSchemas

MOST_LOOKS = 5
"""Looks at workflows that others change meanwhile."""
MOST_TOLD = 10
"""Faults in the text of a refusal. The list beside it has all of them."""


class StartOfWorkflow(NamedTuple):
    """What `application.runs.start.start_run` is given for a run of a workflow."""

    plan: runs.Plan
    """As the workflow has it."""
    with_children: runs.Plan
    """With the plans of its child workflows. The same object where it has none."""
    input: Json
    """Checked against the parameters of the workflow, with their defaults."""
    priority: Priority
    compensate: Compensate
    deadline_s: float | None
    metadata: dict[str, Json]
    workflow: runs.WorkflowRef
    budget: WrittenBudget | None
    """What the workflow says that its runs may spend."""
    concurrency: Concurrency | None
    conditions: tuple[Command, ...]
    """Go into the append of the start: it holds only while the workflows are as they were looked at (WorkflowChanged: look again,
    `fresh`)."""


class AskedWorkflow(NamedTuple):
    """What somebody who starts a workflow says."""

    name: str
    version: int | None = None
    """None: the current one."""
    input: Json = None
    priority: Priority | None = None
    """None: that of the workflow; so for the next two. Of the metadata, name by name."""
    compensate: Compensate | None = None
    metadata: Mapping[str, Json] | None = None


class Workflows:
    """For every way to start a workflow: a request, a schedule, a trigger, a slash command."""

    def __init__(self, commands: CommandLoop, stored: StoredVersions) -> None:
        self.commands = self._commands = commands
        self._stored = stored
        self._schemas: ToolSchemas | None = None
        self.versions = Versions(commands, stored)
        self.children = Children(commands, self.versions)
        self.lookup = WorkflowsOfPlans(commands, self.versions, stored)

    @property
    def schemas(self) -> "ToolSchemas":
        if self._schemas is None:
            from application.tool_schemas import ToolSchemas  # its library is large, and not every process starts workflows

            self._schemas = ToolSchemas()
        return self._schemas

    async def resolved(self, tenant_id: UUID, asked: AskedWorkflow, *, fresh: bool = False) -> StartOfWorkflow:
        """Name, version and input → what a run starts with. It appends nothing.

        `fresh`: the log is asked what the workflow is now. Without it a state that this process has seen is good enough: the
        conditions tell.

        Raises:
            UnknownWorkflow: its pointer is `/workflow`.
            DeprecatedWorkflow: the workflow or the version is deprecated. The text names a version that may be used.
            InvalidChild: a child workflow cannot be started.
            InvalidCommand: the input does not fit the parameters. `faults` has the pointers, which begin with `/input`.
            Unavailable
        """
        try:
            workflow, version, use = await look_to_start(self._commands, tenant_id, asked.name, asked.version, fresh=fresh)
        except DomainError as error:
            error.pointer = "/workflow"
            if isinstance(error, UnknownWorkflow) and error.is_unknown_name:
                error.message += did_you_mean(asked.name, await names_of(self._stored, tenant_id))
            raise
        definition = await self.versions.definition(tenant_id, workflow, asked.name, version)
        whole = await self.children.resolved(tenant_id, definition.plan, of=asked.name, fresh=fresh)
        return self._start_of(asked, version, definition, whole)._replace(conditions=(use, *whole.conditions))

    def _start_of(
        self, asked: AskedWorkflow, version: int, definition: WorkflowDefinition, whole: PlanWithChildren
    ) -> StartOfWorkflow:
        input = self.checked_input(asked.name, definition.parameters, asked.input)
        named = {} if definition.command is None else definition.command.agents
        return StartOfWorkflow(
            plan=with_asked_agents(definition.plan, named, input),
            with_children=with_asked_agents(whole.plan, named, input),
            input=input,
            priority=asked.priority or definition.priority,
            compensate=asked.compensate or definition.compensate,
            deadline_s=definition.deadline_s,
            metadata={**definition.metadata, **(asked.metadata or {})},
            workflow=runs.WorkflowRef(name=asked.name, version=version),
            budget=definition.budget,
            concurrency=definition.concurrency,
            conditions=(),
        )

    def checked_input(self, name: str, parameters: Json, input: Json) -> Json:
        """The input with the defaults of the parameters. Raises InvalidCommand, which has a pointer to each fault."""
        if parameters is None:
            return input
        whole = with_defaults(parameters, input)
        faults = [(f"/input{place}", text) for place, text in self.schemas.faults_of(parameters, whole)[0]]
        if faults:
            told = "; ".join(f"{place}: {text}" for place, text in faults[:MOST_TOLD])
            more = "; and more" if len(faults) > MOST_TOLD else ""
            raise InvalidCommand(f"input of workflow '{name}': {told}{more}", pointer=faults[0][0], faults=faults)
        return whole

    async def start(
        self,
        request: CommandRequest,
        asked: AskedWorkflow,
        *,
        run_id: UUID,
        project_id: UUID,
        origin: runs.Origin | None = None,
        terms: Terms = NO_TERMS,
        budget: runs.RunBudget | None = None,
        known: KnownAgents,
        admission: RunAdmission,
    ) -> CommandOutcome:
        """Starts a run of a workflow. A repeat gets its first answer, also if the workflow has changed since.

        Raises as `resolved` and `application.runs.start.start_run`.
        """
        for look in range(MOST_LOOKS):
            try:
                start = await self.resolved(request.tenant_id, asked, fresh=look > 0)
                own = budget or await self.budget_of(request.tenant_id, start)
                return await start_run(
                    self._commands, request, run_id=run_id, project_id=project_id, plan=start.plan,
                    with_children=start.with_children, input=start.input, metadata=start.metadata, priority=start.priority,
                    compensate=start.compensate, workflow=start.workflow, origin=origin, budget=own, conditions=start.conditions,
                    terms=_with_terms(terms, start), known=known, admission=admission,
                )  # fmt: skip
            except WorkflowChanged:  # this process had not heard of it
                continue
            except DomainError:
                repeated = await self._repeated(request, asked, run_id, project_id, budget, terms)
                if repeated is None:
                    raise
                return repeated
        raise Unavailable(f"the workflow '{asked.name}' is being changed: try again")

    async def budget_of(self, tenant_id: UUID, start: StartOfWorkflow) -> runs.RunBudget | None:
        """What the workflow lets a run of it spend. None: it says nothing. Raises Unavailable."""
        return await given_budget(self._commands, tenant_id, start.budget, of=f"workflow:{start.workflow.name}")

    async def start_plan(
        self,
        request: CommandRequest,
        *,
        run_id: UUID,
        project_id: UUID,
        plan: runs.Plan,
        input: Json,
        metadata: dict[str, Json],
        priority: Priority,
        compensate: Compensate,
        origin: runs.Origin | None = None,
        terms: Terms = NO_TERMS,
        budget: runs.RunBudget | None = None,
        known: KnownAgents,
        admission: RunAdmission,
    ) -> CommandOutcome:
        """As `start_run`, of a plan that may have child workflows."""
        for look in range(MOST_LOOKS):
            whole = await self.children.resolved(request.tenant_id, plan, fresh=look > 0)
            try:
                return await start_run(
                    self._commands, request, run_id=run_id, project_id=project_id, plan=plan, with_children=whole.plan,
                    input=input, metadata=metadata, priority=priority, compensate=compensate, origin=origin, budget=budget,
                    conditions=whole.conditions, terms=terms, known=known, admission=admission,
                )  # fmt: skip
            except WorkflowChanged:
                continue
        raise Unavailable("the workflows of the plan are being changed: try again")

    async def _repeated(
        self, request: CommandRequest, asked: AskedWorkflow, run_id: UUID, project_id: UUID, budget: runs.RunBudget | None,
        terms: Terms,
    ) -> CommandOutcome | None:  # fmt: skip
        """The first answer of a start that was recorded before, and that the workflow of now would refuse. None: it was not.

        Raises StartedDifferently, RepeatedDifferently.
        """
        recorded = await self._commands.recorded(request) or await first_answer(self._commands, request, run_id)
        if recorded is None or not recorded.recorded:
            return None
        first = self._commands.registry.decoded(recorded.recorded[0])
        if not isinstance(first, runs.RunStarted) or first.workflow is None or first.workflow.name != asked.name:
            return None
        if asked.version not in (None, first.workflow.version):
            return None
        start = await self._as_then(request.tenant_id, asked, first.workflow.version)
        wanted = _with_terms(terms, start).concurrency
        command = runs.StartRun(
            run_id=run_id, project_id=project_id, plan=start.plan, input=start.input, metadata=start.metadata,
            priority=start.priority, compensate=start.compensate, workflow=start.workflow, budget=budget,
            concurrency=None if wanted is None else key_of_run(request.tenant_id, project_id, wanted, request.on_behalf_of),
        )  # fmt: skip
        check_repeat(request, command, start.plan, recorded.recorded[0], first)
        check_terms(_with_terms(terms, start), run_id, [self._commands.registry.decoded(one) for one in recorded.recorded])
        return recorded

    async def _as_then(self, tenant_id: UUID, asked: AskedWorkflow, version: int) -> StartOfWorkflow:
        """The start of a version, whether it is deprecated by now or not."""
        loaded = await self._commands.load(DECIDER, tenant_id, workflow_id_of(tenant_id, asked.name), fresh=False)
        try:
            definition = await self.versions.definition(tenant_id, loaded.state, asked.name, version)
        except NotFound as error:
            raise UnknownWorkflow(error.message, pointer="/workflow") from error
        return self._start_of(asked, version, definition, PlanWithChildren(definition.plan))


def _with_terms(terms: Terms, start: StartOfWorkflow) -> Terms:
    """The terms with the deadline and the key of the workflow, if they say no others."""
    deadline_s = start.deadline_s if terms.deadline_s is None else terms.deadline_s
    return Terms(deadline_s, start.concurrency if terms.concurrency is None else terms.concurrency)


def with_defaults(parameters: Json, input: Json) -> Json:
    """The input with the defaults of the properties at the top level that it does not have. No input at all counts as `{}`."""
    properties = parameters.get("properties") if isinstance(parameters, dict) else None
    if not isinstance(properties, dict) or not (input is None or isinstance(input, dict)):
        return input
    given: dict[str, Json] = input or {}
    missing = {name: value for name, value in defaults_of(parameters).items() if name not in given}
    return {**given, **missing} if missing or input is None else input
