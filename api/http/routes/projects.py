"""Projects over HTTP."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.responses import Response
from uuid_utils.compat import uuid7

from api.http.conventions.answers import OF_COMMANDS, OF_LISTS, accepted, page_answer
from api.http.conventions.audit import REASON, audited
from api.http.conventions.bodies import Body, body_of
from api.http.conventions.idempotency import key_of, keyed_request, one_content
from api.http.conventions.narrowing import projects_of
from api.http.conventions.permissions import Reach, needs
from api.http.conventions.positions import POSITION, caught_up
from api.http.conventions.request import command_request, container_of, principal_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from application.engine.ports.pages import MAX_LIMIT, uuid_cursor
from application.projects import OpenRunsOfProject, create_project, remove_project
from application.views.projects import ProjectView
from domain.access import Action
from domain.kernel import Json
from domain.projects import CreateProject, ProjectName

router = APIRouter(tags=["projects"], route_class=DirectRoute)


class CreateProjectBody(Body):
    name: ProjectName
    metadata: dict[str, Json] = {}


class ProjectAccepted(openapi.Shown):
    project_id: UUID
    position: int
    version: int


class ProjectPage(BaseModel):
    data: list[ProjectView]
    next_cursor: str | None


@router.post(
    "/v1/projects",
    status_code=201,
    summary="Create a project",
    responses={201: openapi.gives(ProjectAccepted, "Location", *OF_COMMANDS)},
    openapi_extra=openapi.body(
        CreateProjectBody, {"name": "Reviews", "metadata": {"team": "platform"}}, takes=("Idempotency-Key", "Tidelog-On-Behalf-Of")
    ),
)
@needs(Action.PROJECTS_CREATE)
async def post_project(request: Request) -> Response:
    body = await body_of(request, CreateProjectBody)
    key = key_of(request, body)
    command = CreateProject(project_id=uuid7(), name=body.name, metadata=body.metadata)
    with one_content(key):
        outcome = await create_project(container_of(request).commands, keyed_request(request, key), command)
    project_id, version = outcome.begun(command.project_id)
    return accepted(outcome, version, {"project_id": str(project_id)}, status=201, headers={"Location": "/v1/projects"})


@router.delete(
    "/v1/projects/{project_id}",
    summary="Remove a project without open runs",
    responses={200: openapi.gives(ProjectAccepted, *OF_COMMANDS)},
    openapi_extra=openapi.takes_headers("Tidelog-On-Behalf-Of", REASON),
)
@needs(Action.PROJECTS_REMOVE, Reach.PROJECT)
async def delete_project(request: Request, project_id: UUID) -> Response:
    """No run can be started in the project any more. Its runs, all of which have ended, stay readable, also by its id.

    Refused with 409 `project-in-use` while runs of the project are open. The default project cannot be removed. A second time
    changes nothing.
    """
    container = container_of(request)
    open_runs = OpenRunsOfProject(container.feed, container.positions, container.reads.runs, container.settings.read_timeout_s)
    async with audited(request, Action.PROJECTS_REMOVE, "project", project_id) as entry:
        outcome = await remove_project(container.commands, entry.along(command_request(request)), project_id, open_runs)
    return accepted(outcome, outcome.versions[project_id], {"project_id": str(project_id)}, status=200)


@router.get(
    "/v1/projects",
    summary="Projects, oldest first",
    responses={200: openapi.gives(ProjectPage, *OF_LISTS)},
    openapi_extra=openapi.takes_headers(POSITION),
)
@needs(Action.PROJECTS_READ, Reach.LIMITED)
async def get_projects(
    request: Request, limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100, cursor: str | None = None
) -> Response:
    await caught_up(request, "projects")
    projects = container_of(request).reads.projects
    tenant_id, within = principal_of(request).tenant_id, projects_of(request)
    found = await projects.list(tenant_id, limit=limit, after=uuid_cursor(cursor), within=within)
    return page_answer(request, ProjectPage, found)
