"""Creating projects."""

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandOutcome, CommandRequest
from domain.errors import RepeatedDifferently
from domain.kernel import same_json
from domain.projects import CreateProject, ProjectCreated


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
