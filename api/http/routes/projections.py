"""Read models for operators: how far they are, rebuilding and checking them, and what they put aside.

They hold rows of all tenants, so only a key of the default tenant, which is the operator's, may ask.
"""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from api.http.conventions.deps import Body, answer, body_of, container_of, next_link, principal_of
from api.http.documents import openapi
from application.catalog import CATALOG
from application.engine.ports.pages import MAX_LIMIT, position_cursor
from application.engine.ports.queue import WorkItem
from application.engine.ports.views import Timestamp
from application.engine.sagas.manager import PARTITIONS, react, request_for
from domain.errors import Forbidden, NotFound
from domain.kernel import Command
from domain.tenants import DEFAULT_TENANT_ID
from projections import registry
from projections.engine import checkpoints, parked
from projections.engine.kernel import Connection, Projection
from projections.engine.rebuild import jobs
from projections.engine.rebuild.jobs import BuildView

router = APIRouter(tags=["projections"])

SAGAS = "sagas"
MAX_ROOTS = 1_000
"""Roots that one request retries; the answer says whether there are more."""
RETRY_TIMEOUT_S = 25.0

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT)]


class RebuildBody(Body):
    swap: bool = True
    """Let the new version go live as soon as it is ready."""


class EmptyBody(Body):
    """Nothing is to be said."""


class CancelBuildBody(Body):
    purpose: jobs.Purpose = "version"
    """`version`: a rebuild or rollback; `check`: a verification."""


class RetryParkedBody(Body):
    root_id: UUID | None = None
    """Only the parked events of this root; else of all."""


class PreviousView(BaseModel):
    position: int
    replaced_at: Timestamp


class ProjectionView(BaseModel):
    name: str
    tables: list[str]
    plugin: str | None
    """The distribution that brings it; null: the server itself."""
    position: int
    lag: int
    parked: int
    build: BuildView | None
    check: BuildView | None
    previous: PreviousView | None


class ProblemView(BaseModel):
    entry_point: str
    distribution: str
    error: str


class ProjectionList(BaseModel):
    data: list[ProjectionView]
    problems: list[ProblemView]
    """Plug-ins that give no projection, and why."""


class ParkedPage(BaseModel):
    data: list[parked.ParkedView]
    next_cursor: str | None


class RetriedView(BaseModel):
    root_id: UUID
    events: int
    error: str | None


class RetryAnswer(BaseModel):
    data: list[RetriedView]
    more: bool
    """There are other roots with parked events that were not tried."""


# --- looking ----------------------------------------------------------------------------------------------------------


@router.get(
    "/v1/projections", summary="Read models, how far they are and what is being done", responses={200: {"model": ProjectionList}}
)
async def get_projections(request: Request) -> Response:
    _operator(request)
    head = await container_of(request).feed.head()
    async with container_of(request).database.connection() as connection:
        views = await _views(connection, head, registry.load_projections())
    problems = [
        ProblemView(entry_point=p.entry_point, distribution=p.distribution, error=p.error) for p in registry.plugins().problems
    ]
    return answer(ProjectionList(data=views, problems=problems))


@router.get("/v1/projections/{name}", summary="One read model", responses={200: {"model": ProjectionView}})
async def get_projection(request: Request, name: str) -> Response:
    return await _view(request, _known(request, name))


@router.get("/v1/projections/{name}/parked", summary="Parked events, in order", responses={200: {"model": ParkedPage}})
async def get_parked(request: Request, name: str, limit: Limit = 100, cursor: str | None = None) -> Response:
    """Also for `sagas`, and for one partition of them as in `sagas:3`."""
    consumers = _consumers(request, name)
    async with container_of(request).database.connection() as connection:
        page = await parked.list_parked(connection, consumers, limit=limit, after=position_cursor(cursor) or 0)
    body = ParkedPage(data=page.data, next_cursor=page.next_cursor)
    return answer(body, headers=next_link(request, page.next_cursor))


# --- versions ---------------------------------------------------------------------------------------------------------


