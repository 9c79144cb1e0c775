"""The session's thread: connects, comes back after losses, renews the connection, and watches over what has no answer."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from tidelog.calling import end_tasks
from tidelog.crews import CallThreads, daemon
from tidelog.errors import AuthenticationError, InvalidRequestError, PermissionDeniedError, TidelogAPIError, api_error
from tidelog.session.frames import MAX_MESSAGE_BYTES, VERSIONS, frame, message
from tidelog.session.inbound import Inbound
from tidelog.session.link import Link, LinkError, Target
from tidelog.session.offers import NOTHING
from tidelog.session.outbox import Outbox, Report
from tidelog.session.talk import LEFT, REPLACED, SILENT, Talk

TICK_S, SECOND_LOOK_S = 1.0, 0.25
"""Seconds between two looks at the connection; before the second look at one in doubt."""
WELCOME_S = 600.0
"""The server registers all definitions before the welcome: many workers with many agents that come together take their time. A
server that is away is noticed by its silence. A worker that gave up would let the server begin anew."""
FIRST_PAUSE_S, SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 0.1, 5.0
MOST_DOUBLED = 16
SOON_BACK_S, SOON_DOUBLED = 60.0, 2
"""For so many seconds after a loss, tries that reach nobody do not lengthen the pause beyond `FIRST_PAUSE_S`, doubled so often.
Such a try costs the server nothing, and a server that is started again is back after a few seconds."""
STEADY_S = 2.0
"""A connection that held for so long after the welcome was a good one: pauses begin anew."""
RENEW_S, RENEW_JITTER_S = 3000.0, 600.0
STUCK_S = 60.0
"""Seconds without an answer to a report after which the connection is replaced, though the server beats."""
LIFELESS_S = 60.0
"""Seconds without a sign of the user's loop after which the session ends its connection: other workers then take over its work."""
CLOSING_S = 2.0
LINES_WITHIN_S = 0.1
"""Seconds that lines of agents wait for others, to go in one message."""
MAX_IN_HAND = 5_000
"""Pieces of work that a `hello` may name. The server sends further ones again, under the same attempt."""

NOT_THE_KEY, NOT_ALLOWED, NOT_UNDERSTOOD, NO_COMMON_VERSION = 4401, 4403, 4400, 4426


class RefusedSession(Exception):
    """The server refuses this worker; a retry would not help."""


@dataclass(slots=True)
class Held:
    """An attempt in hand. `version`: of an agent run, up to which the worker has the news."""

    token: str
    version: int


@dataclass(frozen=True, slots=True)
class Welcomed:
    """The server has accepted the session on socket `era`. `again`: it is the session of before. `offered`: with this hello."""

    era: int
    message: dict[str, Any]
    again: bool
    offered: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Arrived:
    """Work number `n` of the socket. `message`: None for work that is in hand already."""

    era: int
    n: int
    kind: str
    message: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Trouble:
    """The session has no connection. `lost`: it had one before."""

    reason: str
    lost: bool


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Nobody will answer the report."""

    report: Report
    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The thread has ended: on request, or by this error."""

    error: BaseException | None


