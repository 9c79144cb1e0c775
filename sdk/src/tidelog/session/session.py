"""`Session`: the side of the user's loop. Reports go out and answers come in by queues; the session's thread does the rest."""

import asyncio
import itertools
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import uuid4

from tidelog.errors import TidelogConnectionError, api_error
from tidelog.logs import log, log_failure
from tidelog.session.driver import Arrived, Driver, Ended, RefusedSession, Trouble, Unanswered, Welcomed
from tidelog.session.frames import MAX_MESSAGE_BYTES, message
from tidelog.session.inbound import Inbound
from tidelog.session.link import Target
from tidelog.session.offers import NOTHING, Offer, Slots, SlotsTold
from tidelog.session.outbox import Credit, Report

logger = logging.getLogger(__name__)

RELEASE = "0.1.0"
PATIENCE_S = 600.0
"""The worker waits for the end of an outage of the server that is shorter than this, and keeps its work."""
PULSE_S = 1.0
CREDIT_WITHIN_S = 0.05
"""Seconds that news of free slots may wait for a report to go with, while the server knows of enough other free slots."""
MAX_ASKED, MAX_ASKED_BYTES = 4_096, 32 * 1024 * 1024
"""Reports without an answer, sent or not; further callers of `room` wait."""
ABOVE_EVENT_BYTES = 64 * 1024
ENDED_WITHIN_S = 3.0


class SessionRefusedError(Exception):
    """The server refuses this worker. A retry would not help."""


@dataclass(frozen=True, slots=True)
class Welcome:
    """The server's word on a session. `agents`, `tools`: for each definition `{name, version, accepted, problem}`.

    `again`: the session went on, so that all work in hand is still this worker's unless `on_stop` says otherwise.
    """

    session: str
    release: str
    lease_s: float
    agents: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...]
    again: bool


