"""Read models for operators: their positions, their rebuilds and checks, and their parked events.

Read models hold rows of all tenants. So only a key of the default tenant, the operator's tenant, may use these routes.
"""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from api.http.conventions.answers import answer, next_link
from api.http.conventions.audit import REASON, audited
from api.http.conventions.bodies import Body, body_of
from api.http.conventions.permissions import needs
from api.http.conventions.request import container_of, operator_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from application.engine.ports.pages import MAX_LIMIT, position_cursor
from application.engine.ports.parked import ParkedView
from application.engine.ports.projections import ProblemView, ProjectionOperations, ProjectionView, Purpose
from domain.access import Action

router = APIRouter(tags=["projections"], route_class=DirectRoute)

KIND = "projection"
"""What the audit trail calls a read model, as the routes do."""

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT)]


class RebuildBody(Body):
    swap: bool = True
    """Whether the new version goes live as soon as it is ready."""


class EmptyBody(Body):
    """A body without fields."""


class CancelBuildBody(Body):
    purpose: Purpose = "version"
    """`version`: a rebuild or rollback; `check`: a verification."""


class RetryParkedBody(Body):
    root_id: UUID | None = None
    """Only the parked events of this root. None: of all roots."""


class ProjectionList(BaseModel):
    data: list[ProjectionView]
    problems: list[ProblemView]
    """Plug-ins that provide no projection, and the reasons."""


class ParkedPage(BaseModel):
    data: list[ParkedView]
    next_cursor: str | None


class RetriedView(BaseModel):
    root_id: UUID
    events: int
    error: str | None


class RetryAnswer(BaseModel):
    data: list[RetriedView]
    more: bool
    """Whether other roots have parked events that were not tried."""


# --- reading ----------------------------------------------------------------------------------------------------------


@router.get(
    "/v1/projections", summary="Read models, their positions and their operations", responses={200: openapi.gives(ProjectionList)}
)
@needs(Action.PROJECTIONS_READ)
async def get_projections(request: Request) -> Response:
    _operator(request)
    operations = container_of(request).projections
    return answer(ProjectionList(data=list(await operations.list()), problems=list(operations.problems())))


@router.get("/v1/projections/{name}", summary="One read model", responses={200: openapi.gives(ProjectionView)})
@needs(Action.PROJECTIONS_READ)
async def get_projection(request: Request, name: str) -> Response:
    return answer(await _known(request, name).view(name))


@router.get("/v1/projections/{name}/parked", summary="Parked events, in order", responses={200: openapi.gives(ParkedPage, "Link")})
@needs(Action.PROJECTIONS_READ)
async def get_parked(request: Request, name: str, limit: Limit = 100, cursor: str | None = None) -> Response:
    """`name`: a read model, `sagas`, one partition of the sagas, such as `sagas:3`, or `due-timers`."""
    _operator(request)
    parked = container_of(request).parked
    parked.must_know(name)
    page = await parked.list(name, limit=limit, after=position_cursor(cursor) or 0)
    body = ParkedPage(data=page.data, next_cursor=page.next_cursor)
    return answer(body, headers=next_link(request, page.next_cursor))


# --- versions ---------------------------------------------------------------------------------------------------------


@router.post(
    "/v1/projections/{name}/rebuild",
    status_code=202,
    summary="Build a new version from the log",
    responses={202: openapi.gives(ProjectionView)},
    openapi_extra=openapi.body(RebuildBody, {}, {"swap": False}, takes=(REASON,)),
)
@needs(Action.PROJECTIONS_REBUILD)
async def post_rebuild(request: Request, name: str) -> Response:
    """The live version serves until the new version replaces it in one transaction. The old version is then kept for a rollback."""
    body = await body_of(request, RebuildBody)
    async with _audited(request, name, "rebuild") as entry:
        operations = await _begun(request, name, entry)
        return answer(await operations.ask(name, "rebuild", swap=body.swap), 202)


@router.post(
    "/v1/projections/{name}/rollback",
    status_code=202,
    summary="Return to the previous version",
    responses={202: openapi.gives(ProjectionView)},
    openapi_extra=openapi.body(RebuildBody, {}, takes=(REASON,)),
)
@needs(Action.PROJECTIONS_REBUILD)
async def post_rollback(request: Request, name: str) -> Response:
    """The previous version first catches up from its own position. The version that is live now is then kept in its place."""
    body = await body_of(request, RebuildBody)
    async with _audited(request, name, "rollback") as entry:
        operations = await _begun(request, name, entry)
        return answer(await operations.ask(name, "rollback", swap=body.swap), 202)