class Pauses:
    """How long the session waits before it connects again: at random, and longer after each try that failed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._lost_at = clock()

    def next_s(self, held_s: float = 0.0, *, reached: bool = True) -> float:
        """`held_s`: for how long the connection held after the welcome; 0: the server did not welcome the worker.

        `reached`: whether anybody has answered the try.
        """
        if held_s >= STEADY_S:
            self._failures, self._lost_at = 0, self._clock()
        elif reached or self._clock() - self._lost_at >= SOON_BACK_S:
            self._failures = min(self._failures + 1, MOST_DOUBLED)
        else:
            self._failures = max(self._failures, min(self._failures + 1, SOON_DOUBLED))
        return random.uniform(SHORTEST_PAUSE_S, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**self._failures))


class Driver:
    """`start`, `stop`, `ring` and the attributes without an underscore belong to the user's loop, all else to the thread."""

    def __init__(self, target: Target, identity: Mapping[str, Any], inbound: Inbound) -> None:
        """`identity`: the fields of `hello` that never change."""
        self.offer: Mapping[str, Any] = {}
        """Agents, tools and problems of the next `hello`."""
        self.held: dict[tuple[str, int], Held] = {}
        """The attempts in hand. The thread adds, the user's loop takes away and sets the versions."""
        self.pulse_at = time.monotonic()
        """The last sign of the user's loop."""
        self.outbox = Outbox(self.ring, self._ring_soon)
        self._target = target
        self._identity = identity
        self._inbound = inbound
        self._loop = _new_loop()
        self._stopping: asyncio.Future[bool] = self._loop.create_future()
        self._session: str | None = None
        self._secret: str | None = None
        self._eras = 0
        self._talks: dict[Talk, asyncio.Task[str]] = {}
        self._current: Talk | None = None
        self._ticked = time.monotonic()

    def start(self) -> None:
        daemon(self._run, "session").start()

    def stop(self, *, leave: bool) -> None:
        """End the session. `leave`: the worker says that it leaves, and its work goes to others at once."""

        def set_stop() -> None:
            if not self._stopping.done():
                self._stopping.set_result(leave)

        with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended
            self._loop.call_soon_threadsafe(set_stop)

    def ring(self) -> None:
        talk = self._current
        if talk is not None:
            with contextlib.suppress(RuntimeError):
                talk.ring()

    def _ring_soon(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended
            self._loop.call_soon_threadsafe(self._loop.call_later, LINES_WITHIN_S, self.ring)

    # --- the thread ---

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._live())
        except BaseException as raised:  # noqa: BLE001  # told on the user's loop, which ends the worker
            error = raised
        self._give_up(self.outbox.clear(), "the session is over")
        self._inbound.put(Ended(error))

    async def _live(self) -> None:
        self._loop.set_default_executor(CallThreads(max_workers=1))
        pauses = Pauses()
        while not self._stopping.done():
            reason, lost, reached, after_s, held_s = "", False, True, 0.0, 0.0
            try:
                talk = await self._begin()
                if talk is not None:
                    welcomed_at = time.monotonic()
                    lost, reason = True, await self._stay(talk)
                    held_s = time.monotonic() - welcomed_at
            except LinkError as error:
                reason, reached = str(error), error.reached
            except TidelogAPIError as error:
                reason, after_s = str(error), error.retry_after_s or 0.0
            if self._stopping.done():
                return
            self._inbound.put(Trouble(reason, lost))
            await self._pause(max(after_s, pauses.next_s(held_s, reached=reached)))

    async def _pause(self, seconds: float) -> None:
        """Also waits for a sign of the user's loop: without one there is nobody to work."""
        await self._wait(set(), seconds)
        self._expire()
        while not self._user_loop_lives() and not self._stopping.done():
            await self._wait(set(), TICK_S)
            self._expire()

    async def _wait(self, those: set[asyncio.Future[Any]], seconds: float | None = None) -> None:
        """Waits for one of these, or for the request to stop."""
        await asyncio.wait({*those, self._stopping}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)

    async def _begin(self) -> Talk | None:
        """A connection on which the server has welcomed the session; None: the session is to stop.

        Raises:
            LinkError, TidelogAPIError: not now. RefusedSession: not ever.
        """
        opening = asyncio.create_task(Link.open(self._target), name="open")
        await self._wait({opening})
        if not opening.done():
            await end_tasks(opening)
            return None
        try:
            link = opening.result()
        except TidelogAPIError as error:
            raise _final(error) from error
        try:
            offered, hello = self._introduce()
        except RefusedSession:
            link.abort()
            raise
        self._eras += 1
        talk = Talk(self._eras, link, self.outbox, self._inbound, partial(self._take, offered))
        task = self._talks[talk] = asyncio.create_task(talk.run(hello), name=f"talk {talk.era}")
        try:
            await self._wait({task, talk.welcomed}, WELCOME_S)
            if talk.welcomed.done():
                return talk
            if self._stopping.done():
                return None
            reason = _reason(task) if task.done() else f"the server did not welcome the worker within {WELCOME_S:.0f} s"
            if talk.problem is not None:
                raise _final(api_error(int(talk.problem.get("status") or 500), talk.problem))
            if talk.code in (NOT_THE_KEY, NOT_ALLOWED, NOT_UNDERSTOOD, NO_COMMON_VERSION):
                raise RefusedSession(reason)
            raise LinkError(reason)
        finally:
            if not talk.welcomed.done():
                await self._drop(talk)

    async def _stay(self, talk: Talk) -> str:
        """Stays connected, over renewals of the connection. Returns why the connection was lost."""
        renew_at, doubted = self._next_renewal(), False
        while True:
            await self._wait({self._talks[talk]}, SECOND_LOOK_S if doubted else TICK_S)
            if self._stopping.done():
                await self._leave(talk)
                return ""
            if self._talks[talk].done():
                if talk.code == NOT_UNDERSTOOD:
                    self._give_up(self.outbox.suspects(), "the server could not read what was sent")
                return await self._drop(talk)
            self._expire()
            if not self._user_loop_lives():
                await talk.close(SILENT, "the worker's event loop stands still")
                await self._drop(talk)
                return f"the worker's event loop stands still for {LIFELESS_S:.0f} s: other workers take over its work"
            sent_at, now = self.outbox.oldest_sent_at(), time.monotonic()
            in_doubt, doubted = doubted and talk.in_doubt, talk.in_doubt  # twice: what this thread has not read yet is no silence
            if now < renew_at and not talk.drained and not in_doubt and (sent_at is None or now - sent_at < STUCK_S):
                continue
            talk.drained = False
            try:
                newer = await self._begin()
            except (LinkError, TidelogAPIError):
                renew_at = now + random.uniform(TICK_S, LONGEST_PAUSE_S)
                continue
            if newer is not None:
                older, talk, renew_at = talk, newer, self._next_renewal()
                await older.close(REPLACED, "replaced by a newer connection")
                await self._drop(older)

    async def _leave(self, talk: Talk) -> None:
        with contextlib.suppress(LinkError, TimeoutError):
            async with asyncio.timeout(CLOSING_S):
                if self._stopping.result():
                    await talk.send_lines()
                    await talk.leave()
                    await asyncio.wait({self._talks[talk]}, timeout=CLOSING_S / 2)  # the server closes when it has done it
                await talk.close(LEFT)
        await self._drop(talk)

    async def _drop(self, talk: Talk) -> str:
        """Ends the task of a talk. Returns why the talk ended."""
        task = self._talks.pop(talk)
        if self._current is talk:
            self._current = None
        await end_tasks(task)
        return _reason(task)

    def _next_renewal(self) -> float:
        return time.monotonic() + random.uniform(RENEW_S - RENEW_JITTER_S, RENEW_S + RENEW_JITTER_S)

    def _user_loop_lives(self) -> bool:
        now = time.monotonic()
        late_s = now - self._ticked - TICK_S
        if late_s > TICK_S:  # this thread stood still, too: the process was stopped, or the machine was busy
            self.pulse_at += late_s
        self._ticked = now
        return now - self.pulse_at < LIFELESS_S

    def _expire(self) -> None:
        self._give_up(self.outbox.expired(time.monotonic()), "no answer from the server in all the time that the worker waits")

    def _give_up(self, reports: Iterable[Report], reason: str) -> None:
        for report in reports:
            self._inbound.put(Unanswered(report, reason))

    def _introduce(self) -> tuple[Mapping[str, Any], bytes]:
        """The `hello`, and what it offers: nothing where much work is in hand, and both do not fit. A `define` then follows.

        Raises RefusedSession: the worker cannot say who it is.
        """
        in_hand = list(self.held.items())[:MAX_IN_HAND]  # in one step: the user's loop takes away meanwhile
        for offered in (self.offer, NOTHING.fields):
            text = self._hello(offered, in_hand)
            if len(text) <= MAX_MESSAGE_BYTES:
                return offered, frame([text])
        raise RefusedSession(f"the worker's hello is {len(text):,} bytes of JSON; the limit is {MAX_MESSAGE_BYTES:,} bytes")

    def _hello(self, offered: Mapping[str, Any], in_hand: Iterable[tuple[tuple[str, int], Held]]) -> bytes:
        return message(
            "hello", b"",
            {
                "versions": VERSIONS, **self._identity, "session": self._session, "secret": self._secret, **offered,
                "work": [
                    {"work": work, "attempt": attempt, "token": held.token, "version": held.version}
                    for (work, attempt), held in in_hand
                ],
            },
        )  # fmt: skip

    # --- what the server says ---

    def _take(self, offered: Mapping[str, Any], talk: Talk, message: dict[str, Any]) -> None:
        match message["t"]:
            case "done" | "refused":
                report = self.outbox.answered(message.get("id"))
                if report is not None:
                    self._inbound.put((report, message))
            case "work":
                self._take_work(talk, message)
            case "update" | "stop":
                self._inbound.put(message)
            case "welcome":
                self._welcome(offered, talk, message)
            case "drain":
                talk.drained = True
            case "error":
                problem = message.get("problem")
                talk.problem = problem if isinstance(problem, dict) else {}
            case _:
                pass  # of a newer server

    def _take_work(self, talk: Talk, message: dict[str, Any]) -> None:
        number, work, attempt = message.get("n"), message.get("work"), message.get("attempt")
        if type(number) is int:
            talk.works = max(talk.works, number)
        known = False
        if type(work) is str and type(attempt) is int:
            known = (work, attempt) in self.held
            version = message.get("version")
            held = Held(str(message.get("token", "")), version if type(version) is int else 0)
            self.held.setdefault((work, attempt), held)
        self._inbound.put(Arrived(talk.era, talk.works, str(message.get("kind")), None if known else message))

    def _welcome(self, offered: Mapping[str, Any], talk: Talk, message: dict[str, Any]) -> None:
        if talk.welcomed.done():
            return
        before, self._session, self._secret = self._session, message.get("session"), message.get("secret")
        if self._current is not None:
            self._current.hush()
        self._current = talk
        self.outbox.send_again()
        self._inbound.put(Welcomed(talk.era, message, before is not None and before == self._session, offered))
        talk.welcomed.set_result(None)


def _final(error: TidelogAPIError) -> Exception:
    """What a refusal of the server means: later, or never."""
    for_good = isinstance(error, AuthenticationError | PermissionDeniedError | InvalidRequestError) or error.status in (410, 426)
    return RefusedSession(str(error)) if for_good and not error.retryable else error


def _reason(task: "asyncio.Task[str]") -> str:
    """Why a talk ended."""
    if task.cancelled():
        return "the worker closed the connection"
    error = task.exception()
    return task.result() if error is None else f"{type(error).__name__}: {error}"


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
