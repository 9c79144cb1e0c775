"""The events of a tenant or of one run: a page as JSON, or a live stream as server-sent events.

Readers give a cursor. They are told if the history of the cursor has ended (api/http/conventions/cursors.py).
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from starlette.responses import Response, StreamingResponse
from uuid_utils.compat import uuid7

from api.http.conventions.answers import next_link
from api.http.conventions.callers import Callers
from api.http.conventions.cursors import HISTORY, PATTERN, cursor_of, ending, page_cursor, reset
from api.http.conventions.narrowing import seen_by
from api.http.conventions.permissions import Reach, needs
from api.http.conventions.positions import POSITION
from api.http.conventions.request import container_of, principal_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from api.http.documents.headers import headers
from application.engine.ports.log import AskedBy
from application.engine.ports.pages import MAX_LIMIT, encode_cursor
from application.engine.reading.as_of import time_of
from application.engine.reading.channels import Batch, Filter, TooSlow
from application.engine.reading.cloudevents import CloudEventEncoder
from application.engine.reading.event_pages import EventPage, Sees, Within, event_at, read_event_page, read_newest_page
from application.engine.reading.histories import Cursor, History, HistoryEnded
from application.narrowing import only_seen
from application.runs.follow import RunOver, RunStreams
from application.runs.lookup import must_be_a_run
from application.suggestions import did_you_mean
from domain.access import Action
from domain.errors import HistoryReplaced, InvalidCommand, Unavailable
from domain.kernel import RecordedEvent
from domain.registry import REGISTRY

router = APIRouter(tags=["events"], route_class=DirectRoute)

SSE_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
NOTHING_FOLLOWS: dict[str, Any] = {
    "description": "The run has ended, and the reader has all its events: a browser's `EventSource` then stops asking",
    "headers": headers("Tidelog-History", "Cache-Control", "X-Accel-Buffering"),
}
AT_END_S = 2.0
"""Seconds for the question whether a run's reader has everything. Without an answer in time the stream begins."""

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT)]
Types = Annotated[str | None, Query(description="Event types, separated by commas, such as run.started,run.completed")]
After = Annotated[
    str | None,
    Query(pattern=PATTERN, description="Only events after this position, or after the event that has this id in a stream"),
]
PageCursor = Annotated[str | None, Query(description="Of a page: the `next_cursor` of the page before")]
AsOf = Annotated[str | None, Query(description="Of a page: only events up to this position, or up to this RFC 3339 time")]
FirstTime = Annotated[str | None, Query(description="Of a page: only events that were recorded at this RFC 3339 time or later")]
EndTime = Annotated[str | None, Query(description="Of a page: only events that were recorded before this RFC 3339 time")]
NewestFirst = Annotated[bool, Query(description="Of a page: the newest events first, and older ones by `next_cursor`")]
OF_PAGES = ("limit", "cursor", "as_of", "recorded_after", "recorded_before", "newest_first")
Actor = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=500,
        pattern=r"^[^\x00]+$",
        description="Only what this one has asked for, as `key:<key id>`",
    ),
]
OnBehalfOf = Annotated[
    str | None,
    Query(min_length=1, max_length=500, pattern=r"^[^\x00]+$", description="Only what was asked for on behalf of this one"),
]
Root = Annotated[UUID | None, Query(description="Only events inside this run")]


@router.get(
    "/v1/events",
    summary="The tenant's whole feed",
    responses={200: openapi.EVENTS},
    openapi_extra=openapi.takes_headers("Last-Event-ID"),
)
@needs(Action.EVENTS_READ, Reach.LIMITED)
async def get_events(
    request: Request,
    after: After = None,
    types: Types = None,
    root_id: Root = None,
    actor: Actor = None,
    on_behalf_of: OnBehalfOf = None,
    limit: Limit = 100,
    cursor: PageCursor = None,
    as_of: AsOf = None,
    recorded_after: FirstTime = None,
    recorded_before: EndTime = None,
    newest_first: NewestFirst = False,
) -> Response:
    """With `Accept: text/event-stream`: replay from `after` or `Last-Event-ID`, then live, without a gap or a repetition.

    With `actor` or `on_behalf_of` a page looks at 2,000 events at most. So it may have fewer events than `limit`, or none, and a
    `next_cursor`.
    """
    asked = AskedBy(actor, on_behalf_of)
    wanted = Filter(principal_of(request).tenant_id, root_id, topics_of(types), asked)
    seen = seen_by(request)
    if _wants_stream(request):
        _must_not_be_of_pages(request)
        live = container_of(request).live

        def source(history: History, start: int | None) -> AsyncGenerator[Batch, None]:
            events = live.events(wanted, after=start, history=history)
            return events if seen is None else only_seen(events, seen.only, live.silence_s)

        return await _streamed(request, _start(request, after), source)
    within, sees = _within(recorded_after, recorded_before), None if seen is None else seen.only
    if seen is not None and root_id is not None and not await seen.has(root_id):
        wanted = replace(wanted, root_id=uuid7())
    if newest_first:
        return await _newest_page(request, wanted, _start(request, after), page_cursor(cursor), limit, as_of, within, sees)
    return await _page(request, wanted, page_cursor(cursor) or _start(request, after), limit, as_of, within, sees=sees)


