"""The event stream: one page of it as JSON, or live as server-sent events, for a tenant or for one run.

Whoever reads it gives a cursor, and is told when the history that the cursor is of has ended (api/http/conventions/cursors.py).
"""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, suppress
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from starlette.responses import Response, StreamingResponse

from api.container import Container
from api.http.conventions.cursors import HISTORY, PATTERN, cursor_of, ending, page_cursor, reset
from api.http.conventions.deps import POSITION, container_of, must_be_a_run, next_link, position_of, principal_of
from api.http.conventions.keys import Keys
from application.engine.reading.cloudevents import CloudEventEncoder
from application.engine.reading.histories import Cursor, History, HistoryEnded
from application.engine.reading.live import Batch, Filter, TooSlow
from application.engine.sagas.manager import partition_of
from domain import runs
from domain.errors import HistoryReplaced, InvalidCommand, NotFound, ProjectionBehind
from domain.kernel import RecordedEvent
from domain.registry import REGISTRY
from projections.engine.pages import MAX_LIMIT, MAX_POSITION, encode_cursor

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
After = Annotated[
    str | None, Query(pattern=PATTERN, description="Only events after this position, or after the event with this id of a stream")
]
Root = Annotated[UUID | None, Query(description="Only events inside this run")]


@router.get("/v1/events", summary="The tenant's whole feed", responses=SSE_DOC)
async def get_events(
    request: Request, after: After = None, types: Types = None, root_id: Root = None, limit: Limit = 100, cursor: str | None = None
) -> Response:
    """With `Accept: text/event-stream`: replay from `after` (or `Last-Event-ID`), then live, without a gap or a double."""
    wanted = Filter(principal_of(request).tenant_id, root_id, _topics(types))
    if _wants_stream(request):
        return await _streamed(request, _start(request, after), partial(_tenant_stream, request, wanted))
    return await _page(request, wanted, page_cursor(cursor) or _start(request, after), limit)


@router.get("/v1/runs/{run_id}/events", summary="The events of one run", responses=SSE_DOC)
async def get_run_events(
    request: Request, run_id: UUID, after: After = None, types: Types = None, limit: Limit = 100, cursor: str | None = None
) -> Response:
    """As a stream it ends with `event: end` when the run has ended and everything was sent."""
    tenant_id, topics = principal_of(request).tenant_id, _topics(types)
    if _wants_stream(request):
        return await _streamed(
            request, _start(request, after), partial(_run_stream, request, Filter(tenant_id, run_id), topics), run_id
        )
    return await _page(request, Filter(tenant_id, run_id, topics), page_cursor(cursor) or _start(request, after), limit, run_id)


@router.get("/v1/events/{position}", summary="One event by its position")
async def get_event(request: Request, position: int) -> Response:
    history = await container_of(request).histories.admit(None)
    found: list[RecordedEvent] = []
    if 0 < position <= MAX_POSITION:
        tenant_id = principal_of(request).tenant_id
        found = await container_of(request).feed.read_tenant(tenant_id, after=position - 1, until=position, limit=1)
    if not found:
        raise NotFound(f"there is no event at position {position}")
    return Response(
        container_of(request).cloud_events.encode(found[0]), 200, {HISTORY: history.history_id}, "application/cloudevents+json"
    )


def _wants_stream(request: Request) -> bool:
    return "text/event-stream" in request.headers.get("accept", "")


def _topics(types: str | None) -> frozenset[str] | None:
    if not types:
        return None
    topics = frozenset(part.strip() for part in types.split(",") if part.strip())
    unknown = sorted(topics - REGISTRY.events.keys())
    if unknown:
        raise InvalidCommand(f"unknown event type: {', '.join(unknown)}", pointer="/types")
    return topics


def _start(request: Request, after: str | None) -> Cursor | None:
    """Where a reader begins: `Last-Event-ID` of a stream that comes again before `after`; None: it does not say."""
    last = request.headers.get("last-event-id") if _wants_stream(request) else None
    return cursor_of(last if last is not None else after)


async def _page(request: Request, wanted: Filter, start: Cursor | None, limit: int, run_id: UUID | None = None) -> Response:
    history = await container_of(request).histories.admit(start)
    if run_id is not None:
        await must_be_a_run(request, run_id)
    after = start.position if start is not None else 0
    as_of = request.query_params.get("as_of")
    until = await position_of(request, as_of) if as_of else None
    topics = sorted(wanted.topics) if wanted.topics is not None else None
    found = await container_of(request).feed.read_tenant(
        wanted.tenant_id, after=after, limit=limit + 1, until=until, root_id=wanted.root_id, topics=topics
    )
    shown = found[:limit]
    following = encode_cursor(history.cursor(shown[-1].position)) if len(found) > limit else None
    body = b'{"data":[%s],"next_cursor":%s}' % (
        b",".join(map(container_of(request).cloud_events.encode, shown)),
        b'"%s"' % following.encode() if following else b"null",
    )
    position = str(shown[-1].position if shown else after)
    headers = {**next_link(request, following), POSITION: position, HISTORY: history.history_id}
    return Response(body, 200, headers, "application/json")


