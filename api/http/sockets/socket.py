"""One connection: its subscriptions, and which of them may send now."""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import orjson
from starlette.responses import Response

from api.http.conventions.cursors import cursor_of
from api.http.conventions.errors import tidelog_problem
from api.http.sockets import frames
from api.http.sockets.connection import PING, EventConnection, framed
from api.http.sockets.errors import AlreadySubscribed, TooManySubscriptions
from api.http.sockets.frames import Acknowledge, Ping, Said, Subscribe, Unsubscribe
from api.http.sockets.limits import (
    HEARTBEAT_S,
    MAX_ENDING,
    MAX_FRAME,
    MAX_SUBSCRIPTIONS,
    MAX_WINDOW,
    PATH,
    RECONNECT_MS,
)
from api.http.sockets.subscription import SocketSubscription
from api.metrics import SOCKET_SUBSCRIPTIONS
from application.engine.background import end
from application.engine.ports.log import EventFeed
from application.engine.reading.history_keeper import HistoryKeeper
from application.engine.reading.live import LiveFeed
from application.narrowing import Narrowed
from application.reads import CurrentRuns
from domain.errors import TidelogError
from domain.kernel import RecordedEvent

WELCOME = framed(
    frames.message(
        "welcome", heartbeat_s=HEARTBEAT_S, max_subscriptions=MAX_SUBSCRIPTIONS, max_frame_bytes=MAX_FRAME, max_window=MAX_WINDOW
    )
)
SIGN_OF_LIFE = PING + framed(frames.message("heartbeat"))
"""Clients answer to pings; scripts of browsers see no pings."""
PONG = framed(frames.message("pong"))


class EventSocket:
    """`seen`: what the key sees. None: the whole tenant. `encoded`: events as CloudEvents, with a comma after each."""

    __slots__ = (
        "_connection", "_ending", "_subscriptions", "_tenant_id", "_trace_id", "_waiting",
        "encoded", "feed", "histories", "live", "over", "reading", "runs", "seen",
    )  # fmt: skip

    def __init__(
        self, connection: EventConnection, live: LiveFeed, feed: EventFeed, histories: HistoryKeeper, runs: CurrentRuns, *,
        tenant_id: UUID, seen: Narrowed | None, trace_id: str, encoded: Callable[[Sequence[RecordedEvent]], bytes],
    ) -> None:  # fmt: skip
        self._connection = connection
        self.live, self.feed, self.histories, self.runs = live, feed, histories, runs
        self.seen = seen
        self.encoded = encoded
        self.reading = asyncio.Lock()
        """One subscription of a connection asks the database at a time."""
        self._tenant_id, self._trace_id = tenant_id, trace_id
        self._subscriptions: dict[str, SocketSubscription] = {}
        self._waiting: dict[SocketSubscription, None] = {}
        """Those that have something to send, in the order in which they may."""
        self._ending: set[asyncio.Task[None]] = set()
        self.over = False
        connection.relieved = self._relieved
        connection.stopping = self._stop

    @property
    def scope(self) -> dict[str, Any]:
        """For problem documents."""
        return {"path": PATH, "state": {"trace_id": self._trace_id}}

    # --- what the client says -------------------------------------------------------------------------------------------------

    async def take(self, text: str | None) -> None:
        """Takes a frame; None: it is not text. Returns when the next one may be taken."""
        try:
            self._take(frames.read(text))
        except TidelogError as error:
            id = frames.id_in(text)
            self.say_problem(id, tidelog_problem(self.scope, error), ended=id is not None and id not in self._subscriptions)
        while len(self._ending) >= MAX_ENDING:
            await asyncio.wait(self._ending, return_when=asyncio.FIRST_COMPLETED)
        await self._connection.writable.wait()

    def _take(self, said: Said) -> None:
        match said:
            case Subscribe():
                self._subscribe(said)
            case Unsubscribe():
                found = self._subscriptions.get(said.id)
                cursor = None if found is None else found.cursor
                if found is not None:
                    self._end(found)
                self.say("unsubscribed", id=said.id, cursor=cursor)
            case Acknowledge():
                cursor_ = cursor_of(said.cursor)
                if (found := self._subscriptions.get(said.id)) is not None and cursor_ is not None:
                    found.acknowledge(cursor_.position)
            case Ping():
                self.write(PONG)

    def _subscribe(self, said: Subscribe) -> None:
        """Raises InvalidCommand, AlreadySubscribed, TooManySubscriptions."""
        if said.id in self._subscriptions:
            raise AlreadySubscribed(f"there is a subscription '{said.id}' already", pointer="/id")
        if len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            raise TooManySubscriptions(f"a connection may have {MAX_SUBSCRIPTIONS} subscriptions")
        wanted = said.filter.wanted(self._tenant_id)
        subscription = SocketSubscription(self, said.id, wanted, said.filter.run_id, said.window)
        self._subscriptions[said.id] = subscription
        SOCKET_SUBSCRIPTIONS.inc()
        subscription.begin(cursor_of(said.after))

    def _end(self, subscription: SocketSubscription) -> None:
        task = subscription.close()
        if task is not None:
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
            task.cancel()

    def forget(self, subscription: SocketSubscription) -> None:
        """The subscription is over."""
        self._waiting.pop(subscription, None)
        if self._subscriptions.get(subscription.id) is subscription:
            del self._subscriptions[subscription.id]
            SOCKET_SUBSCRIPTIONS.dec()

    # --- what the server says -------------------------------------------------------------------------------------------------

    def write(self, frame: bytes) -> None:
        self._connection.write(frame)

    def say(self, type: str, **fields: Any) -> None:
        self.write(framed(frames.message(type, **fields)))

    def say_problem(self, id: str | None, problem: Response, *, ended: bool, cursor: str | None = None) -> None:
        """Says an error. `ended`: there is no subscription with this id, or not any more."""
        about = {} if id is None else {"id": id, "ended": ended, "cursor": cursor}
        self.say("error", **about, problem=orjson.Fragment(bytes(problem.body)))

    def is_crowded(self, subscription: SocketSubscription) -> bool:
        """Whether the client does not read fast enough. The subscription is called when it has read."""
        if not self._connection.is_blocked():
            return False
        self._waiting[subscription] = None
        return True

    def _relieved(self) -> None:
        """Lets those send that wait, in turn, as long as the client takes it."""
        for subscription in list(self._waiting):
            if self._connection.is_blocked():
                return
            self._waiting.pop(subscription, None)
            subscription.send()

    # --- the end --------------------------------------------------------------------------------------------------------------

    def beat(self, *, in_time: bool) -> None:
        """A sign of life both ways. A peer without one since the last beat is gone, if this process could have heard it."""
        connection = self._connection
        if in_time and not (connection.heard or connection.read_paused):
            connection.close(4408, "silent")
            return
        connection.heard = False
        connection.write(SIGN_OF_LIFE)

    def end_with(self, code: int, reason: str, error: TidelogError) -> None:
        """Closes the connection with an error."""
        self.say_problem(None, tidelog_problem(self.scope, error), ended=False)
        self._connection.close(code, reason)

    def _stop(self) -> None:
        """The process stops. The clients come again elsewhere, and not all in the same moment."""
        self.say("reconnect", after_ms=random.randrange(RECONNECT_MS))
        self._connection.close(1001, "stopping")

    async def close(self) -> None:
        """The connection is over."""
        self.over = True
        self._connection.relieved = self._connection.stopping = None
        for subscription in list(self._subscriptions.values()):
            self._end(subscription)
        await end(*self._ending)
