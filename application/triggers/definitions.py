"""What people make of triggers: all faults of a definition at once, and the commands."""

from collections.abc import Collection, Sequence
from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandOutcome, CommandRequest
from application.engine.ports.expressions import Expressions
from application.starting import START, plan_of
from application.suggestions import did_you_mean
from application.triggers.occurrences import OF_EVENTS, OF_HOOKS
from domain.errors import InvalidCommand, NotFound
from domain.event_registry import EventRegistry
from domain.projects import DECIDER as PROJECTS
from domain.projects import Project, UnknownProject, UseProject, default_project_id
from domain.triggers import DECIDER, ChangeTrigger, CreateTrigger, Trigger, TriggerDefinition, bounds_of, trigger_id_of

Fault = tuple[str, str]
"""JSON Pointer of a place in a definition, and what is wrong there."""


def no_trigger(name: str) -> NotFound:
    return NotFound(f"there is no trigger '{name}'")


class TriggerChecks:
    """Checks definitions."""

    def __init__(self, registry: EventRegistry, expressions: Expressions) -> None:
        self._registry = registry
        self._expressions = expressions

    def faults_of(self, definition: TriggerDefinition) -> list[Fault]:
        faults: list[Fault] = []
        variables: Collection[str] = OF_HOOKS if definition.on is None else OF_EVENTS
        place = "/hook/when" if definition.on is None else "/on/when"
        source = definition.on or definition.hook
        if definition.on is not None:
            for number, topic in enumerate(definition.on.topics):
                if topic not in self._registry.events:
                    meant = did_you_mean(topic, self._registry.events)
                    faults.append((f"/on/topics/{number}", f"there is no event type '{topic}'{meant}"))
            for number, name in enumerate(definition.on.slices):
                if name not in self._registry.slices:
                    meant = did_you_mean(name, self._registry.slices)
                    faults.append((f"/on/slices/{number}", f"there is no slice '{name}'{meant}"))
        expressions = {f"{START}{place}": text for place, text in definition.start.expressions.items()}
        if source is not None and source.when is not None:
            expressions[place] = source.when
        for where, text in expressions.items():
            fault = self._expressions.look(text, variables).fault
            if fault is not None:
                faults.append((where, fault))
        if definition.start.plan is not None:
            try:
                plan_of(definition.start)
            except InvalidCommand as error:
                faults += error.faults
        return faults

    def check(self, definition: TriggerDefinition) -> None:
        """Raises InvalidCommand, which has all faults."""
        must_have_none(self.faults_of(definition))


def must_have_none(faults: Sequence[Fault]) -> None:
    """Raises InvalidCommand, which has all faults."""
    if faults:
        (place, text), more = faults[0], len(faults) - 1
        raise InvalidCommand(f"{place}: {text}" + (f" (and {more} more)" if more else ""), pointer=place, faults=faults)


async def define(
    commands: CommandLoop, request: CommandRequest, command: CreateTrigger | ChangeTrigger, *, version: int | None = None
) -> CommandOutcome:
    """Creates or changes a trigger whose definition was checked.

    Raises UnknownProject, AlreadyExists, NotFound, InvalidState; VersionConflict where the stream is not at `version`.
    """
    definition, default = command.definition, default_project_id(request.tenant_id)
    named = {"/on/project_id": definition.on.project_id} if definition.on is not None else {}
    for place, project_id in {**named, "/project_id": definition.project_id}.items():
        if project_id in (None, default):
            continue
        project: Project = (await commands.load(PROJECTS, request.tenant_id, project_id)).state
        if project.created is None or project.removed:
            raise UnknownProject(f"there is no project {project_id}", pointer=place)
    needed = () if definition.project_id == default else (UseProject(project_id=definition.project_id),)
    return await commands.execute(request, command, *needed, expected_version=version)


async def load_trigger(
    commands: CommandLoop, tenant_id: UUID, name: str, within: Collection[UUID] | None
) -> tuple[Trigger, int]:  # fmt: skip
    """A trigger as the log has it, and the version of its stream.

    `within`: the only projects of the caller. Raises NotFound: there is none, or it is of another project.
    """
    loaded = await commands.load(DECIDER, tenant_id, trigger_id_of(tenant_id, name))
    trigger: Trigger = loaded.state
    if not trigger.exists or (within is not None and not is_seen(trigger, within)):
        raise no_trigger(name)
    return trigger, loaded.version


def is_seen(trigger: Trigger, projects: Collection[UUID]) -> bool:
    """Whether a key that is narrowed to projects sees a trigger: one of theirs, to which no event of another project is shown."""
    bounds = bounds_of(trigger.definition, trigger.within)
    return UUID(trigger.definition["project_id"]) in projects and bounds is not None and set(bounds) <= set(projects)