class Receiver(Protocol):
    """Hears on the user's loop what the server says."""

    def on_welcome(self, welcome: Welcome) -> None: ...

    def on_definitions(self, agents: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> None:
        """The server's word on definitions that the worker changed after its hello; as in `Welcome`."""
        ...

    def on_trouble(self, reason: str, lost: bool) -> None:
        """There is no connection; the session tries again. `lost`: there was one before."""
        ...

    def on_work(self, message: dict[str, Any]) -> None:
        """Work for a slot that the last credit offered. The next credit counts without that slot."""
        ...

    def on_update(self, message: dict[str, Any]) -> None: ...

    def on_stop(self, message: dict[str, Any]) -> None: ...


class Session:
    """Made and used on the user's loop. `open` starts the thread; `close` ends it."""

    def __init__(self, target: Target, worker_id: str, slots: Slots, receiver: Receiver, serves: Sequence[str] = ()) -> None:
        """`serves`: the kinds of tools that the worker carries out by their definitions."""
        self._loop = asyncio.get_running_loop()
        self._target = target
        self._identity = {
            "worker": worker_id,
            "incarnation": str(uuid4()),
            "release": RELEASE,
            "slots": {"agent": slots.agent, "tool": slots.tool},
            **({"serves": list(serves)} if serves else {}),
        }
        self._receiver = receiver
        self._inbound = Inbound(self._loop, self._handle)
        self._driver: Driver | None = None
        self._offer = NOTHING
        self._numbers = itertools.count(1)
        self._asked, self._asked_bytes = 0, 0
        self._waiting_for_room: list[asyncio.Future[None]] = []
        self._max_bytes = MAX_MESSAGE_BYTES
        self._era, self._n = 0, 0
        self._slots = Slots(0, 0)
        self._told = SlotsTold()
        self._crediting: asyncio.TimerHandle | None = None
        """Sends the free slots that wait for a report."""
        self.connected = False
        self.suspends = False
        """The server lets agents that only wait leave their worker."""
        self.progress = False
        """The server takes what agents say of their progress."""
        self.ended: asyncio.Future[None] = self._loop.create_future()
        """Done when the thread has ended. An exception: not on request."""

    def open(self) -> None:
        """Start the session."""
        self._driver = Driver(self._target, self._identity, self._inbound)
        self._driver.offer = self._offer.fields
        self._driver.start()
        self._pulse()

    async def close(self, *, leave: bool = True) -> None:
        """End the session. `leave`: what is in hand goes to other workers at once."""
        if self._driver is None:
            return
        self._driver.stop(leave=leave)
        await asyncio.wait({self.ended}, timeout=ENDED_WITHIN_S)
        if self.ended.done() and not self.ended.cancelled():
            self.ended.exception()  # looked at: nobody need hear of it any more

    def offer(self, offer: Offer) -> "asyncio.Future[dict[str, Any]] | None":
        """What the worker has, from now on. Returns the future answer of the server, or None while there is no connection: then the
        next hello says it."""
        self._offer = offer.said()
        if self._driver is None:
            return None
        self._driver.offer = self._offer.fields
        return self._define(self._driver.offer) if self.connected else None

    def _define(self, fields: Mapping[str, Any]) -> "asyncio.Future[dict[str, Any]]":
        answer = self._ask("define", fields, b"", MAX_MESSAGE_BYTES)
        answer.add_done_callback(self._defined)
        return answer

    def _defined(self, answer: "asyncio.Future[dict[str, Any]]") -> None:
        if answer.cancelled():
            return
        if (error := answer.exception()) is not None:
            log(logger, logging.WARNING, "definitions_not_taken", reason=str(error))
        else:
            self._receiver.on_definitions(self._verdicts(answer.result(), "agents"), self._verdicts(answer.result(), "tools"))

    def _verdicts(self, answer: Mapping[str, Any], kind: str) -> tuple[dict[str, Any], ...]:
        """The server's verdicts on definitions, and those on what the worker has not said."""
        given = answer.get(kind)
        verdicts = tuple(one for one in given if isinstance(one, dict)) if isinstance(given, list) else ()
        return (*verdicts, *self._offer.left_out.get(kind, ()))

    def credit(self, slots: Slots) -> None:
        """How many agents and tool calls the worker could begin now, after all work that it was told of.

        The server counts the slots of the work that it sends by itself. More free slots than it knows of are told with the next
        report, unless it knows of few.
        """
        self._slots = slots
        if self._driver is None or not self.connected or slots == self._told.counted:
            return
        at_once = self._told.is_pressing(slots)
        self._told.tell(slots, at_once=at_once)
        self._driver.outbox.set_credit(Credit(self._era, self._n, slots.agent, slots.tool), at_once=at_once)
        if not at_once and self._crediting is None:
            self._crediting = self._loop.call_later(CREDIT_WITHIN_S, self._send_credit)

    def _send_credit(self) -> None:
        self._crediting = None
        if self._driver is not None:
            self._told.sent()
            self._driver.outbox.send_credit()

    def ask(self, kind: str, fields: Mapping[str, Any], head: bytes = b"") -> "asyncio.Future[dict[str, Any]]":
        """Send a report. The future brings the server's `done`, or raises TidelogAPIError for its `refused`, or
        TidelogConnectionError if no answer comes within `PATIENCE_S`. `head`: members as JSON text, each with a comma behind it.

        Raises:
            InvalidRequestError: the message is over the limit. NotJsonError: a field is not JSON data.
        """
        return self._ask(kind, fields, head, self._max_bytes)

    def _ask(self, kind: str, fields: Mapping[str, Any], head: bytes, most: int) -> "asyncio.Future[dict[str, Any]]":
        if self._driver is None or self.ended.done():
            raise TidelogConnectionError("the session with the server is over")
        number = next(self._numbers)
        text = message(kind, b'"id":%d,%b' % (number, head), fields)
        if len(text) > most:
            detail = f"the message is {len(text):,} bytes of JSON; the limit is {most:,} bytes"
            raise api_error(413, {"code": "too-large", "title": "the message is too large", "detail": detail})
        answer: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._asked += 1
        self._asked_bytes += len(text)
        self._driver.outbox.put(Report(number, text, answer, time.monotonic() + PATIENCE_S))
        return answer

    def log(self, head: bytes, line: bytes) -> None:
        """A line of an agent or a tool, from any thread: sent if there is room. `head`: as of `ask`. `line`: a JSON object."""
        if self._driver is not None:
            self._driver.outbox.lines.put(head, line)

    @property
    def full(self) -> bool:
        return self._asked >= MAX_ASKED or self._asked_bytes >= MAX_ASKED_BYTES

    async def room(self) -> None:
        """Wait until few enough reports are without an answer."""
        while self.full:
            turn: asyncio.Future[None] = self._loop.create_future()
            self._waiting_for_room.append(turn)
            await turn

    def let_go(self, work: str, attempt: int) -> None:
        """The worker no longer has this attempt in hand."""
        if self._driver is not None:
            self._driver.held.pop((work, attempt), None)

    def seen(self, work: str, attempt: int, version: int) -> None:
        """The worker has the news of this attempt up to a version: after a loss of the connection the server goes on from there."""
        held = None if self._driver is None else self._driver.held.get((work, attempt))
        if held is not None:
            held.version = max(held.version, version)

    def _pulse(self) -> None:
        if self._driver is not None and not self.ended.done():
            self._driver.pulse_at = time.monotonic()
            self._loop.call_later(PULSE_S, self._pulse)

    # --- what comes from the thread ---

    def _handle(self, item: Any) -> None:
        try:
            if type(item) is tuple:
                report, answer = item
                if answer["t"] == "done":
                    self._settle(report, answer, None)
                else:
                    problem = answer.get("problem")
                    problem = problem if isinstance(problem, dict) else {}
                    status = problem.get("status")
                    self._settle(report, None, api_error(status if type(status) is int else 500, problem))
            else:
                self._hear(item)
        except Exception as error:  # noqa: BLE001  # one message must not keep the others from their readers
            log_failure(logger, "session_message_failed", error)

    def _hear(self, item: Any) -> None:
        match item:
            case {"t": "update"}:
                self._receiver.on_update(item)
            case {"t": "stop"}:
                self._receiver.on_stop(item)
            case Arrived():
                if item.era == self._era:
                    self._n = item.n
                    self._told.work_came(item.kind)
                if item.message is None:
                    self.credit(self._slots)
                else:
                    self._receiver.on_work(item.message)
            case Welcomed():
                self._welcome(item)
            case Trouble():
                self.connected = False
                self._receiver.on_trouble(item.reason, item.lost)
            case Unanswered():
                self._settle(item.report, None, TidelogConnectionError(item.reason))
            case Ended():
                self._end(item.error)

    def _welcome(self, item: Welcomed) -> None:
        said = item.message
        self._era, self._n, self.connected, self._told = item.era, 0, True, SlotsTold()
        self.suspends, self.progress = said.get("suspends") is True, said.get("progress") is True
        limit = said.get("max_event_bytes")
        if type(limit) is int:
            self._max_bytes = min(MAX_MESSAGE_BYTES, limit + ABOVE_EVENT_BYTES)
        self._receiver.on_welcome(
            Welcome(
                str(said.get("session")),
                str(said.get("release", "")),
                float(said.get("lease_s") or 10.0),
                self._verdicts(said, "agents"),
                self._verdicts(said, "tools"),
                item.again,
            )
        )
        if self._driver is not None and item.offered is not self._driver.offer:
            self._define(self._driver.offer)
        self.credit(self._slots)

    def _settle(self, report: Report, answer: dict[str, Any] | None, error: Exception | None) -> None:
        self._asked -= 1
        self._asked_bytes -= len(report.text)
        if self._waiting_for_room and not self.full:
            turns, self._waiting_for_room = self._waiting_for_room, []
            for turn in turns:  # each looks again: one that has given up must not keep the turn
                if not turn.done():
                    turn.set_result(None)
        if report.answer.done():  # the caller has given up
            return
        if error is None:
            report.answer.set_result(answer)
        else:
            report.answer.set_exception(error)

    def _end(self, error: BaseException | None) -> None:
        self.connected = False
        if self.ended.done():
            return
        if error is None:
            self.ended.set_result(None)
        elif isinstance(error, RefusedSession):
            self.ended.set_exception(SessionRefusedError(str(error)))
        else:
            log_failure(logger, "session_failed", error)
            self.ended.set_exception(RuntimeError(f"the worker's session ended by itself: {error!r}"))
