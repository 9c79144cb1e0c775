"""Registered agents over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from api.http.conventions.answers import OF_LISTS, answer, page_answer
from api.http.conventions.permissions import Reach, needs
from api.http.conventions.positions import POSITION, caught_up
from api.http.conventions.request import container_of, principal_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from application.engine.ports.pages import MAX_LIMIT, decode_cursor
from application.views.agents import AgentView
from application.workers.listing import count_workers
from domain.access import Action
from domain.errors import NotFound
from domain.kernel import Name

router = APIRouter(tags=["agents and tools"], route_class=DirectRoute)


class AgentPage(BaseModel):
    data: list[AgentView]
    next_cursor: str | None


@router.get(
    "/v1/agents",
    summary="Agents, by name",
    responses={200: openapi.gives(AgentPage, *OF_LISTS)},
    openapi_extra=openapi.takes_headers(POSITION),
)
@needs(Action.CATALOG_READ, Reach.CATALOG)
async def get_agents(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
    cursor: str | None = None,
    capability: str | None = None,
) -> Response:
    after, tenant_id = decode_cursor(cursor) if cursor is not None else None, principal_of(request).tenant_id
    await caught_up(request, "agents")
    container = container_of(request)
    found = await container.reads.agents.list(tenant_id, limit=limit, after=after, capability=capability)
    await count_workers(container.listed_sessions, tenant_id, "agent", found.value.data)
    return page_answer(request, AgentPage, found)


@router.get(
    "/v1/agents/{name}",
    summary="An agent, as it was registered last",
    responses={200: openapi.gives(AgentView, POSITION)},
    openapi_extra=openapi.takes_headers(POSITION),
)
@needs(Action.CATALOG_READ, Reach.CATALOG)
async def get_agent(request: Request, name: Name) -> Response:
    """`workers` says how many workers with a session offer it; `GET /v1/workers` says which, and in which version."""
    await caught_up(request, "agents")
    container, tenant_id = container_of(request), principal_of(request).tenant_id
    found = await container.reads.agents.get(tenant_id, name)
    if found.value is None:
        raise NotFound(f"no agent '{name}' is registered")
    await count_workers(container.listed_sessions, tenant_id, "agent", [found.value])
    return answer(found.value, position=found.position)
