"""Looking back over HTTP: the events of a run in short, differences of runs, the causes of an event, and its effects."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api.http.conventions.answers import answer, next_link
from api.http.conventions.cursors import HISTORY
from api.http.conventions.narrowing import seen_by
from api.http.conventions.permissions import Reach, needs
from api.http.conventions.positions import POSITION
from api.http.conventions.request import container_of, principal_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from api.http.routes.events import AsOf, Types, topics_of
from application.engine.ports.pages import MAX_LIMIT, MAX_POSITION, encode_cursor, position_cursor
from application.engine.ports.views import Timestamp
from application.engine.reading.as_of import position_as_of
from application.looking_back.causes import AskedRequest, By, CausalLink, Causation
from application.looking_back.difference import Side, difference
from application.looking_back.rows import EventRow, RowsWanted
from domain.access import Action
from domain.errors import InvalidCommand, NotFound
from domain.kernel import timestamp

router = APIRouter(tags=["events"], route_class=DirectRoute)

MOST_LINKS = 200


class EventRowView(openapi.Shown):
    """An event in short. A field that the event does not say is missing."""

    position: int
    type: str
    time: Timestamp
    stream: UUID
    version: int
    actor: str | None = None
    step: str | None = None
    part: int | None = None
    call: str | None = None
    """The key of a call, or of an entry of a journal."""
    tool: str | None = None
    agent: str | None = None
    attempt: int | None = None
    text: str | None = None
    """What happened, in a line."""
    cut: Literal[True] | None = None
    """The data is larger than what was looked at for this row."""


class RowsView(openapi.Shown):
    data: list[EventRowView]
    first: int
    """The number of the first row."""
    total: int
    """How many rows there are."""
    number: int | None = None
    """With `around`: the number of the row of that position."""


class RequestView(openapi.Shown):
    command_id: UUID
    actor: str
    on_behalf_of: str | None
    trace_id: str | None
    at: Timestamp


class LinkView(openapi.Shown):
    event: EventRowView
    root_id: UUID
    by: By
    """`event`: the next entry caused it. `work`: a worker has reported it, by the `request`, about the work that the next entry
    began. `request`: the `request` began it. `unknown`: its cause is not there."""
    request: RequestView | None


class CausesView(openapi.Shown):
    data: list[LinkView]
    next: int | None
    """Position of the next cause, where the chain is longer than `limit`."""
    origin: LinkView | None
    """The first event of the run, or of another root, in which the event is."""


class CausedEventView(openapi.Shown):
    event: EventRowView
    root_id: UUID
    by: By


class CausedEventsView(openapi.Shown):
    data: list[CausedEventView]
    next_cursor: str | None


class DifferenceView(openapi.Shown):
    """What differs at one place. `before`, `after`: short texts of the values, null where the run says nothing there."""

    step: str | None
    key: str | None
    what: str
    before: str | None
    after: str | None
    position: int | None
    """Of the event of the first run."""
    other_position: int | None


class ChangeView(openapi.Shown):
    path: str
    before: str | None
    after: str | None


class RunDiffView(openapi.Shown):
    run_id: UUID
    position: int
    """Up to which the run was compared."""
    with_id: UUID
    with_position: int
    count: int
    """Of all differences."""
    same: int
    """How much both say alike."""
    first: DifferenceView | None
    data: list[DifferenceView]
    state: list[ChangeView]


@router.get(
    "/v1/runs/{run_id}/rows",
    summary="The events of a run in short, by number",
    responses={200: openapi.gives(RowsView, POSITION, "Tidelog-History")},
)
@needs(Action.EVENTS_READ, Reach.RUN)
async def get_rows(
    request: Request,
    run_id: UUID,
    first: Annotated[
        int, Query(alias="from", ge=0, le=MAX_POSITION, description="The number of the first row; 0 is the start")
    ] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 200,
    around: Annotated[
        int | None, Query(ge=0, le=MAX_POSITION, description="Instead of `from`: the rows around the event at this position")
    ] = None,
    types: Types = None,
    as_of: AsOf = None,
) -> Response:
    """Any window of a run's events, however many there are. With `types` or `as_of`, rows are numbered among those events alone."""
    container, tenant_id = container_of(request), principal_of(request).tenant_id
    history = await container.histories.admit(None)
    if not await container.rows.has(tenant_id, run_id):
        raise NotFound(f"there is no run {run_id}")
    until = None
    if as_of is not None:
        until = await position_as_of(container.feed, container.histories, tenant_id, as_of, root_id=run_id)
    wanted = RowsWanted(tenant_id, run_id, topics_of(types), until)
    window = await container.rows.window(wanted, first, limit, around)
    found: dict[str, Any] = {"data": [shown(row) for row in window.rows], "first": window.first, "total": window.total}
    if window.at is not None:
        found["number"] = window.at
    position = window.rows[-1].position if window.rows else until or 0
    return answer(found, position=position, headers={HISTORY: history.history_id})


