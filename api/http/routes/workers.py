"""Workers over HTTP, for people: those that have a session, and files that workers cannot use."""

from dataclasses import asdict
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from api.http.conventions.answers import answer, next_link
from api.http.conventions.permissions import needs
from api.http.conventions.request import container_of, principal_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from application.engine.ports.pages import MAX_LIMIT, decode_cursor
from application.engine.ports.views import Timestamp
from application.views.workers import WorkerView, WorkInHandView
from application.workers.listing import list_workers, work_in_hand
from domain.access import Action

router = APIRouter(tags=["workers"], route_class=DirectRoute)


class WorkerPage(BaseModel):
    data: list[WorkerView]
    next_cursor: str | None


@router.get(
    "/v1/workers",
    summary="Workers that have a session, by their ids",
    responses={200: openapi.gives(WorkerPage, "Link")},
)
@needs(Action.WORKERS_READ)
async def get_workers(
    request: Request, limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100, cursor: str | None = None
) -> Response:
    """Those of every process of the server."""
    after, tenant_id = decode_cursor(cursor) if cursor is not None else None, principal_of(request).tenant_id
    page = await list_workers(container_of(request).listed_sessions, tenant_id, limit=limit, after=after)
    return answer(WorkerPage(data=page.data, next_cursor=page.next_cursor), headers=next_link(request, page.next_cursor))


class WorkInHandList(BaseModel):
    data: list[WorkInHandView]


@router.get(
    "/v1/workers/{session_id}/work",
    summary="What a worker has in hand, what was dispatched first in front",
    responses={200: openapi.gives(WorkInHandList)},
)
@needs(Action.WORKERS_READ)
async def get_work(request: Request, session_id: UUID, limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100) -> Response:
    """404 for a session that is over: its work went to others."""
    container, tenant_id = container_of(request), principal_of(request).tenant_id
    return answer(WorkInHandList(data=await work_in_hand(container.listed_sessions, tenant_id, session_id, limit=limit)))


class WorkerProblemView(BaseModel):
    worker_id: str
    reported_at: Timestamp
    path: str
    kind: str
    message: str


class ProblemList(BaseModel):
    data: list[WorkerProblemView]


@router.get(
    "/v1/workers/problems",
    summary="Files that workers cannot use, by their newest reports",
    responses={200: openapi.gives(ProblemList)},
)
@needs(Action.WORKERS_READ)
async def get_problems(request: Request, limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100) -> Response:
    """A report expires three minutes after the worker has vanished."""
    found = await container_of(request).problems.of_tenant(principal_of(request).tenant_id, limit)
    views = [WorkerProblemView(worker_id=f.worker_id, reported_at=f.reported_at, **asdict(f.problem)) for f in found]
    return answer(ProblemList(data=views))
