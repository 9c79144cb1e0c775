"""Projects group the runs of a tenant."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated
from uuid import UUID

from pydantic import StringConstraints

from domain.errors import AlreadyExists
from domain.kernel import Command, Decider, Event, Json, derive_id

ProjectName = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True, pattern=r"^[^\x00]+$")]


class ProjectCreated(Event):
    TOPIC = "project.created"
    name: str
    metadata: dict[str, Json] = {}


@dataclass(frozen=True, slots=True)
class Project:
    created: ProjectCreated | None = None


class CreateProject(Command):
    project_id: UUID
    name: ProjectName
    metadata: dict[str, Json] = {}


@lru_cache(maxsize=10_000)
def default_project_id(tenant_id: UUID) -> UUID:
    """The project that each tenant has from the start."""
    return derive_id(tenant_id, "project:default")


def decide(project: Project, command: CreateProject) -> list[Event]:
    created = ProjectCreated(name=command.name, metadata=command.metadata)
    if project.created is None:
        return [created]
    if project.created == created:
        return []
    raise AlreadyExists(f"project {command.project_id} exists with another name or other metadata")


def evolve(project: Project, event: ProjectCreated) -> Project:
    return Project(created=event)


DECIDER: Decider[Project] = Decider("projects", Project, decide, evolve)
