"""What a worker does when its server speaks: work goes to the benches, news to the agents, and people get a log line."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tidelog.errors import TidelogAPIError, TidelogConnectionError
from tidelog.failures import report_error
from tidelog.journal import JournalUpdate
from tidelog.logs import log, log_failure
from tidelog.session import Slots, Welcome
from tidelog.worker.bench import Bench
from tidelog.worker.pieces import Kind, Piece, ticket_of
from tidelog.worker.protocol import WorkerApi, parsed

logger = logging.getLogger(__name__)

START_S = 10.0
"""Seconds in which a worker that was never registered does not warn: its server may be starting beside it."""


class Reception:
    """The `Receiver` of a worker's session."""

    def __init__(
        self,
        api: WorkerApi,
        benches: Mapping[Kind, Bench],
        registered: asyncio.Event,
        fields: Callable[[], dict[str, Any]],
    ) -> None:
        """`registered`: set while the worker gets work. `fields`: of the line that says so."""
        self._api = api
        self._benches = benches
        self._fields = fields
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._was_registered = False
        self._in_trouble = True
        self._told = ""
        self._told_refusals: set[str] = set()
        self._telling_slots = False
        self._reports: set[asyncio.Task[bool]] = set()
        self._registered = registered
        self.refused: asyncio.Future[str] = self._loop.create_future()
        """Done when the server takes none of the worker's definitions."""
        self.closing = False
        """The worker takes no more work."""

    def slots_changed(self) -> None:
        """Tell the server how much the worker could begin, once for all changes of this turn of the loop."""
        if not self._telling_slots:
            self._telling_slots = True
            self._loop.call_soon(self.tell_slots)

    def tell_slots(self) -> None:
        self._telling_slots = False
        if self._api.session is not None:
            free = Slots(0, 0) if self.closing else Slots(self._benches["agent"].free, self._benches["tool"].free)
            self._api.session.credit(free)

    # --- the receiver ---

    def on_welcome(self, welcome: Welcome) -> None:
        level = logging.INFO if self._in_trouble else logging.DEBUG  # a renewal of the connection is nothing to tell
        log(logger, level, "worker_registered", **self._fields())
        self._was_registered, self._in_trouble, self._told = True, False, ""
        self._registered.set()
        self.on_definitions(welcome.agents, welcome.tools)
        self.tell_slots()

    def on_definitions(self, agents: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> None:
        """One bad definition refuses itself only. What was told before is not told again at each report of problems."""
        refused: list[str] = []
        for kind, definitions in (("agent", agents), ("tool", tools)):
            for one in definitions:
                if one.get("accepted") is False:
                    problem = one.get("problem")
                    reason = _reason(problem if isinstance(problem, dict) else {})
                    refused.append(f"{kind} {one.get('name')}: {reason}")
                    level = logging.DEBUG if refused[-1] in self._told_refusals else logging.ERROR
                    log(logger, level, "definition_refused", kind=kind, name=one.get("name"), reason=reason)
        self._told_refusals = set(refused)
        if refused and len(refused) == len(agents) + len(tools) and not self.refused.done():
            self.refused.set_result("; ".join(refused))

    def on_trouble(self, reason: str, lost: bool) -> None:
        """During an outage each attempt brings the same warning: the repetitions are logged at level debug. During a start: one
        line of level info."""
        self._registered.clear()
        self._in_trouble = True
        event, level = ("session_lost" if lost else "server_not_ready"), logging.WARNING
        if not self._was_registered and self._loop.time() < self._began + START_S:
            event, reason, level = "waiting_for_server", "", logging.INFO
        said = f"{event} {reason}"
        log(logger, logging.DEBUG if said == self._told else level, event, **({"reason": reason} if reason else {}))
        self._told = said

    def on_work(self, message: dict[str, Any]) -> None:
        if self.closing:  # sent before the server knew; it goes to others as the worker leaves
            return
        try:
            piece = Piece.of(message)
            bench = self._benches[piece.kind]
        except (TidelogConnectionError, ValueError) as error:
            self._refuse(message, error)
            self.tell_slots()
            return
        bench.offer(piece)

    def on_update(self, message: dict[str, Any]) -> None:
        piece = self._find(message)
        if piece is None:
            return
        try:
            update = parsed(JournalUpdate, message)
        except TidelogConnectionError as error:
            log_failure(logger, "news_not_understood", error, **piece.fields())
            return
        piece.update(update)
        if self._api.session is not None:
            self._api.session.seen(piece.ticket.work, piece.ticket.attempt, update.version)

    def on_stop(self, message: dict[str, Any]) -> None:
        piece = self._find(message)
        if piece is not None:
            piece.stop(str(message.get("reason")))

    def _find(self, message: dict[str, Any]) -> Piece | None:
        work, attempt = str(message.get("work")), message.get("attempt")
        found = (bench.find(work, attempt) for bench in self._benches.values()) if type(attempt) is int else ()
        return next((piece for piece in found if piece is not None), None)

    def _refuse(self, message: dict[str, Any], error: Exception) -> None:
        """Work of a form that this version of the SDK does not know fails: no other worker of this version could do it either."""
        log_failure(logger, "work_not_understood", error, work_id=message.get("work"))
        try:
            ticket = ticket_of(message)
        except ValueError:
            return
        task = asyncio.create_task(self._api.fail(ticket, report_error(error, "permanent")), name=f"refuse {ticket.work}")
        self._reports.add(task)
        task.add_done_callback(self._refused)

    def _refused(self, task: "asyncio.Task[bool]") -> None:
        self._reports.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log(logger, logging.WARNING, "work_not_refused", reason=str(error))


def _reason(problem: Mapping[str, Any]) -> str:
    faults = problem.get("errors")
    error = TidelogAPIError(
        422,
        str(problem.get("code")),
        str(problem.get("title")),
        problem.get("detail"),
        [fault for fault in faults if isinstance(fault, dict)] if isinstance(faults, list) else (),
    )
    return error.reason