@router.get(
    "/v1/runs/{run_id}/events",
    summary="The events of one run",
    responses={200: openapi.EVENTS, 204: NOTHING_FOLLOWS},
    openapi_extra=openapi.takes_headers("Last-Event-ID"),
)
@needs(Action.EVENTS_READ, Reach.RUN)
async def get_run_events(
    request: Request,
    run_id: UUID,
    after: After = None,
    types: Types = None,
    limit: Limit = 100,
    cursor: PageCursor = None,
    as_of: AsOf = None,
    recorded_after: FirstTime = None,
    recorded_before: EndTime = None,
) -> Response:
    """With `Accept: text/event-stream`: the stream ends with `event: end` when the run has ended and all events were sent."""
    container, tenant_id, topics = container_of(request), principal_of(request).tenant_id, topics_of(types)
    if _wants_stream(request):
        _must_not_be_of_pages(request)
        streams = RunStreams(container.live, container.feed, container.histories, container.replays)
        return await _streamed(
            request,
            _start(request, after),
            lambda history, start: streams.follow(tenant_id, run_id, topics=topics, history=history, after=start),
            run_id,
            streams,
        )
    wanted, start = Filter(tenant_id, run_id, topics), page_cursor(cursor) or _start(request, after)
    return await _page(request, wanted, start, limit, as_of, _within(recorded_after, recorded_before), run_id)


@router.get("/v1/events/{position}", summary="One event by its position", responses={200: openapi.EVENT})
@needs(Action.EVENTS_READ, Reach.EVENT)
async def get_event(request: Request, position: int) -> Response:
    container = container_of(request)
    event, history = await event_at(container.feed, container.histories, principal_of(request).tenant_id, position)
    headers = {HISTORY: history.history_id}
    return Response(container.cloud_events.encode(event), 200, headers, "application/cloudevents+json")


def _wants_stream(request: Request) -> bool:
    return "text/event-stream" in request.headers.get("accept", "")


def _must_not_be_of_pages(request: Request) -> None:
    """Raises InvalidCommand for a parameter of pages: a stream would ignore it."""
    for name in OF_PAGES:
        if name in request.query_params:
            raise InvalidCommand(f"{name} is for pages; a stream begins at `after` and has no end", pointer=f"/{name}")


def topics_of(types: str | None) -> frozenset[str] | None:
    if types is None:
        return None
    topics = frozenset(part.strip() for part in types.split(",") if part.strip())
    if not topics:
        raise InvalidCommand("types names no event type", pointer="/types")
    unknown = sorted(topics - REGISTRY.events.keys())
    if unknown:
        meant = did_you_mean(unknown[0], REGISTRY.events) if len(unknown) == 1 else ""
        raise InvalidCommand(f"unknown event type: {', '.join(unknown)}{meant} (GET /schemas lists all)", pointer="/types")
    return topics


def _within(first: str | None, end: str | None) -> Within:
    return Within(time_of("recorded_after", first), time_of("recorded_before", end))


def _start(request: Request, after: str | None) -> Cursor | None:
    """The reader's cursor. `Last-Event-ID` of a stream's reader goes before `after`. None: the reader gave no cursor."""
    last = request.headers.get("last-event-id") if _wants_stream(request) else None
    return cursor_of(last if last is not None else after)


async def _page(
    request: Request,
    wanted: Filter,
    start: Cursor | None,
    limit: int,
    as_of: str | None,
    within: Within,
    run_id: UUID | None = None,
    sees: Sees | None = None,
) -> Response:
    container = container_of(request)
    history = await container.histories.admit(start)
    if run_id is not None:
        await must_be_a_run(container.feed, wanted.tenant_id, run_id)
    page = await read_event_page(
        container.feed, container.histories, wanted, start, limit=limit, as_of=as_of, within=within, sees=sees
    )
    return _shown(request, history, page)


