"""The event stream: one page of it as JSON, or live as server-sent events, for a tenant or for one run."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, suppress
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from starlette.responses import Response, StreamingResponse

from api.container import Container
from api.http.deps import POSITION, container_of, must_be_a_run, next_link, position_of, principal_of
from api.http.keys import Keys
from application.cloudevents import to_cloudevent
from application.live import Batch, Filter, TooSlow
from application.sagas.manager import partition_of
from domain import runs
from domain.errors import InvalidCommand, NotFound, ProjectionBehind
from domain.kernel import RecordedEvent
from domain.registry import EVENTS
from projections.pages import MAX_LIMIT, MAX_POSITION, encode_cursor, parse_position, position_cursor

router = APIRouter(tags=["events"])

SSE_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
SSE_DOC: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}, "application/json": {}}, "description": "A page, or a stream"}
}
PAGE = 500
CHECK_S = 5.0
"""A stream asks whether its key is still valid when it has something to send, or nothing for a while, but no sooner than this."""
LONGEST_ENDING_S = 5.0
"""How long a stream waits for the sagas to take notice of a run's end, should they be away."""

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT)]
Types = Annotated[str | None, Query(description="Event types, separated by commas, such as run.started,run.completed")]
After = Annotated[int | None, Query(ge=0, le=MAX_POSITION, description="Only events after this position")]
Root = Annotated[UUID | None, Query(description="Only events inside this run")]


@router.get("/v1/events", summary="The tenant's whole feed", responses=SSE_DOC)
async def get_events(
    request: Request, after: After = None, types: Types = None, root_id: Root = None, limit: Limit = 100, cursor: str | None = None
) -> Response:
    """With `Accept: text/event-stream`: replay from `after` (or `Last-Event-ID`), then live, without a gap or a double."""
    wanted = Filter(principal_of(request).tenant_id, root_id, _topics(types))
    if _wants_stream(request):
        return StreamingResponse(
            _tenant_stream(request, wanted, _start(request, after)), media_type="text/event-stream", headers=SSE_HEADERS
        )
    return await _page(request, wanted, after, limit, cursor)


@router.get("/v1/runs/{run_id}/events", summary="The events of one run", responses=SSE_DOC)
async def get_run_events(
    request: Request, run_id: UUID, after: After = None, types: Types = None, limit: Limit = 100, cursor: str | None = None
) -> Response:
    """As a stream it ends with `event: end` when the run has ended and everything was sent."""
    tenant_id = principal_of(request).tenant_id
    await must_be_a_run(request, run_id)
    topics = _topics(types)
    if _wants_stream(request):
        stream = _run_stream(request, Filter(tenant_id, run_id), topics, _start(request, after))
        return StreamingResponse(stream, media_type="text/event-stream", headers=SSE_HEADERS)
    return await _page(request, Filter(tenant_id, run_id, topics), after, limit, cursor)


@router.get("/v1/events/{position}", summary="One event by its position")
async def get_event(request: Request, position: int) -> Response:
    found: list[RecordedEvent] = []
    if 0 < position <= MAX_POSITION:
        tenant_id = principal_of(request).tenant_id
        found = await container_of(request).feed.read_tenant(tenant_id, after=position - 1, until=position, limit=1)
    if not found:
        raise NotFound(f"there is no event at position {position}")
    return Response(to_cloudevent(found[0]), media_type="application/cloudevents+json")


def _wants_stream(request: Request) -> bool:
    return "text/event-stream" in request.headers.get("accept", "")


def _topics(types: str | None) -> frozenset[str] | None:
    if not types:
        return None
    topics = frozenset(part.strip() for part in types.split(",") if part.strip())
    unknown = sorted(topics - EVENTS.keys())
    if unknown:
        raise InvalidCommand(f"unknown event type: {', '.join(unknown)}", pointer="/types")
    return topics


def _start(request: Request, after: int | None) -> int | None:
    """Where a stream begins: `Last-Event-ID` of a reconnecting client before `after`; None: live from now on."""
    last = request.headers.get("last-event-id")
    if last is None:
        return after
    position = parse_position(last)
    if position is None:
        raise InvalidCommand("Last-Event-ID must be the id of an event that this stream sent")
    return position


