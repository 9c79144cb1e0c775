"""Keys that are narrowed to projects: what the endpoints of a route's reach (permissions.py) see for them."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from fastapi import Request

from api.http.conventions.permissions import Reach
from api.http.conventions.request import container_of, principal_of
from application.engine.ports.pages import MAX_POSITION
from application.narrowing import Narrowed, ProjectsOfRoots
from domain.errors import InvalidCommand, NotFound
from domain.projects import UnknownProject, default_project_id


def projects_of(request: Request) -> Sequence[UUID] | None:
    """The projects to which the caller's key is narrowed, in order. None: it is for the whole tenant."""
    projects = principal_of(request).projects
    return None if projects is None else sorted(projects)


def seen_by(request: Request) -> Narrowed | None:
    """What the caller's key sees. None: the whole tenant."""
    principal = principal_of(request)
    if principal.projects is None:
        return None
    of_roots: ProjectsOfRoots = request.app.state.projects_of_roots
    return Narrowed(principal.tenant_id, principal.projects, of_roots, container_of(request).feed)


def project_for(request: Request, asked: UUID | None) -> UUID:
    """The project of something new. Without one it is the default project, or the only one of a narrowed key.

    Raises UnknownProject, InvalidCommand.
    """
    principal = principal_of(request)
    wanted = asked or default_project_id(principal.tenant_id)
    if principal.projects is None or wanted in principal.projects:
        return wanted
    if asked is not None:
        raise UnknownProject(f"there is no project {asked}", pointer="/project_id")
    if len(principal.projects) > 1:
        raise InvalidCommand("name a project: the API key is for several, and not for the default one", pointer="/project_id")
    return next(iter(principal.projects))


async def must_be_seen(request: Request, reach: Reach, arguments: Mapping[str, Any]) -> None:
    """Raises NotFound, as for what is not there, if a narrowed key asks for something of another project; Unavailable."""
    seen = seen_by(request)
    if seen is None:
        return
    named = arguments[reach.value]
    match reach:
        case Reach.RUN:
            found, missing = await seen.has(named), f"there is no run {named}"
        case Reach.CALL:
            starts, _ = await container_of(request).index.streams(seen.tenant_id, named, named, limit=1)
            found, missing = bool(starts) and await seen.has(starts[0].root_id), f"there is no invocation {named}"
        case Reach.APPROVAL:
            starts, _ = await container_of(request).index.streams(seen.tenant_id, named, named, limit=1)
            found, missing = bool(starts) and await seen.has(starts[0].root_id), f"there is no approval {named}"
        case Reach.EVENT:
            found, missing = await _sees_event(seen, named), f"there is no event at position {named}"
        case _:
            found, missing = named in seen.projects, f"there is no project {named}"
    if not found:
        raise NotFound(missing)


async def _sees_event(seen: Narrowed, position: int) -> bool:
    if not 0 < position <= MAX_POSITION:
        return False
    events = await seen.feed.read_tenant(seen.tenant_id, after=position - 1, until=position, limit=1)
    return bool(await seen.only(events))