async def _newest_page(
    request: Request,
    wanted: Filter,
    start: Cursor | None,
    before: Cursor | None,
    limit: int,
    as_of: str | None,
    within: Within,
    sees: Sees | None,
) -> Response:
    container = container_of(request)
    history = await container.histories.admit(start)
    if before is not None:
        history = await container.histories.admit(before)
    page = await read_newest_page(
        container.feed, container.histories, wanted, start, before=before, limit=limit, as_of=as_of, within=within, sees=sees
    )
    return _shown(request, history, page)


def _shown(request: Request, history: History, page: EventPage) -> Response:
    container = container_of(request)
    following = encode_cursor(history.cursor(page.position)) if page.more else None
    body = b'{"data":[%s],"next_cursor":%s}' % (
        b",".join(map(container.cloud_events.encode, page.events)),
        b'"%s"' % following.encode() if following else b"null",
    )
    headers = {**next_link(request, following), POSITION: str(page.position), HISTORY: history.history_id}
    return Response(body, 200, headers, "application/json")


Source = Callable[[History, int | None], AsyncGenerator[Batch | RunOver, None]]
"""(history, position) → the batches of the history after that position."""


async def _streamed(
    request: Request, start: Cursor | None, source: Source, run_id: UUID | None = None, streams: RunStreams | None = None
) -> Response:
    """The answer with a stream, or 204 for the stream of a run that has ended, to a reader that has all its events.

    The end of the reader's history is told in the stream: browsers only reconnect after status 200.
    """
    container = container_of(request)
    try:
        history = await container.histories.admit(start)
    except HistoryReplaced as replaced:
        return Response(RETRY + reset(replaced), 200, {**SSE_HEADERS, HISTORY: replaced.history}, "text/event-stream")
    if run_id is not None:
        await must_be_a_run(container.feed, principal_of(request).tenant_id, run_id)
    after = start.position if start is not None else None
    if run_id is not None and streams is not None and after is not None and await _is_over(request, streams, run_id, after):
        return Response(status_code=204, headers={**SSE_HEADERS, HISTORY: history.history_id})
    stream = _sent(request, source(history, after), history, after)
    return StreamingResponse(stream, 200, {**SSE_HEADERS, HISTORY: history.history_id}, "text/event-stream")


async def _is_over(request: Request, streams: RunStreams, run_id: UUID, after: int) -> bool:
    """Whether nothing will follow in a run's stream after a position. False if that cannot be known in time."""
    try:
        async with asyncio.timeout(AT_END_S):
            return await streams.is_at_end(principal_of(request).tenant_id, run_id, after)
    except (TimeoutError, Unavailable):
        return False


def _sse(encoder: CloudEventEncoder, history: History, events: Sequence[RecordedEvent]) -> bytes:
    return b"".join(
        b"id: %s\nevent: %s\ndata: %s\n\n" % (history.cursor(event.position).encode(), event.topic.encode(), encoder.shared(event))
        for event in events
    )


HEARTBEAT = b": heartbeat\n\n"
RETRY = b"retry: 1000\n\n"


class _Permit:
    """The key that opened a stream. At its end the stream ends, also where it waits for events."""

    def __init__(self, request: Request) -> None:
        callers: Callers = request.app.state.callers
        self._ended = False
        self._waiting: asyncio.Timeout | None = None
        self.release = callers.hold(request.scope, self._end)

    def is_over(self) -> bool:
        return self._ended

    def _end(self) -> None:
        self._ended = True
        if self._waiting is not None:
            self._waiting.reschedule(asyncio.get_running_loop().time())

    async def next(self, source: AsyncGenerator[Batch | RunOver, None]) -> Batch | RunOver | None:
        """What comes next. None: nothing, or the key has ended."""
        if self.is_over():
            return None
        try:
            async with asyncio.timeout(None) as self._waiting:
                return await anext(source, None)
        except TimeoutError:
            if self.is_over():
                return None
            raise
        finally:
            self._waiting = None


async def _sent(
    request: Request, source: AsyncGenerator[Batch | RunOver, None], history: History, start: int | None
) -> AsyncIterator[bytes]:
    """The text of the stream. `start`: position of the last event that the client has."""
    container, permit, sent = container_of(request), _Permit(request), start
    text = partial(_sse, container.cloud_events, history)
    try:
        yield RETRY
        async with aclosing(source) as batches:
            while (events := await permit.next(batches)) is not None and not permit.is_over():
                if isinstance(events, RunOver):
                    yield b"id: %s\nevent: end\ndata: {}\n\n" % history.cursor(events.position).encode()
                    return
                if events:
                    sent = events[-1].position
                    yield events.once(text)
                else:
                    yield HEARTBEAT
    except TooSlow:
        yield b"event: resync\ndata: {}\n\n"
    except HistoryEnded:
        yield await ending(container.histories, history, sent)
    finally:
        permit.release()
