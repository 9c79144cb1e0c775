"""Creating and removing projects."""

from dataclasses import dataclass
from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandOutcome, CommandRequest
from application.engine.ports.log import EventFeed
from application.engine.ports.positions import ConsumerPositions
from application.reads import RunReads, RunsWanted
from domain.errors import InvalidState, RepeatedDifferently
from domain.kernel import same_json
from domain.projects import DECIDER, CreateProject, Project, ProjectCreated, RemoveProject, default_project_id

MOST_NAMED = 5
"""Open runs that a refusal names."""


class ProjectInUse(InvalidState):
    """Runs of the project are open. It was not removed."""

    code = "project-in-use"


async def create_project(commands: CommandLoop, request: CommandRequest, command: CreateProject) -> CommandOutcome:
    """Creates a project. Each request has an id of its own for it: a repeat finds the first one (`CommandOutcome.begun`).

    Raises RepeatedDifferently.
    """
    outcome = await commands.execute(request, command)
    if outcome.duplicate:  # the command loop compares nothing if another release recorded the command
        first = commands.registry.decoded(outcome.recorded[0])
        same = isinstance(first, ProjectCreated) and first.name == command.name and same_json(first.metadata, command.metadata)
        if not same:
            raise RepeatedDifferently("this was recorded before, with another name or other metadata")
    return outcome


@dataclass(frozen=True, slots=True)
class OpenRunsOfProject:
    """Finds the open runs of a project, as of now: the read model of runs is waited for."""

    feed: EventFeed
    positions: ConsumerPositions
    runs: RunReads
    timeout_s: float

    async def first(self, tenant_id: UUID, project_id: UUID, limit: int) -> list[UUID]:
        """Raises ProjectionBehind."""
        await self.positions.until("runs", await self.feed.head(), self.timeout_s)
        found: dict[UUID, None] = {}
        for status in ("queued", "running", "paused", "running"):  # again: one that was resumed between the looks
            listed = await self.runs.list(tenant_id, RunsWanted(limit, status=status, project_id=project_id))
            found |= dict.fromkeys(run.run_id for run in listed.value.data)
        return list(found)[:limit]


async def remove_project(
    commands: CommandLoop, request: CommandRequest, project_id: UUID, open_runs: OpenRunsOfProject
) -> CommandOutcome:
    """Removes a project without open runs. Again: changes nothing.

    A run whose start is answered while the project is being removed counts as started before, and goes on to its end.

    Raises NotFound, ProjectInUse, ProjectionBehind, and InvalidState for the default project, which has the runs that name
    no project.
    """
    tenant_id = request.tenant_id
    if project_id == default_project_id(tenant_id):
        raise InvalidState("the default project cannot be removed: it has the runs that name no project")
    project: Project = (await commands.load(DECIDER, tenant_id, project_id)).state
    if project.created is not None and not project.removed:
        found = await open_runs.first(tenant_id, project_id, MOST_NAMED + 1)
        if found:
            named, more = ", ".join(map(str, found[:MOST_NAMED])), " and others" if len(found) > MOST_NAMED else ""
            raise ProjectInUse(f"runs of the project are open: {named}{more}; cancel them or wait for their end")
    return await commands.execute(request, RemoveProject(project_id=project_id))
