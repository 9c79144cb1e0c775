"""The calls of tools in the kit: attempts, retries, and what becomes of an effect in doubt, by the rules of the server.

What the server decides stands in its `domain/invocations`; the kit cannot import it. A test of the server's runs the same scenarios
in both and compares.
"""

import asyncio
import hashlib
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import JsonValue

from tidelog.calling import end_tasks, keep_process, stop_task
from tidelog.failures import ErrorReport, report_error, tool_failure
from tidelog.journal import EntryError, JournalEntry, Wait
from tidelog.reconciling import Reconciled
from tidelog.stopped import IN_THE_MIDDLE, ReconcileTimeoutError, ToolTimeoutError
from tidelog.testing.approving import Approve, answered, approved
from tidelog.testing.clock import KitClock, RealClock
from tidelog.testing.effects import CURRENT, CurrentCall
from tidelog.testing.journal import CallState, MemoryJournal, ToolCall
from tidelog.testing.schemas import check_result
from tidelog.testing.vanishing import KIT, Vanish, WorkerVanished
from tidelog.tools import Tool, ToolContext

RETRYABLE = ("transient", "rate_limited")
MAX_LOST = 10
"""After so many vanished workers in a row the call has failed."""
MAX_ASKED = 10
"""So often a `reconcile` function is asked that fails."""
ASKING_S = 600.0
"""Seconds after which a person is asked instead of the function."""


@dataclass(frozen=True, slots=True)
class AmbiguousCall:
    """A call whose effect is unknown, and about which a person is asked.

    `key`: that of `ctx.tool`. `attempt`: the one in doubt. `reason`: why nobody else can tell.
    """

    tool: str
    key: str
    arguments: dict[str, Any]
    attempt: int
    idempotency_key: str
    reason: str


Resolve = Callable[[AmbiguousCall], Reconciled | Awaitable[Reconciled]]
"""The person who is asked about an ambiguous call. An error that it raises is the call's error, as of `resolve --error`."""


class AmbiguousCallError(Exception):
    """A call is ambiguous, and the test has nobody who could say what became of it. On a server the run would wait for a person."""

    def __init__(self, call: AmbiguousCall) -> None:
        super().__init__(
            f"the call {call.key!r} of {call.tool} is ambiguous: {call.reason}. On a server the run waits for a person now. "
            "Declare the tool with idempotent=True or a reconcile function, or play the person: "
            "run_agent(..., resolve=lambda call: Reconciled.succeeded(result))"
        )
        self.call = call