@router.post(
    "/v1/projections/{name}/rebuild",
    status_code=202,
    summary="Build a new version from the log",
    responses={202: {"model": ProjectionView}},
    openapi_extra=openapi.body(RebuildBody, {}, {"swap": False}),
)
async def post_rebuild(request: Request, name: str) -> Response:
    """Beside the live one, which serves until the new one takes its place in one transaction and is then kept for a rollback."""
    projection, body = _known(request, name), await body_of(request, RebuildBody)
    return await _ask(request, projection, "rebuild", swap=body.swap)


@router.post(
    "/v1/projections/{name}/rollback",
    status_code=202,
    summary="Bring the version before back",
    responses={202: {"model": ProjectionView}},
    openapi_extra=openapi.body(RebuildBody, {}),
)
async def post_rollback(request: Request, name: str) -> Response:
    """It is caught up from its own position first; the one that is live now is kept in its place."""
    projection, body = _known(request, name), await body_of(request, RebuildBody)
    return await _ask(request, projection, "rollback", swap=body.swap)


@router.post(
    "/v1/projections/{name}/verify",
    status_code=202,
    summary="Compare with the log",
    responses={202: {"model": ProjectionView}},
    openapi_extra=openapi.body(EmptyBody, {}),
)
async def post_verify(request: Request, name: str) -> Response:
    """Makes the tables again from the log and compares them with the live ones at one position; `check` tells the outcome."""
    projection, _ = _known(request, name), await body_of(request, EmptyBody)
    return await _ask(request, projection, "verify")


@router.post(
    "/v1/projections/{name}/swap",
    status_code=202,
    summary="Let the new version go live",
    responses={202: {"model": ProjectionView}},
    openapi_extra=openapi.body(EmptyBody, {}),
)
async def post_swap(request: Request, name: str) -> Response:
    projection, _ = _known(request, name), await body_of(request, EmptyBody)
    async with container_of(request).database.connection() as connection, connection.transaction():
        await jobs.ask_swap(connection, projection.name)
    return await _view(request, projection, 202)


@router.post(
    "/v1/projections/{name}/cancel",
    summary="End a rebuild, a rollback or a check",
    responses={200: {"model": ProjectionView}},
    openapi_extra=openapi.body(CancelBuildBody, {}, {"purpose": "check"}),
)
async def post_cancel(request: Request, name: str) -> Response:
    """What it made is dropped; a version that was to come back is kept."""
    projection, body = _known(request, name), await body_of(request, CancelBuildBody)
    async with container_of(request).database.connection() as connection, connection.transaction():
        await jobs.cancel(connection, projection, body.purpose)
    return await _view(request, projection)


@router.delete(
    "/v1/projections/{name}/previous", summary="Drop the version that was kept", responses={200: {"model": ProjectionView}}
)
async def delete_previous(request: Request, name: str) -> Response:
    projection = _known(request, name)
    async with container_of(request).database.connection() as connection, connection.transaction():
        await jobs.drop_previous(connection, projection)
    return await _view(request, projection)


# --- parked events ----------------------------------------------------------------------------------------------------


@router.post(
    "/v1/projections/{name}/retry",
    summary="Try parked events again",
    responses={200: {"model": RetryAnswer}},
    openapi_extra=openapi.body(RetryParkedBody, {}, {"root_id": "0198c0de-0000-7000-8000-000000000001"}),
)
async def post_retry(request: Request, name: str) -> Response:
    """Root by root, each in one transaction and in order; what breaks again stays parked, with its error in the answer.

    Of sagas, the reactions to the events are executed again: their ids are derived, so what was done is not done twice.
    """
    consumers, body = _consumers(request, name), await body_of(request, RetryParkedBody)
    container = container_of(request)
    async with container.database.connection() as connection:
        roots = [body.root_id] if body.root_id else await parked.roots(connection, consumers, MAX_ROOTS + 1)
    projection = None if consumers[0].startswith(SAGAS) else _known(request, name)
    results: list[parked.Retried] = []
    give_up_at = asyncio.get_running_loop().time() + RETRY_TIMEOUT_S
    for root_id in roots[:MAX_ROOTS]:
        if projection is not None:
            results.append(await parked.retry(container.database, container.feed, projection, root_id))
        else:
            results.append(await _react_again(request, consumers, root_id))
        if asyncio.get_running_loop().time() > give_up_at:
            break
    if body.root_id and not results[0].events:
        raise NotFound(f"no events of {body.root_id} are parked for '{name}'")
    data = [RetriedView(root_id=r.root_id, events=r.events, error=r.error) for r in results]
    return answer(RetryAnswer(data=data, more=len(results) < len(roots)))


