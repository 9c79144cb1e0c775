"""Projects group the runs of a tenant."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, assert_never
from uuid import UUID

from pydantic import StringConstraints

from domain.errors import AlreadyExists, NotFound
from domain.kernel import Command, Decider, Event, Json, derive_id

ProjectName = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True, pattern=r"^[^\x00]+$")]


class ProjectCreated(Event):
    TOPIC = "project.created"
    name: str
    metadata: dict[str, Json] = {}


class ProjectRemoved(Event):
    TOPIC = "project.removed"
    name: str


ProjectEvent = ProjectCreated | ProjectRemoved


class UnknownProject(NotFound):
    """A run is to begin in a project that is not there, or that was removed."""

    code = "unknown-project"


@dataclass(frozen=True, slots=True)
class Project:
    created: ProjectCreated | None = None
    removed: bool = False


class CreateProject(Command):
    project_id: UUID
    name: ProjectName
    metadata: dict[str, Json] = {}


class RemoveProject(Command):
    """No run can be started in the project any more. Its runs stay as they are."""

    project_id: UUID


class UseProject(Command):
    """Something of the project begins. Has no events: the append of what begins holds only while the project is as it was."""

    project_id: UUID


ProjectCommand = CreateProject | RemoveProject | UseProject


@lru_cache(maxsize=10_000)
def default_project_id(tenant_id: UUID) -> UUID:
    """The project that each tenant has from the start."""
    return derive_id(tenant_id, "project:default")


def decide(project: Project, command: ProjectCommand) -> list[Event]:
    match command:
        case CreateProject():
            created = ProjectCreated(name=command.name, metadata=command.metadata)
            if project.created is None:
                return [created]
            if project.created == created:
                return []
            raise AlreadyExists(f"project {command.project_id} exists with another name or other metadata")
        case RemoveProject():
            if project.created is None:
                raise NotFound(f"there is no project {command.project_id}")
            return [] if project.removed else [ProjectRemoved(name=project.created.name)]
        case UseProject():
            if project.created is None or project.removed:
                what = (
                    f"project {command.project_id} was removed" if project.removed else f"there is no project {command.project_id}"
                )
                raise UnknownProject(what, pointer="/project_id")
            return []
        case _:
            assert_never(command)


def evolve(project: Project, event: ProjectEvent) -> Project:
    match event:
        case ProjectCreated():
            return replace(project, created=event)
        case ProjectRemoved():
            return replace(project, removed=True)
        case _:
            assert_never(event)


DECIDER: Decider[Project] = Decider("projects", Project, decide, evolve)
