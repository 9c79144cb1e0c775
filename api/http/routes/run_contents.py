"""What is inside a run, page by page: the parts of its steps, its tool calls, its journal and its messages."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from api.http.conventions.answers import OF_LISTS, answer, page_answer
from api.http.conventions.permissions import Reach, needs
from api.http.conventions.positions import POSITION, caught_up
from api.http.conventions.request import container_of, principal_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from application.engine.ports.pages import MAX_LIMIT, position_cursor
from application.runs.contents import PageOf, RunContents
from application.runs.waits import waits_of
from application.views.messages import MessageView
from application.views.runs import JournalEntryView, PartView, RunCallView
from application.views.waits import RunWaits
from domain.access import Action

router = APIRouter(tags=["runs"], route_class=DirectRoute)

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT)]
ListAsOf = Annotated[str | None, Query(description="A position, or an RFC 3339 time: the list as it was then")]


class CallPage(BaseModel):
    data: list[RunCallView]
    next_cursor: str | None


class PartPage(BaseModel):
    data: list[PartView]
    next_cursor: str | None


class JournalPage(BaseModel):
    data: list[JournalEntryView]
    next_cursor: str | None


class MessagePage(BaseModel):
    data: list[MessageView]
    next_cursor: str | None


@router.get(
    "/v1/runs/{run_id}/calls",
    summary="Tool calls of a run",
    responses={200: openapi.gives(CallPage, *OF_LISTS)},
    openapi_extra=openapi.takes_headers(POSITION),
)
@needs(Action.RUNS_READ, Reach.RUN)
async def get_calls(
    request: Request, run_id: UUID, limit: Limit = 100, cursor: str | None = None, as_of: ListAsOf = None
) -> Response:
    """In the order of their start. The run itself shows the newest ones. `GET /v1/invocations/{id}` has a call's values."""
    page = await _wanted(request, "runs", run_id, limit, cursor, as_of)
    return page_answer(request, CallPage, await _contents(request).calls(page))


@router.get(
    "/v1/runs/{run_id}/waits",
    summary="What each open step of a run waits for, and why",
    responses={200: openapi.gives(RunWaits)},
)
@needs(Action.RUNS_READ, Reach.RUN)
async def get_waits(request: Request, run_id: UUID) -> Response:
    """As the log says it, with the workers of this moment. Of a run that has ended, nothing."""
    container, tenant_id = container_of(request), principal_of(request).tenant_id
    return answer(await waits_of(container.commands, container.listed_sessions, container.reads.runs, tenant_id, run_id))


@router.get(
    "/v1/runs/{run_id}/steps/{step}/parts",
    summary="Parts of a step: items of a map, times of a loop, child runs",
    responses={200: openapi.gives(PartPage, *OF_LISTS)},
    openapi_extra=openapi.takes_headers(POSITION),
)
@needs(Action.RUNS_READ, Reach.RUN)
async def get_parts(
    request: Request, run_id: UUID, step: str, limit: Limit = 100, cursor: str | None = None, as_of: ListAsOf = None
) -> Response:
    """In the order of their numbers. The run itself shows the first ones, without their values. A value over 16 KiB is a reference.

    A step that is a single execution of an agent has no parts.
    """
    number = position_cursor(cursor)
    page = await _wanted(request, "runs", run_id, limit, None, as_of)
    page = page._replace(after=-1 if number is None else number)
    return page_answer(request, PartPage, await _contents(request).parts(page, step))


@router.get(
    "/v1/runs/{run_id}/journal",
    summary="Journal of a run: what its agents have finished",
    responses={200: openapi.gives(JournalPage, *OF_LISTS)},
)
@needs(Action.RUNS_READ, Reach.RUN)
async def get_journal(
    request: Request, run_id: UUID, limit: Limit = 100, cursor: str | None = None, as_of: ListAsOf = None
) -> Response:
    """Entries of all agents of the run, in the order of the log. A result over 16 KiB is a reference to its event."""
    page = await _wanted(request, None, run_id, limit, cursor, as_of)
    return page_answer(request, JournalPage, await _contents(request).journal(page))


@router.get(
    "/v1/runs/{run_id}/messages",
    summary="Messages of a run",
    responses={200: openapi.gives(MessagePage, *OF_LISTS)},
    openapi_extra=openapi.takes_headers(POSITION),
)
@needs(Action.RUNS_READ, Reach.RUN)
async def get_messages(
    request: Request, run_id: UUID, limit: Limit = 100, cursor: str | None = None, as_of: ListAsOf = None
) -> Response:
    """Messages between the agents of the run, in the order of sending."""
    page = await _wanted(request, "messages", run_id, limit, cursor, as_of)
    return page_answer(request, MessagePage, await _contents(request).messages(page))


async def _wanted(
    request: Request, read_model: str | None, run_id: UUID, limit: int, cursor: str | None, as_of: str | None
) -> PageOf:
    """The page that is asked for. `read_model`: has the list of now, and is waited for if the request asks for that."""
    after = position_cursor(cursor) or 0
    if as_of is None and read_model is not None:
        await caught_up(request, read_model)
    return PageOf(principal_of(request).tenant_id, run_id, limit, after, as_of)


def _contents(request: Request) -> RunContents:
    container = container_of(request)
    return RunContents(container.reads.runs, container.reads.messages, container.feed, container.histories)