@router.get(
    "/v1/runs/{run_id}/diff",
    summary="Two positions of a run, or two runs, side by side",
    responses={200: openapi.gives(RunDiffView)},
)
@needs(Action.RUNS_READ, Reach.RUN)
async def get_diff(
    request: Request,
    run_id: UUID,
    other: Annotated[UUID | None, Query(alias="with", description="The other run. Missing: the same")] = None,
    as_of: Annotated[str | None, Query(description="The run as it was at this position or RFC 3339 time")] = None,
    with_as_of: Annotated[str | None, Query(description="The other run, as it was then")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
) -> Response:
    """`data`: what the two say differently, the first difference in front; whatever ran side by side is compared step by step and
    key by key. `state`: what differs between the runs as `GET /v1/runs/{run_id}` shows them, 500 places at most. Ids and times do
    not count.
    """
    container, tenant_id, seen = container_of(request), principal_of(request).tenant_id, seen_by(request)
    other = other or run_id
    for id in (run_id, other):
        if not await container.rows.has(tenant_id, id) or (seen is not None and not await seen.has(id)):
            raise NotFound(f"there is no run {id}")
    one, two = Side(run_id, await _until(request, as_of, "as_of")), Side(other, await _until(request, with_as_of, "with_as_of"))
    found = await difference(container.reads.runs, container.feed, tenant_id, one, two)
    data = [each.document() for each in found.events.differences[:limit]]
    return answer({
        "run_id": str(one.run_id), "position": one.at, "with_id": str(two.run_id), "with_position": two.at,
        "count": found.events.count, "same": found.events.same, "first": data[0] if data else None, "data": data,
        "state": [change._asdict() for change in found.state],
    })  # fmt: skip


async def _until(request: Request, as_of: str | None, name: str) -> int:
    """The position of a side. Raises InvalidCommand."""
    container, tenant_id = container_of(request), principal_of(request).tenant_id
    if as_of is None:
        return await container.histories.at_most_head(MAX_POSITION)
    try:
        return await position_as_of(container.feed, container.histories, tenant_id, as_of)
    except InvalidCommand:
        raise InvalidCommand(f"{name} must be a position or an RFC 3339 time with its zone", pointer=f"/{name}") from None


@router.get(
    "/v1/events/{position}/causes",
    summary="Why an event happened: the chain of its causes",
    responses={200: openapi.gives(CausesView)},
)
@needs(Action.EVENTS_READ, Reach.EVENT)
async def get_causes(request: Request, position: int, limit: Annotated[int, Query(ge=1, le=MOST_LINKS)] = 50) -> Response:
    """The event itself, the event from which it follows, and so on to the request that began it, through all runs on the way."""
    chain = await _causation(request).chain(_place(position), limit)
    return answer({
        "data": [_link(link) for link in chain.links], "next": chain.next,
        "origin": None if chain.origin is None else _link(chain.origin),
    })  # fmt: skip


@router.get(
    "/v1/events/{position}/effects",
    summary="What came of an event directly",
    responses={200: openapi.gives(CausedEventsView, "Link")},
)
@needs(Action.EVENTS_READ, Reach.EVENT)
async def get_effects(
    request: Request, position: int, limit: Annotated[int, Query(ge=1, le=MOST_LINKS)] = 100, cursor: str | None = None
) -> Response:
    """In order. A page looks at 2,000 events of the run, so it may have fewer than `limit`, or none, and a `next_cursor`.

    Effects in other runs are found within the next 5,000 positions.
    """
    found = await _causation(request).effects(_place(position), position_cursor(cursor), limit)
    following = None if found.reached is None else encode_cursor(str(found.reached))
    data = [{"event": shown(each.row), "root_id": str(each.root_id), "by": each.by} for each in found.effects]
    return answer({"data": data, "next_cursor": following}, headers=next_link(request, following))


def _causation(request: Request) -> Causation:
    container, seen = container_of(request), seen_by(request)
    tenant_id = principal_of(request).tenant_id
    return Causation(container.feed, container.rows, tenant_id, None if seen is None else seen.only)


def _place(position: int) -> int:
    return position if 0 < position <= MAX_POSITION else 0


def _link(link: CausalLink) -> Mapping[str, Any]:
    return {"event": shown(link.row), "root_id": str(link.root_id), "by": link.by, "request": _asked(link.request)}


def _asked(asked: AskedRequest | None) -> Mapping[str, Any] | None:
    if asked is None:
        return None
    return {**asked._asdict(), "command_id": str(asked.command_id), "at": timestamp(asked.at)}


def shown(row: EventRow) -> Mapping[str, Any]:
    found: dict[str, Any] = {
        "position": row.position, "type": row.type, "time": timestamp(row.time), "stream": str(row.stream), "version": row.version,
    }  # fmt: skip
    for name in SAID:
        if (value := getattr(row, name)) is not None:
            found[name] = value
    if row.cut:
        found["cut"] = True
    return found


SAID = ("actor", "step", "part", "call", "tool", "agent", "attempt", "text")
