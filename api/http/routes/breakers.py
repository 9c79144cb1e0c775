"""Breakers over HTTP: which tools are not called at the moment, why, and what a person makes of it."""

from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from api.http.conventions.answers import OF_COMMANDS, OF_LISTS, accepted, answer, page_answer
from api.http.conventions.audit import audited
from api.http.conventions.bodies import Body, body_of
from api.http.conventions.idempotency import key_of, keyed_request, one_content
from api.http.conventions.permissions import Reach, needs
from api.http.conventions.positions import POSITION, caught_up
from api.http.conventions.releases import must_all_know_breakers
from api.http.conventions.request import caller_of, container_of, principal_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from application.breakers import breaker_of
from application.engine.ports.pages import MAX_LIMIT, decode_cursor
from application.tools import load_tool
from application.views.breakers import BreakerView, ToolBreakerView
from domain.access import Action
from domain.breakers import ForceBreaker, Status, breaker_id_of
from domain.invocations import Reason
from domain.kernel import Name
from domain.tools import tool_id_of

router = APIRouter(tags=["agents and tools"], route_class=DirectRoute)


class BreakerBody(Body):
    state: Literal["open", "closed", "auto"]
    """`open`: nobody calls the tool. `closed`: calls go on, however they end. `auto`: it follows the outcomes of calls again."""
    reason: Reason


class BreakerAccepted(openapi.Shown):
    tool: str
    position: int
    version: int
    """Version of the breaker's stream."""


class BreakerPage(BaseModel):
    data: list[BreakerView]
    next_cursor: str | None


@router.get(
    "/v1/breakers",
    summary="Breakers that have ever changed, by the names of their tools",
    responses={200: openapi.gives(BreakerPage, *OF_LISTS)},
    openapi_extra=openapi.takes_headers(POSITION),
)
@needs(Action.CATALOG_READ, Reach.CATALOG)
async def get_breakers(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
    cursor: str | None = None,
    state: Status | None = None,
) -> Response:
    """With `state=open`: the tools that nobody calls at the moment. A tool that is not in the list has a closed breaker."""
    after, tenant_id = decode_cursor(cursor) if cursor is not None else None, principal_of(request).tenant_id
    await caught_up(request, "breakers")
    found = await container_of(request).reads.breakers.list(tenant_id, limit=limit, after=after, state=state)
    return page_answer(request, BreakerPage, found)


@router.get("/v1/tools/{name}/breaker", summary="The breaker of a tool", responses={200: openapi.gives(ToolBreakerView, "ETag")})
@needs(Action.CATALOG_READ, Reach.CATALOG)
async def get_breaker(request: Request, name: Name) -> Response:
    """As the log has it, with the outcomes that were counted since its newest change."""
    container, tenant_id = container_of(request), principal_of(request).tenant_id
    found = await breaker_of(container.commands, container.outcomes, tenant_id, name)
    return answer(found, headers={"ETag": f'"v{found.version}"'})


@router.post(
    "/v1/tools/{name}/breaker",
    summary="Hold the breaker of a tool open or closed, or let it follow the outcomes of calls again",
    responses={200: openapi.gives(BreakerAccepted, *OF_COMMANDS)},
    openapi_extra=openapi.body(
        BreakerBody,
        {"state": "open", "reason": "They asked us to stop until Monday."},
        takes=("Idempotency-Key", "Tidelog-On-Behalf-Of"),
    ),
)
@needs(Action.BREAKERS_FORCE)
async def post_breaker(request: Request, name: Name) -> Response:
    """Works for every tool, also for one without `policy.breaker`. All processes obey within 100 ms; calls under way go on."""
    body, caller, container = await body_of(request, BreakerBody), caller_of(request), container_of(request)
    tenant_id, key = principal_of(request).tenant_id, key_of(request, body)
    await must_all_know_breakers(container)
    breaker_id = breaker_id_of(tool_id_of(tenant_id, name))
    command = ForceBreaker(
        breaker_id=breaker_id, tool=name, state=body.state, at=datetime.now(UTC), by=caller.actor, reason=body.reason,
        on_behalf_of=caller.on_behalf_of,
    )  # fmt: skip
    async with audited(request, Action.BREAKERS_FORCE, "tool", name, operation=body.state, reason=body.reason) as entry:
        await load_tool(container.commands, tenant_id, name)
        with one_content(key):
            outcome = await container.commands.execute(entry.along(keyed_request(request, key)), command)
    return accepted(outcome, outcome.versions[breaker_id], {"tool": name}, status=200)