async def _react_again(request: Request, consumers: Sequence[str], root_id: UUID) -> parked.Retried:
    """Executes the reactions to a root's parked events, in order, up to the first that is refused again."""
    container = container_of(request)
    async with container.database.connection() as connection:
        positions = await parked.positions(connection, consumers, root_id)
    if not positions:
        return parked.Retried(root_id, 0)
    done: list[int] = []
    error = None
    for event in await container.feed.at(positions):
        try:
            answers = react(event, CATALOG)
            for reaction, command in answers:
                if isinstance(command, Command):
                    await container.commands.execute(request_for(event, reaction), command)
            work = [item for _, item in answers if isinstance(item, WorkItem)]
            if work:
                await container.work_queue.publish(work)
        except Exception as refused:  # noqa: BLE001  # whatever it is, the event stays parked and the caller is told
            error = f"{type(refused).__name__}: {refused}"
            break
        done.append(event.position)
    async with container.database.connection() as connection:
        await parked.unpark(connection, consumers, root_id, done)
    return parked.Retried(root_id, len(positions), error)


# --- shared -----------------------------------------------------------------------------------------------------------


def _operator(request: Request) -> None:
    if principal_of(request).tenant_id != DEFAULT_TENANT_ID:
        raise Forbidden("read models are shared by all tenants: only a key of the default tenant may ask")


def _known(request: Request, name: str) -> Projection:
    """Raises Forbidden, NotFound."""
    _operator(request)
    for projection in registry.load_projections():
        if projection.name == name:
            return projection
    raise NotFound(f"there is no projection '{name}'")


def _consumers(request: Request, name: str) -> list[str]:
    """Under which names the parked events of a projection, or of the sagas, stand."""
    _operator(request)
    if name == SAGAS:
        return [SAGAS, *PARTITIONS]
    return [name] if name in PARTITIONS else [_known(request, name).name]


async def _ask(request: Request, projection: Projection, kind: jobs.Kind, *, swap: bool = False) -> Response:
    async with container_of(request).database.connection() as connection, connection.transaction():
        await jobs.ask(connection, projection, kind, swap=swap)
    return await _view(request, projection, 202)


async def _view(request: Request, projection: Projection, status: int = 200) -> Response:
    head = await container_of(request).feed.head()
    async with container_of(request).database.connection() as connection:
        [view] = await _views(connection, head, [projection])
    return answer(view, status)


async def _views(connection: Connection, head: int, projections: Sequence[Projection]) -> list[ProjectionView]:
    positions, waiting = await checkpoints.positions(connection), await checkpoints.parked(connection)
    under_way = {(build.projection, build.purpose): BuildView.of(build) for build in await jobs.every(connection)}
    kept, sources = await jobs.kept(connection), registry.plugins().sources
    return [
        ProjectionView(
            name=p.name, tables=list(p.tables), plugin=sources.get(p.name), position=positions.get(p.name, 0),
            lag=max(head - positions.get(p.name, 0), 0), parked=waiting.get(p.name, 0), build=under_way.get((p.name, "version")),
            check=under_way.get((p.name, "check")), previous=_previous(kept.get(p.name)),
        )
        for p in projections
    ]  # fmt: skip


def _previous(kept: tuple[int, Any] | None) -> PreviousView | None:
    return PreviousView(position=kept[0], replaced_at=kept[1]) if kept is not None else None