class Ledger:
    """Makes the calls of a run. Outlives crashes of the agent, as tools do."""

    def __init__(
        self,
        journal: MemoryJournal,
        tools: Mapping[str, Tool[..., Any]],
        workspace: Path,
        *,
        on_behalf_of: str | None = None,
        clock: KitClock | None = None,
        resolve: Resolve | None = None,
        vanish: Vanish | None = None,
        approve: Approve | None = None,
    ) -> None:
        self.tools = tools
        self._journal = journal
        self._workspace = workspace
        self._on_behalf_of = on_behalf_of
        self._clock = clock or RealClock()
        self._resolve = resolve
        self._vanish = vanish
        self._approve = approve
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stuck: asyncio.Future[AmbiguousCallError | BaseException] | None = None

    @property
    def stuck(self) -> "asyncio.Future[AmbiguousCallError | BaseException]":
        """Done when the run cannot go on: a call is ambiguous and nobody is there to ask."""
        if self._stuck is None:
            self._stuck = asyncio.get_running_loop().create_future()
        return self._stuck

    @property
    def vanishes(self) -> bool:
        """Whether the worker has still to vanish."""
        return self._vanish is not None

    def start(self, entry: JournalEntry, tool: str, arguments: dict[str, JsonValue]) -> None:
        if entry.key in self._tasks:
            return
        task = asyncio.create_task(self._run(entry, self.tools[tool], arguments), name=f"tool {tool}")
        self._tasks[entry.key] = task
        task.add_done_callback(lambda _: self._tasks.pop(entry.key, None))

    def resume(self) -> None:
        """Tools do not crash with the agent: calls under way at the end of an execution finish in the next execution."""
        for key, (tool, arguments) in self._journal.requested.items():
            entry = self._journal.find(key)
            if entry is not None and entry.status == "pending" and tool in self.tools:
                self.start(entry, tool, arguments)

        for key, (entry, wait, _) in self._journal.waits.items():
            if wait.kind == "approval" and not self._journal.is_settled(key):
                self.ask(entry, wait)

    def ask(self, entry: JournalEntry, wait: Wait) -> None:
        """Asks the people of the test. They do not crash with the agent either."""
        if entry.key in self._tasks:
            return
        task = asyncio.create_task(self._ask_people(entry, wait), name=f"question {entry.key}")
        self._tasks[entry.key] = task
        task.add_done_callback(lambda _: self._tasks.pop(entry.key, None))

    async def _ask_people(self, entry: JournalEntry, wait: Wait) -> None:
        try:
            answer = await answered(self._approve, entry.key, wait)
        except Exception as error:  # noqa: BLE001  # nobody is there, or code of the test: whoever runs the agent gets it
            self._stop(error)
            return
        self._journal.record(entry.model_copy(update={"status": "ok", "result": answer}))

    async def close(self) -> None:
        for task in list(self._tasks.values()):
            await stop_task(task)

    async def _run(self, entry: JournalEntry, tool: Tool[..., Any], arguments: dict[str, JsonValue]) -> None:
        call, spending = _Call(entry, tool, arguments, self._journal.call_state(entry.key)), self._journal.spending
        try:
            refused = await spending.begin(tool, entry.key)
            if refused is not None:
                self._journal.record(entry.model_copy(update={"status": "error", "error": _failure(refused)}))
                return
            said = arguments if call.state.called else await approved(self._approve, tool, entry.key, arguments)
            if isinstance(said, ErrorReport):
                end: _Result | ErrorReport = said
            else:
                end = await self._ended(replace(call, arguments=said))
        except Exception as error:  # noqa: BLE001  # ambiguous, code of the test, or a defect of the kit: whoever runs the agent gets it
            self._stop(error)
            return
        spending.end(tool, entry.key, rate_limited=isinstance(end, ErrorReport) and end.kind == "rate_limited")
        if isinstance(end, ErrorReport):
            self._journal.record(entry.model_copy(update={"status": "error", "error": _failure(end)}))
        else:
            self._journal.record(entry.model_copy(update={"status": "ok", "result": end.result}))

    def _stop(self, error: BaseException) -> None:
        if not self.stuck.done():
            self.stuck.set_result(error)

    async def _ended(self, call: "_Call") -> "_Result | ErrorReport":
        """How the call ends, after as many attempts as it takes. Raises AmbiguousCallError."""
        state = call.state
        end: _Result | ErrorReport | None = None
        if state.asking:  # in an execution before
            end = await self._ask(call)
        elif state.ambiguous is not None:
            end = await self._ask_person(call, state.ambiguous)
        while end is None:
            end = await self._attempt(call)
        return end

    async def _attempt(self, call: "_Call") -> "_Result | ErrorReport | None":
        """None: the tool is called again."""
        tool, state = call.tool, call.state
        state.attempt += 1
        state.called, state.lost = state.attempt, state.lost + 1
        self._journal.calls.append(self._seen(call))
        try:
            end = await self._called(call)
        except WorkerVanished:
            return await self._lost(call)
        except asyncio.CancelledError:
            state.attempt, state.lost = state.attempt - 1, state.lost - 1  # the test ends the attempt: it begins anew
            raise
        if isinstance(end, _Result):
            return end
        error = tool_failure(end)
        if isinstance(end, IN_THE_MIDDLE) and tool.reconcile is not None and not tool.idempotent:
            state.doubt = error
            return await self._ask(call)
        if tool.idempotent and error.kind in RETRYABLE:
            return await self._again(call, error)
        return error

    async def _again(self, call: "_Call", error: ErrorReport) -> ErrorReport | None:
        """The pause before the next attempt. Returns the error where there is none."""
        state = call.state
        if error.kind not in RETRYABLE or state.failures + 1 >= call.tool.max_attempts:
            return error
        state.failures += 1
        state.lost = 0
        await self._clock.pause(_backoff_s(call.id, state.failures, 0.5, error))
        return None

    async def _lost(self, call: "_Call") -> "_Result | ErrorReport | None":
        """The worker of an attempt has vanished."""
        if call.tool.reconcile is not None and not call.tool.idempotent:
            call.state.doubt = None
            return await self._ask(call)
        if not call.tool.idempotent:
            why = f"the worker vanished in attempt {call.state.called}, and the tool must not be called again"
            return await self._ask_person(call, why)
        return _workers_lost() if call.state.lost >= MAX_LOST else None

    async def _ask(self, call: "_Call") -> "_Result | ErrorReport | None":
        """Ask the tool's `reconcile` function whether the attempt took effect."""
        state, failures = call.state, 0
        began = self._clock.seconds()
        state.asking = True
        while True:
            state.attempt += 1
            self._journal.asked.append(self._seen(call))
            answer = await self._answer(call)
            if isinstance(answer, Reconciled):
                break
            report, failures = tool_failure(answer), failures + 1
            if report.kind not in RETRYABLE or failures >= MAX_ASKED:
                return await self._ask_person(call, f"the reconcile function failed: {report.message}")
            delay_s = _backoff_s(call.id, failures, 1.0, report)
            left_s = began + ASKING_S - self._clock.seconds()
            await self._clock.pause(min(delay_s, left_s))
            if delay_s >= left_s:
                return await self._ask_person(call, f"the reconcile function gave no answer within {ASKING_S:.0f} s")
        state.asking = False
        if answer.outcome == "succeeded":
            return _Result(answer.result)
        if answer.outcome == "unknown":
            return await self._ask_person(call, "the reconcile function does not know")
        if state.doubt is not None:
            return await self._again(call, state.doubt)
        return _workers_lost() if state.lost >= MAX_LOST else None

    async def _ask_person(self, call: "_Call", reason: str) -> "_Result | ErrorReport | None":
        """Raises AmbiguousCallError."""
        state = call.state
        state.asking, state.ambiguous = False, reason
        key = str(call.entry.invocation_id)
        asked = AmbiguousCall(call.tool.name, call.entry.key, dict(call.arguments), state.called, key, reason)
        if self._resolve is None:
            raise AmbiguousCallError(asked)
        try:
            said = self._resolve(asked)
            answer = await said if inspect.isawaitable(said) else said
        except Exception as error:  # noqa: BLE001  # the person says that the call failed
            state.ambiguous = None
            return report_error(error, "permanent")
        if not isinstance(answer, Reconciled):
            raise TypeError(f"resolve must return a Reconciled, not {type(answer).__name__}")
        if answer.outcome == "unknown":
            raise AmbiguousCallError(asked)
        state.ambiguous = None
        if answer.outcome == "succeeded":
            return _Result(answer.result)
        state.lost = 0
        return None

    async def _called(self, call: "_Call") -> "_Result | BaseException":
        """What the tool did. Raises WorkerVanished."""
        vanish, state = self._vanish, call.state
        falls = vanish is not None and vanish.call == call.entry.key and vanish.nth == state.called
        if falls and vanish is not None and not vanish.after_effect:
            self._vanish = None
            raise WorkerVanished
        end = await self._limited(call, call.tool.invoke, call.tool.timeout_s, ToolTimeoutError.after)
        if isinstance(end, _Result):
            try:
                check_result(call.tool, end.result)
            except Exception as error:  # noqa: BLE001  # the report of the call
                end = error
        if falls:
            self._vanish = None
            self._journal.lost[str(call.entry.invocation_id)] = end.result if isinstance(end, _Result) else tool_failure(end)
            raise WorkerVanished
        return end

    async def _answer(self, call: "_Call") -> Reconciled | BaseException:
        end = await self._limited(call, call.tool.ask, call.tool.reconcile_timeout_s, ReconcileTimeoutError.after)
        if isinstance(end, _Result):
            assert isinstance(end.result, Reconciled)
            return end.result
        return end

    async def _limited(
        self, call: "_Call", function: Callable[..., Awaitable[Any]], limit_s: float, late: Callable[[float], Exception]
    ) -> "_Result | BaseException":
        """Call within the time, by the clock of the test and in real seconds."""
        context = ToolContext(self._workspace, str(call.entry.invocation_id), call.state.attempt, on_behalf_of=self._on_behalf_of)
        if (used := self._journal.spending.used.get(call.entry.key)) is not None:
            context = replace(context, _used=used)
        CURRENT.set(CurrentCall(call.tool.name, call.entry.key, context.attempt, context.idempotency_key))
        KIT.set(self._clock)

        async def called() -> Any:
            with keep_process():
                return await function(call.arguments, context)

        with self._clock.working():
            task: asyncio.Task[Any] = asyncio.create_task(called())
            waiting = asyncio.create_task(self._clock.wait(task, limit_s))
            try:
                await asyncio.wait({task, waiting}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                context._told.set()
                await stop_task(task)
                await end_tasks(waiting)
        if not task.done() or task.cancelled():
            return late(float(limit_s))
        error = task.exception()
        if isinstance(error, WorkerVanished):
            raise error
        return _Result(task.result()) if error is None else error

    def _seen(self, call: "_Call") -> ToolCall:
        key, invocation = call.entry.key, str(call.entry.invocation_id)
        return ToolCall(call.tool.name, call.arguments, call.state.attempt, key, invocation, self._clock.now())


def _failure(report: ErrorReport) -> EntryError:
    return EntryError.model_validate(report.model_dump())


@dataclass(frozen=True, slots=True)
class _Result:
    result: Any


@dataclass(frozen=True, slots=True)
class _Call:
    entry: JournalEntry
    tool: Tool[..., Any]
    arguments: dict[str, JsonValue]
    state: CallState

    @property
    def id(self) -> UUID:
        assert self.entry.invocation_id is not None
        return self.entry.invocation_id


def _workers_lost() -> ErrorReport:
    why = f"{MAX_LOST} workers in a row vanished while they ran this tool"
    return report_error(WorkersLost(why), "permanent").model_copy(update={"kind": "lost"})


class WorkersLost(Exception):
    """The workers of a call vanished too often."""


def _backoff_s(call: UUID, failures: int, initial_s: float, error: ErrorReport) -> float:
    """As the server: uniform in (0, initial · 2^(n-1)], at most 60 s, at least what the failure asks for."""
    digest = hashlib.sha256(call.bytes + failures.to_bytes(4, "big")).digest()
    fraction = (int.from_bytes(digest[:4], "big") + 1) / 2**32
    return max(fraction * min(60.0, initial_s * 2.0 ** (failures - 1)), error.retry_after_s or 0.0)
