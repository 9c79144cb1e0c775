"""One subscription of a connection: replay, then live events, without a gap or a repetition, up to its end.

A task reads the past, and looks for what a narrowed key sees. Live events of all others are taken and sent in the moment in which
the live feed tells of them: no task, no timer and no copy belongs to an idle subscription.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Protocol
from uuid import UUID

from starlette.responses import Response

from api.http.conventions.errors import defect_problem, tidelog_problem
from api.http.sockets.connection import framed
from api.http.sockets.frames import message
from api.http.sockets.limits import EVENTS_BYTES, MAX_EVENTS
from api.metrics import SOCKET_RESYNCS
from application.engine.ports.log import EventFeed
from application.engine.reading.channels import Batch, FeedListener, Filter
from application.engine.reading.histories import Cursor, History, HistoryEnded
from application.engine.reading.history_keeper import HistoryKeeper
from application.engine.reading.live import LiveFeed
from application.narrowing import Narrowed
from application.reads import CurrentRuns
from application.runs.follow import FollowedRun
from application.runs.lookup import must_be_a_run
from domain.errors import HistoryReplaced, NotFound, TidelogError
from domain.kernel import RecordedEvent


class Connected(Protocol):
    """The connection of a subscription, and what the subscription needs of its process."""

    live: LiveFeed
    feed: EventFeed
    histories: HistoryKeeper
    runs: CurrentRuns
    seen: Narrowed | None
    """What the key sees. None: the whole tenant."""
    reading: asyncio.Lock
    """One subscription of a connection asks the database at a time."""
    encoded: Callable[[Sequence[RecordedEvent]], bytes]
    """Events as CloudEvents, with a comma after each."""

    @property
    def scope(self) -> dict[str, Any]:
        """For problem documents."""
        ...

    def write(self, frame: bytes) -> None: ...

    def say(self, type: str, **fields: Any) -> None: ...

    def say_problem(self, id: str | None, problem: Response, *, ended: bool, cursor: str | None = None) -> None: ...

    def is_crowded(self, subscription: "SocketSubscription") -> bool:
        """Whether the client does not read fast enough. The subscription's `send` is called when it has read."""
        ...

    def forget(self, subscription: "SocketSubscription") -> None:
        """The subscription is over."""
        ...