async def _page(request: Request, wanted: Filter, after: int | None, limit: int, cursor: str | None) -> Response:
    start = position_cursor(cursor)
    start = (after or 0) if start is None else start
    as_of = request.query_params.get("as_of")
    until = await position_of(request, as_of) if as_of else None
    topics = sorted(wanted.topics) if wanted.topics is not None else None
    found = await container_of(request).feed.read_tenant(
        wanted.tenant_id, after=start, limit=limit + 1, until=until, root_id=wanted.root_id, topics=topics
    )
    shown = found[:limit]
    following = encode_cursor(str(shown[-1].position)) if len(found) > limit else None
    body = b'{"data":[%s],"next_cursor":%s}' % (
        b",".join(map(to_cloudevent, shown)),
        b'"%s"' % following.encode() if following else b"null",
    )
    headers = {**next_link(request, following), POSITION: str(shown[-1].position if shown else start)}
    return Response(body, 200, headers, "application/json")


def _sse(events: Sequence[RecordedEvent]) -> bytes:
    return b"".join(
        b"id: %d\nevent: %s\ndata: %s\n\n" % (event.position, event.topic.encode(), to_cloudevent(event)) for event in events
    )


HEARTBEAT = b": heartbeat\n\n"
RETRY = b"retry: 1000\n\n"


class _Permit:
    """Whether who opened a stream may still read it."""

    def __init__(self, request: Request) -> None:
        self._keys: Keys = request.app.state.keys
        self._key: str = request.scope["state"]["key"]
        self._due = time.monotonic() + CHECK_S

    async def is_over(self) -> bool:
        if time.monotonic() < self._due:
            return False
        self._due = time.monotonic() + CHECK_S
        return not await self._keys.is_valid(self._key)


async def _tenant_stream(request: Request, wanted: Filter, start: int | None) -> AsyncIterator[bytes]:
    live, permit = container_of(request).live, _Permit(request)
    yield RETRY
    try:
        async for events in live.events(wanted, after=start):
            if await permit.is_over():
                return
            yield events.once(_sse) if events else HEARTBEAT
    except TooSlow:
        yield b"event: resync\ndata: {}\n\n"


async def _run_stream(request: Request, wanted: Filter, topics: frozenset[str] | None, start: int | None) -> AsyncIterator[bytes]:
    """Replay, then live until the run has ended; what the sagas append because of that is sent before the end."""
    container, permit, reached, run_id = container_of(request), _Permit(request), start or 0, wanted.root_id
    assert run_id is not None
    yield RETRY
    run = await container.replays.now(wanted.tenant_id, run_id)
    over = run is not None and run.status != "running"
    may_follow = over
    try:
        async with aclosing(container.live.events(wanted, after=reached)) as batches:
            while not over and (events := await anext(batches, None)) is not None:
                if await permit.is_over():
                    return
                yield _shown(events, topics)
                reached = events[-1].position if events else reached
                ends = [event.topic for event in events if event.topic in runs.ENDS]
                over = bool(ends)
                may_follow = ends != [runs.RunCompleted.TOPIC]  # the cancelling of its parts
    except TooSlow:
        yield b"event: resync\ndata: {}\n\n"
        return
    settled = False
    while may_follow:
        page = Batch(await container.feed.read_tenant(wanted.tenant_id, after=reached, limit=PAGE, root_id=run_id))
        if page:
            yield _shown(page, topics)
            reached = page[-1].position
        elif settled:
            break
        if len(page) < PAGE:  # waited for before reading again: what the sagas have appended by then is read
            settled = await _settled(container, run_id, reached)
            over = may_follow = settled
    if over:
        yield b"id: %d\nevent: end\ndata: {}\n\n" % reached


async def _settled(container: Container, run_id: UUID, position: int) -> bool:
    """Waits until the sagas have taken notice of a position, for a bounded time; False when the process is about to stop."""
    give_up_at = time.monotonic() + LONGEST_ENDING_S
    while not container.live.closed and (left := give_up_at - time.monotonic()) > 0:
        with suppress(ProjectionBehind):
            await container.positions.until(partition_of(run_id), position, min(left, 0.5))
            break
    return not container.live.closed


def _shown(events: Batch, topics: frozenset[str] | None) -> bytes:
    if topics is None:
        return events.once(_sse) if events else HEARTBEAT
    shown = [event for event in events if event.topic in topics]
    return _sse(shown) if shown else HEARTBEAT
