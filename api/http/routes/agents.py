"""Agents and tools that are registered."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from api.http.conventions.deps import answer, next_link, principal_of, reading
from projections import agents, tools
from projections.engine.pages import MAX_LIMIT, decode_cursor

router = APIRouter(tags=["agents and tools"])

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT)]


class AgentPage(BaseModel):
    data: list[agents.AgentView]
    next_cursor: str | None


class ToolPage(BaseModel):
    data: list[tools.ToolView]
    next_cursor: str | None


@router.get("/v1/agents", summary="Agents, by name", responses={200: {"model": AgentPage}})
async def get_agents(request: Request, limit: Limit = 100, cursor: str | None = None, capability: str | None = None) -> Response:
    after = decode_cursor(cursor) if cursor else None
    async with reading(request, "agents") as (connection, position):
        page = await agents.list_agents(
            connection, principal_of(request).tenant_id, limit=limit, after=after, capability=capability
        )
    body = AgentPage(data=page.data, next_cursor=page.next_cursor)
    return answer(body, position=position, headers=next_link(request, page.next_cursor))


@router.get("/v1/tools", summary="Tools, by name", responses={200: {"model": ToolPage}})
async def get_tools(request: Request, limit: Limit = 100, cursor: str | None = None) -> Response:
    after = decode_cursor(cursor) if cursor else None
    async with reading(request, "tools") as (connection, position):
        page = await tools.list_tools(connection, principal_of(request).tenant_id, limit=limit, after=after)
    body = ToolPage(data=page.data, next_cursor=page.next_cursor)
    return answer(body, position=position, headers=next_link(request, page.next_cursor))