@router.post(
    "/v1/projections/{name}/verify",
    status_code=202,
    summary="Compare a read model with the log",
    responses={202: openapi.gives(ProjectionView)},
    openapi_extra=openapi.body(EmptyBody, {}, takes=(REASON,)),
)
@needs(Action.PROJECTIONS_VERIFY)
async def post_verify(request: Request, name: str) -> Response:
    """Builds the tables again from the log and compares them with the live tables at one position. `check` shows the outcome."""
    await body_of(request, EmptyBody)
    async with audited(request, Action.PROJECTIONS_VERIFY, KIND, name) as entry:
        operations = await _begun(request, name, entry)
        return answer(await operations.ask(name, "verify"), 202)


@router.post(
    "/v1/projections/{name}/swap",
    status_code=202,
    summary="Let the new version go live",
    responses={202: openapi.gives(ProjectionView)},
    openapi_extra=openapi.body(EmptyBody, {}, takes=(REASON,)),
)
@needs(Action.PROJECTIONS_REBUILD)
async def post_swap(request: Request, name: str) -> Response:
    await body_of(request, EmptyBody)
    async with _audited(request, name, "swap") as entry:
        operations = await _begun(request, name, entry)
        return answer(await operations.ask_swap(name), 202)


@router.post(
    "/v1/projections/{name}/cancel",
    summary="Cancel a rebuild, a rollback or a check",
    responses={200: openapi.gives(ProjectionView)},
    openapi_extra=openapi.body(CancelBuildBody, {}, {"purpose": "check"}, takes=(REASON,)),
)
@needs(Action.PROJECTIONS_REBUILD)
async def post_cancel(request: Request, name: str) -> Response:
    """The tables that a rebuild or a check has built are dropped. The version that a rollback would bring back is kept."""
    body = await body_of(request, CancelBuildBody)
    async with _audited(request, name, "cancel") as entry:
        operations = await _begun(request, name, entry)
        return answer(await operations.cancel(name, body.purpose))


@router.delete(
    "/v1/projections/{name}/previous",
    summary="Drop the previous version",
    responses={200: openapi.gives(ProjectionView)},
    openapi_extra=openapi.takes_headers(REASON),
)
@needs(Action.PROJECTIONS_REBUILD)
async def delete_previous(request: Request, name: str) -> Response:
    async with _audited(request, name, "drop") as entry:
        operations = await _begun(request, name, entry)
        return answer(await operations.drop_previous(name))


# --- parked events ----------------------------------------------------------------------------------------------------


@router.post(
    "/v1/projections/{name}/retry",
    summary="Try parked events again",
    responses={200: openapi.gives(RetryAnswer)},
    openapi_extra=openapi.body(RetryParkedBody, {}, {"root_id": "0198c0de-0000-7000-8000-000000000001"}, takes=(REASON,)),
)
@needs(Action.PROJECTIONS_RETRY)
async def post_retry(request: Request, name: str) -> Response:
    """Tries root by root, each root in one transaction and in order. Events that fail again stay parked; the answer has the error.

    For sagas, the reactions to the events are executed again, and for due timers the commands that the events schedule. Their ids
    are derived, so none takes effect twice.
    """
    _operator(request)
    parked, body = container_of(request).parked, await body_of(request, RetryParkedBody)
    async with audited(request, Action.PROJECTIONS_RETRY, KIND, name) as entry:
        parked.must_know(name)
        await entry.begin()
        retried = await parked.retry(name, body.root_id)
    data = [RetriedView(root_id=r.root_id, events=r.events, error=r.error) for r in retried.roots]
    return answer(RetryAnswer(data=data, more=retried.more))


# --- shared -----------------------------------------------------------------------------------------------------------


def _operator(request: Request) -> None:
    operator_of(request, "read models are")


def _audited(request: Request, name: str, operation: str) -> audited:
    """Around an action that changes which version of a read model is live. Raises Forbidden."""
    _operator(request)
    return audited(request, Action.PROJECTIONS_REBUILD, KIND, name, operation=operation)


async def _begun(request: Request, name: str, entry: audited) -> ProjectionOperations:
    """The operations, once the entry is recorded. Raises Forbidden, NotFound, Unavailable."""
    operations = _known(request, name)
    await entry.begin()
    return operations


def _known(request: Request, name: str) -> ProjectionOperations:
    """The operations, after a check that a read model has the name. Raises Forbidden, NotFound."""
    _operator(request)
    operations = container_of(request).projections
    operations.must_know(name)
    return operations