Body = Callable[[History, int | None], AsyncIterator[bytes]]
"""The stream of a history from after a position on."""


async def _streamed(request: Request, start: Cursor | None, body: Body, run_id: UUID | None = None) -> Response:
    """A reader of a history that has ended is told so in the stream: browsers do not come again after another status than 200."""
    try:
        history = await container_of(request).histories.admit(start)
    except HistoryReplaced as replaced:
        return Response(RETRY + reset(replaced), 200, {**SSE_HEADERS, HISTORY: replaced.history}, "text/event-stream")
    if run_id is not None:
        await must_be_a_run(request, run_id)
    stream = body(history, start.position if start is not None else None)
    return StreamingResponse(stream, 200, {**SSE_HEADERS, HISTORY: history.history_id}, "text/event-stream")


def _sse(encoder: CloudEventEncoder, history: History, events: Sequence[RecordedEvent]) -> bytes:
    return b"".join(
        b"id: %s\nevent: %s\ndata: %s\n\n" % (history.cursor(event.position).encode(), event.topic.encode(), encoder.encode(event))
        for event in events
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


async def _tenant_stream(request: Request, wanted: Filter, history: History, start: int | None) -> AsyncIterator[bytes]:
    container, permit, sent = container_of(request), _Permit(request), start
    yield RETRY
    try:
        async for events in container.live.events(wanted, after=start, history=history):
            if await permit.is_over():
                return
            sent = events[-1].position if events else sent
            yield events.once(partial(_sse, container.cloud_events, history)) if events else HEARTBEAT
    except TooSlow:
        yield b"event: resync\ndata: {}\n\n"
    except HistoryEnded:
        yield await ending(container.histories, history, sent)


class _Telling:
    """What a run's stream says of its events: those of the wanted types, and now and then that it still is there."""

    def __init__(
        self, encoder: CloudEventEncoder, history: History, topics: frozenset[str] | None, start: int | None, silence_s: float
    ) -> None:
        self._encoder = encoder
        self._silence_s = silence_s
        self._history = history
        self._topics = topics
        self._said_at = time.monotonic()
        self.sent = start
        """Position of the last event that the client has."""

    def text(self, events: Batch) -> bytes:
        """Empty where there is nothing to say."""
        shown = [event for event in events if self._topics is None or event.topic in self._topics]
        if not shown and events and time.monotonic() - self._said_at < self._silence_s:
            return b""
        self._said_at = time.monotonic()
        if not shown:
            return HEARTBEAT
        self.sent = shown[-1].position
        return (
            events.once(partial(_sse, self._encoder, self._history))
            if self._topics is None
            else _sse(self._encoder, self._history, shown)
        )


async def _run_stream(
    request: Request, wanted: Filter, topics: frozenset[str] | None, history: History, start: int | None
) -> AsyncIterator[bytes]:
    """Replay, then live until the run has ended; what the sagas append because of that is sent before the end."""
    container, permit, reached, run_id = container_of(request), _Permit(request), start or 0, wanted.root_id
    assert run_id is not None
    telling = _Telling(container.cloud_events, history, topics, start, container.live.silence_s)
    yield RETRY
    run = await container.replays.now(wanted.tenant_id, run_id)
    over = run is not None and run.status != "running"
    may_follow = over
    try:
        async with aclosing(container.live.events(wanted, after=reached, history=history)) as batches:
            while not over and (events := await anext(batches, None)) is not None:
                if await permit.is_over():
                    return
                if text := telling.text(events):
                    yield text
                reached = events[-1].position if events else reached
                ends = [event.topic for event in events if event.topic in runs.ENDS]
                over = bool(ends)
                may_follow = ends != [runs.RunCompleted.TOPIC]  # the cancelling of its parts
    except TooSlow:
        yield b"event: resync\ndata: {}\n\n"
        return
    except HistoryEnded:
        yield await ending(container.histories, history, telling.sent)
        return
    settled = False
    while may_follow:
        page = Batch(await container.feed.read_tenant(wanted.tenant_id, after=reached, limit=PAGE, root_id=run_id))
        if not container.histories.is_current(history.history_id):
            yield await ending(container.histories, history, telling.sent)
            return
        if page:
            if text := telling.text(page):
                yield text
            reached = page[-1].position
        elif settled:
            break
        if len(page) < PAGE:  # waited for before reading again: what the sagas have appended by then is read
            settled = await _settled(container, run_id, reached)
            over = may_follow = settled
    if over:
        yield b"id: %s\nevent: end\ndata: {}\n\n" % history.cursor(reached).encode()


async def _settled(container: Container, run_id: UUID, position: int) -> bool:
    """Waits until the sagas have taken notice of a position, for a bounded time; False when the process is about to stop."""
    give_up_at = time.monotonic() + LONGEST_ENDING_S
    while not container.live.closed and (left := give_up_at - time.monotonic()) > 0:
        with suppress(ProjectionBehind):
            await container.positions.until(partition_of(run_id), position, min(left, 0.5))
            break
    return not container.live.closed
