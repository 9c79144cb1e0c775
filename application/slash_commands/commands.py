"""The slash commands of a tenant: the shipped ones, and the tenant's own, which are workflows with a `command`.

An own workflow with the name of a shipped command goes in front of it, until it is deprecated. `/query` is always the shipped one.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol
from uuid import UUID

from application.budgets.books import given_budget
from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandOutcome, CommandRequest
from application.engine.ports.pages import Page, encode_cursor
from application.plans.capabilities import KnownAgents
from application.reads import Positioned
from application.runs.admission import RunAdmission
from application.runs.start import UnknownAgent, check_repeat, first_answer, start_run
from application.runs.terms import NO_TERMS, Terms
from application.slash_commands import filters
from application.slash_commands.line import BadLine, CommandLine, shown
from application.slash_commands.parameters import input_of
from application.slash_commands.templates import templates
from application.suggestions import did_you_mean, names_of
from application.views.slash_commands import CommandDetails, CommandView, OwnCommand
from application.workflows import AskedWorkflow, Workflows
from application.workflows.asked_agents import with_asked_agents
from application.workflows.looking import look_to_start
from application.workflows.written import write_workflow
from domain import runs
from domain.errors import DomainError, InvalidCommand, NotFound, TidelogError
from domain.kernel import Json
from domain.workflows import DECIDER, DeprecatedWorkflow, UnknownWorkflow, WorkflowDefinition, workflow_id_of

MOST_COMPARED = 200
"""Own commands with which a misspelt name is compared."""
CREW = "it is bound to the example agents: start them with `tidelog commands crew ./crew` and `tidelog worker --agents ./crew`"


class OwnCommands(Protocol):
    async def commands(self, tenant_id: UUID, *, limit: int, after: str | None) -> Positioned[Page[OwnCommand]]:
        """Workflows that slash commands start, and that are not deprecated, in the order of their names, after a name."""
        ...


class UnknownSlashCommand(NotFound):
    code = "unknown-command"


class Found(NamedTuple):
    """What a line of a command starts."""

    name: str
    definition: WorkflowDefinition
    version: int | None = None
    """Of an own workflow. None: it is a shipped one."""

    @property
    def text(self) -> str | None:
        return None if self.definition.command is None else self.definition.command.text


class Described(NamedTuple):
    """What a line would start."""

    found: Found
    input: Json
    plan: runs.Plan


class CommandStart(NamedTuple):
    outcome: CommandOutcome
    workflow: runs.WorkflowRef | None
    """None: a shipped command."""
    input: Json


class SlashCommands:
    def __init__(self, commands: CommandLoop, workflows: Workflows, own: OwnCommands) -> None:
        self._commands = commands
        self._workflows = workflows
        self._own = own

    async def found(self, tenant_id: UUID, name: str) -> Found:
        """Raises UnknownSlashCommand, with the commands that may be meant; DeprecatedWorkflow, Unavailable."""
        shipped = templates().get(name)
        try:
            workflow, version, _ = await look_to_start(self._commands, tenant_id, name, None, fresh=False)
            definition = await self._workflows.versions.definition(tenant_id, workflow, name, version)
        except UnknownWorkflow:
            if shipped is not None:
                return Found(name, shipped)
            raise await self._unknown(tenant_id, name) from None
        except DeprecatedWorkflow as error:
            if shipped is not None:
                return Found(name, shipped)
            error.pointer = "/text"
            raise
        if definition.command is not None:
            return Found(name, definition, version)
        if shipped is not None:
            return Found(name, shipped)
        raise UnknownSlashCommand(
            f"the workflow {shown(name)} is no slash command: a version with `command` makes it one", pointer="/text"
        )

    async def _unknown(self, tenant_id: UUID, name: str) -> UnknownSlashCommand:
        names = [*templates(), filters.NAME, *await names_of(_Names(self._own), tenant_id)]
        guess = did_you_mean(name, names) or f": there are {', '.join(f'/{one}' for one in (*templates(), filters.NAME))}"
        more = "" if guess.startswith(";") else ", and the workflows with a `command`"
        return UnknownSlashCommand(f"there is no command {shown('/' + name)}{guess}{more}", pointer="/text")

    async def described(self, tenant_id: UUID, line: CommandLine) -> Described:
        """What a line would start. Raises BadLine, and as `found`."""
        found = await self.found(tenant_id, line.name)
        return self._described(found, line)

    def _described(self, found: Found, line: CommandLine) -> Described:
        """Raises BadLine, with all that does not fit."""
        given = input_of(line, found.text, found.definition.parameters)
        named = {} if found.definition.command is None else found.definition.command.agents
        try:
            input = self._workflows.checked_input(found.name, found.definition.parameters, given)
            return Described(found, input, with_asked_agents(found.definition.plan, named, input))
        except InvalidCommand as error:
            raise BadLine(*_in_line(line, error)) from None

    async def start(
        self,
        request: CommandRequest,
        line: CommandLine,
        *,
        run_id: UUID,
        project_id: UUID,
        terms: Terms = NO_TERMS,
        known: KnownAgents,
        admission: RunAdmission,
    ) -> CommandStart:
        """Starts a run. A repeat gets its first answer, also if the command has changed since.

        Raises BadLine, UnknownAgent, and as `found` and `application.runs.start.start_run`.
        """
        origin = runs.Origin(kind="command", name=line.name)
        try:
            found, input, plan = await self.described(request.tenant_id, line)
            if found.version is not None:
                asked = AskedWorkflow(name=found.name, version=found.version, input=input)
                outcome = await self._workflows.start(
                    request, asked, run_id=run_id, project_id=project_id, origin=origin, terms=terms, known=known,
                    admission=admission,
                )  # fmt: skip
                return CommandStart(outcome, runs.WorkflowRef(name=found.name, version=found.version), input)
            definition = found.definition
            outcome = await start_run(
                self._commands, request, run_id=run_id, project_id=project_id, plan=plan, input=input,
                metadata=dict(definition.metadata), priority=definition.priority, compensate=definition.compensate, origin=origin,
                budget=await given_budget(self._commands, request.tenant_id, definition.budget, of=f"command:{line.name}"),
                terms=terms, known=known, admission=admission,
            )  # fmt: skip
            return CommandStart(outcome, None, input)
        except DomainError as error:
            repeated = await self._repeated(request, line, run_id, project_id)
            if repeated is not None:
                return repeated
            _told_in_line(error, line.name if line.name in templates() else None)
            raise

    async def _repeated(self, request: CommandRequest, line: CommandLine, run_id: UUID, project_id: UUID) -> CommandStart | None:
        """The first answer of a start that was recorded before, and that the command of now would refuse. None: it was not.

        Raises StartedDifferently.
        """
        recorded = await self._commands.recorded(request) or await first_answer(self._commands, request, run_id)
        if recorded is None or not recorded.recorded:
            return None
        first = self._commands.registry.decoded(recorded.recorded[0])
        if not isinstance(first, runs.RunStarted) or first.origin != runs.Origin(kind="command", name=line.name):
            return None
        version = None if first.workflow is None else first.workflow.version
        shipped = templates().get(line.name)
        definition = shipped if version is None else await self._version(request.tenant_id, line.name, version)
        if definition is None:
            return None
        input = self._described(Found(line.name, definition, version), line).input
        command = runs.StartRun(
            run_id=run_id, project_id=project_id, plan=first.plan, input=input, metadata=first.metadata, priority=first.priority,
            compensate=first.compensate, workflow=first.workflow, origin=first.origin, concurrency=first.concurrency,
        )  # fmt: skip
        check_repeat(request, command, first.plan, recorded.recorded[0], first)
        return CommandStart(recorded, first.workflow, input)

    async def _version(self, tenant_id: UUID, name: str, version: int) -> WorkflowDefinition | None:
        loaded = await self._commands.load(DECIDER, tenant_id, workflow_id_of(tenant_id, name), fresh=False)
        try:
            return await self._workflows.versions.definition(tenant_id, loaded.state, name, version)
        except NotFound:
            return None

    # --- which commands there are ---

    async def show(self, tenant_id: UUID, name: str) -> CommandDetails:
        """Raises NotFound, DeprecatedWorkflow, Unavailable."""
        if name == filters.NAME:
            return CommandDetails(**_query().model_dump())
        found = await self.found(tenant_id, name)
        said = write_workflow(found.name, found.definition.said())
        return CommandDetails(**_view(found).model_dump(), definition=said)

    async def list(self, tenant_id: UUID, *, limit: int, after: str | None) -> Positioned[Page[CommandView]]:
        """The commands in the order of their names, after a name."""
        own = await self._own.commands(tenant_id, limit=limit, after=after)
        views = {row.name: _row(row) for row in own.value.data if row.name != filters.NAME}
        last = own.value.data[-1].name if own.value.next_cursor else None
        for shipped in (_query(), *(_view(Found(name, definition)) for name, definition in templates().items())):
            if shipped.name > (after or "") and (last is None or shipped.name <= last):
                views.setdefault(shipped.name, shipped)
        data = [views[name] for name in sorted(views)]
        more = len(data) > limit or last is not None
        return Positioned(Page(data[:limit], encode_cursor(data[:limit][-1].name) if more and data else None), own.position)


class _Names:
    """Names of own commands, as `KnownNames`."""

    def __init__(self, own: OwnCommands) -> None:
        self._own = own

    async def names(self, tenant_id: UUID) -> Sequence[str]:
        return [row.name for row in (await self._own.commands(tenant_id, limit=MOST_COMPARED, after=None)).value.data]


def _view(found: Found) -> CommandView:
    command = found.definition.command
    return CommandView(
        name=found.name,
        help=command.help if command is not None and command.help else found.definition.description,
        kind="run",
        source="shipped" if found.version is None else "workflow",
        workflow_version=found.version,
        text=found.text,
        parameters=found.definition.parameters,
    )


def _row(row: OwnCommand) -> CommandView:
    command: Mapping[str, Json] = row.command if isinstance(row.command, dict) else {}
    definition: Mapping[str, Json] = row.definition if isinstance(row.definition, dict) else {}
    return CommandView(
        name=row.name,
        help=command.get("help") or definition.get("description") or "",
        kind="run",
        source="workflow",
        workflow_version=row.version,
        text=command.get("text"),
        parameters=definition.get("parameters"),
    )


def _query() -> CommandView:
    return CommandView(name=filters.NAME, help=filters.HELP, kind="list", source="shipped", parameters=filters.schema_of_filters())


def _in_line(line: CommandLine, error: TidelogError) -> list[str]:
    """The faults of an input, with the places of the options in the line."""
    places = {f"/input/{option.name.replace('-', '_')}": option for option in line.options}
    told: list[str] = []
    for pointer, text in error.faults or ((error.pointer or "", error.message),):
        option = places.get("/".join(pointer.split("/")[:3]))
        name = pointer.removeprefix("/input").removeprefix("/")
        where = f"'{option.name}' at character {option.at}" if option is not None else f"'{name}'" if name else "the line"
        told.append(f"{where}: {text}")
    return told


def _told_in_line(error: DomainError, shipped: str | None) -> None:
    """A refusal with a pointer into the plan of a command, which is no part of the request."""
    cure = f" (if /{shipped} is the shipped command: {CREW})" if shipped is not None and isinstance(error, UnknownAgent) else ""
    if error.pointer is None or not error.pointer.startswith(("/plan", "/workflow")):
        return
    error.message += cure
    error.faults = tuple(("/text", why + cure) for _, why in error.faults)
    error.pointer = "/text"