class SocketSubscription:
    """`run_id`: of the run with which the subscription ends."""

    __slots__ = (
        "_at_once", "_cursor", "_end", "_head", "_history", "_listener", "_on_way", "_on_way_events", "_quiet", "_rest", "_run_id",
        "_selected", "_socket", "_task", "_waiter", "_wanted", "_window", "id", "over", "reached",
    )  # fmt: skip

    def __init__(self, socket: Connected, id: str, wanted: Filter, run_id: UUID | None, window: int | None) -> None:
        self._socket = socket
        self.id = id
        self._head = message("events", id=id)[:-1] + b","
        self._run_id = run_id
        self._wanted = wanted if run_id is None else Filter(wanted.tenant_id, run_id)
        """What is listened to. The end of a run shows in events that need not be selected."""
        self._selected = None if self._wanted == wanted else wanted
        self._window = window
        self.reached = 0
        """Everything up to this position was sent, or is not wanted."""
        self._history: History | None = None
        self._end: FollowedRun | None = None
        self._listener: FeedListener | None = None
        self._rest: Sequence[Batch] = ()
        """Parts of a batch that is being sent."""
        self._on_way: deque[tuple[int, int]] | None = None if window is None else deque()
        """Position and number of the events of each frame that the client has not acknowledged."""
        self._on_way_events = 0
        self._waiter: asyncio.Future[None] | None = None
        self._quiet: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._at_once = False
        """Live events are sent in the moment in which they come."""
        self.over = False

    # --- beginning and end ----------------------------------------------------------------------------------------------------

    def begin(self, after: Cursor | None) -> None:
        self._start(lambda: self._follow(after, told=False))

    def _start(self, work: Callable[[], Awaitable[None]]) -> None:
        self._task = asyncio.create_task(self._guarded(work), name="subscription")

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        """Work of a subscription, whose errors end the subscription and no other one."""
        try:
            await work()
        except HistoryReplaced as replaced:
            self._finish(
                "reset", cursor=replaced.cursor, history=replaced.history, last_common_position=replaced.last_common_position,
                reason=replaced.reason,
            )  # fmt: skip
        except TidelogError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001  # a defect, logged like others
            self._socket.say_problem(self.id, defect_problem(self._socket.scope, error), ended=True, cursor=self.cursor)
            self.close()

    def _fail(self, error: TidelogError) -> None:
        if not self.over:
            self._socket.say_problem(self.id, tidelog_problem(self._socket.scope, error), ended=True, cursor=self.cursor)
            self.close()

    def _finish(self, type: str, **fields: object) -> None:
        """Says the last message. The id is free then."""
        if not self.over:
            self._socket.say(type, id=self.id, **fields)
            self.close()

    def close(self) -> "asyncio.Task[None] | None":
        """Ends the subscription without a word. Returns its task, if one still runs that is to be ended."""
        if self.over:
            return None
        self.over, self._at_once = True, False
        self._socket.forget(self)
        if self._listener is not None:
            self._socket.live.leave(self._wanted, self._listener)
            self._listener = None
        if self._quiet is not None:
            self._quiet.cancel()
        self._rest = ()
        task, self._task = self._task, None
        return None if task is None or task.done() or task is asyncio.current_task() else task

    @property
    def cursor(self) -> str | None:
        """Of everything that was sent. None: the subscription has not begun."""
        return None if self._history is None else self._history.cursor(self.reached)

    # --- the past -------------------------------------------------------------------------------------------------------------

    async def _follow(self, after: Cursor | None, *, told: bool) -> None:
        """Reads what is stored, then goes on live. `told`: the client knows of the subscription.

        Raises HistoryReplaced, PositionBeyondHead, NotFound, Unavailable.
        """
        socket, live = self._socket, self._socket.live
        history = self._history = await self._admitted(after)
        if self._must_stop():
            return None
        self.reached = live.position if after is None else after.position
        while True:
            listener = self._listener = live.listen(self._wanted, self._woken)
            joined_at = live.position
            if not told:
                told = True
                socket.say("subscribed", id=self.id, cursor=self.cursor)
            if self.reached < joined_at:
                async with aclosing(self._pages(joined_at)) as pages:
                    async for page in pages:
                        if listener.ended:
                            return self._again()
                        await self._hand_over(page)
                        if self.over:
                            return None
                self.reached = joined_at
            if not listener.overflowed:
                break
            live.leave(self._wanted, listener)  # more came than is kept: it is read as well
            try:
                await live.joined(history)
            except HistoryEnded:
                return self._again()
            if self._must_stop():
                return None
        if not self._is_at_end(()):
            socket.say("live", id=self.id, cursor=self.cursor)
            self._at_once = True
            self._task = None
            self._woken()
        return None

    def _must_stop(self) -> bool:
        return self.over or self._socket.live.closed

    async def _admitted(self, after: Cursor | None) -> History:
        """The history that the process reads, in which the cursor holds."""
        while True:
            async with self._socket.reading:
                history = await self._socket.histories.admit(after)
                if self._run_id is not None:
                    await self._begin_run(self._run_id)
            try:
                await self._socket.live.joined(history)
            except HistoryEnded:
                continue  # there is a later one by now
            return history

    async def _begin_run(self, run_id: UUID) -> None:
        socket, tenant_id = self._socket, self._wanted.tenant_id
        if socket.seen is not None and not await socket.seen.has(run_id):
            raise NotFound(f"there is no run {run_id}")
        await must_be_a_run(socket.feed, tenant_id, run_id)
        self._end = FollowedRun(await socket.runs.now(tenant_id, run_id))

    async def _pages(self, until: int) -> AsyncGenerator[Batch, None]:
        """The stored events up to a position. One subscription of a connection reads at a time, a page in its turn."""
        async with aclosing(self._socket.live.replay(self._wanted, self.reached, until)) as pages:
            while True:
                async with self._socket.reading:
                    page = await anext(pages, None)
                if page is None:
                    return
                yield page

    async def _hand_over(self, batch: Batch) -> None:
        """Sends events as the client takes them."""
        for part in batch.split(self._most(), EVENTS_BYTES):
            while not self.over and (self._socket.is_crowded(self) or self._is_too_much(part)):
                self._waiter = asyncio.get_running_loop().create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None
            seen = part if self._socket.seen is None else Batch(await self._socket.seen.only(part))
            if self.over or self._send(part, seen):
                return

    def _again(self) -> None:
        """The history has ended: goes on in the present one, if everything that was sent is still in it."""
        history, listener = self._history, self._listener
        assert history is not None and listener is not None
        self._socket.live.leave(self._wanted, listener)
        self._listener, self._at_once = None, False
        self._rest = ()
        self._start(lambda: self._follow(Cursor(self.reached, history.history_id), told=True))

    # --- live events ----------------------------------------------------------------------------------------------------------

    def _woken(self) -> None:
        """There may be something to send. Called by the live feed."""
        if self._at_once:
            self.send()

    def send(self) -> None:
        """Sends what waits, as far as the client takes it."""
        if self._waiter is not None:
            if not self._waiter.done():
                self._waiter.set_result(None)
            return
        while self._at_once and (self._has_more() or self._rest):
            if self._socket.seen is not None:
                self._at_once = False
                self._start(self._send_seen)
                return
            if self._socket.is_crowded(self):
                return
            part = self._first()
            if self._is_too_much(part):
                return
            self._rest = self._rest[1:]
            if self._send(part, part):
                return

    async def _send_seen(self) -> None:
        """Sends what waits to a reader that does not see all of it."""
        while not self.over and (self._has_more() or self._rest):
            part, self._rest = self._first(), self._rest[1:]
            await self._hand_over(part)
        if not self.over and self._listener is not None:
            self._task, self._at_once = None, True

    def _has_more(self) -> bool:
        """Whether events wait. Ends the subscription if they cannot be had any more."""
        listener = self._listener
        if listener is None or self._socket.live.closed:
            return False
        if listener.ended:
            self._again()
            return False
        if listener.overflowed:
            SOCKET_RESYNCS.inc()
            self._finish("resync", cursor=self.cursor)
            return False
        return listener.queued > 0

    def _first(self) -> Batch:
        """The next part of what waits, which is then the first of `_rest`."""
        if not self._rest:
            assert self._listener is not None
            batch = self._listener.take_some(self._most(), EVENTS_BYTES)
            if batch and batch[0].position <= self.reached:  # this process had not read up to the client's position then
                batch = Batch(event for event in batch if event.position > self.reached)
            self._rest = batch.split(self._most(), EVENTS_BYTES)
        return self._rest[0]

    def _most(self) -> int:
        return MAX_EVENTS if self._window is None else min(self._window, MAX_EVENTS)

    def _is_too_much(self, part: Batch) -> bool:
        """Whether the client wants to acknowledge other events first."""
        return self._window is not None and self._on_way_events > 0 and self._on_way_events + len(part) > self._window

    # --- sending --------------------------------------------------------------------------------------------------------------

    def _send(self, events: Batch, seen: Batch) -> bool:
        """Sends what is selected of the events that the client sees. Returns whether the subscription is over."""
        if not events:
            return self.over
        shown = seen if self._selected is None else Batch(event for event in seen if self._selected(event))
        self.reached = max(self.reached, events[-1].position)
        if shown:
            if self._on_way is not None:
                self._on_way.append((shown[-1].position, len(shown)))
                self._on_way_events += len(shown)
            self._socket.write(framed(self._head, shown.once(self._written, "frame", whole=True)))
        return self._is_at_end(events)

    def _written(self, events: Sequence[RecordedEvent]) -> bytes:
        """The end of a frame, the same for all that are sent these events."""
        assert self._history is not None and isinstance(events, Batch)
        cursor = self._history.cursor(events[-1].position).encode()
        return b'"cursor":"%s","events":[%s]}' % (cursor, events.once(self._socket.encoded, "events")[:-1])

    def acknowledge(self, position: int) -> None:
        while self._on_way and self._on_way[0][0] <= position:
            self._on_way_events -= self._on_way.popleft()[1]
        self.send()

    # --- the end of a run -----------------------------------------------------------------------------------------------------

    def _is_at_end(self, events: Sequence[RecordedEvent]) -> bool:
        """Whether the subscription is over, after further events of its run."""
        end = self._end
        if end is None or self.over:
            return self.over
        if end.after(events, self.reached):
            self._finish("end", cursor=self.cursor)
        elif end.is_near:  # the silence after the last event counts
            if self._quiet is not None:
                self._quiet.cancel()
            self._quiet = asyncio.get_running_loop().call_later(self._socket.live.silence_s, self._was_quiet)
        return self.over

    def _was_quiet(self) -> None:
        self._quiet = None
        if self._end is not None and self._end.is_given_up(self.reached):
            self._finish("end", cursor=self.cursor)
