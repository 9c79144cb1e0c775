"""Work of a run that waits in a queue: which agent or tool it needs, and since when."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Literal, TypeVar

from api.cli.output import duration, program

T = TypeVar("T")
Kind = Literal["agent", "tool"]

FIRST_S, LATER = 10.0, 6.0
"""The first note comes after so many seconds, each further one after so many times the time of the one before."""
LONGEST_PAUSE_S = 600.0


_TAKEN = frozenset({
    "agent_run.claimed", "agent_run.paused", "invocation.paused",
    "agent_run.retry_scheduled", "agent_run.completed", "agent_run.failed", "agent_run.cancelled",
    "invocation.attempt_started", "invocation.retry_scheduled", "invocation.succeeded", "invocation.failed",
    "invocation.became_ambiguous", "invocation.resolved", "invocation.cancelled", "invocation.reconcile_requested",
    "invocation.held",
})  # fmt: skip
"""Events after which the work is in no queue."""


@dataclass
class _Waiting:
    """An item of a queue. `since`: the time of its event. `seen`: our clock when the event came."""

    kind: Kind
    name: str
    what: str
    since: datetime
    seen: float
    next_note_s: float

    def waited_s(self) -> float:
        """Our clock may differ from the server's, so the wait that was seen here is the least."""
        return max((datetime.now(UTC) - self.since).total_seconds(), monotonic() - self.seen)


class WaitingWork:
    """The work of one run that no worker has taken. `feed` gets the events in order; `notes` says what waits for too long."""

    def __init__(self) -> None:
        self._items: dict[str, _Waiting] = {}
        self._agent_runs: dict[str, tuple[str, str]] = {}
        """Agent run → its step and its agent."""
        self._calls: dict[str, tuple[str, str]] = {}
        """Invocation → its step with the call's key, and its tool."""

    def feed(self, event: Mapping[str, Any]) -> None:
        subject, data = event["subject"], event.get("data") or {}
        match event["type"]:
            case "agent_run.requested" | "agent_run.reopened":
                self._agent_runs[subject] = data["step"], data["agent"]
                self._queued("agent", subject, self._agent_runs, event)
            case "agent_run.resumed":
                self._queued("agent", subject, self._agent_runs, event)
            case "invocation.requested":
                step, _ = self._agent_runs.get(str(data["agent_run_id"]), ("?", ""))
                self._calls[subject] = f"{step}: {data['key']}", data["tool"]
                self._queued("tool", subject, self._calls, event)
            case "invocation.requeued" | "invocation.released":
                self._queued("tool", subject, self._calls, event)
            case "invocation.fell_back" if subject in self._calls:
                self._calls[subject] = self._calls[subject][0], data["tool"]
                self._queued("tool", subject, self._calls, event)
            case topic if topic in _TAKEN:
                self._items.pop(subject, None)
            case "run.completed" | "run.failed" | "run.cancelled":
                self._items.clear()

    def _queued(self, kind: Kind, subject: str, known: Mapping[str, tuple[str, str]], event: Mapping[str, Any]) -> None:
        if subject in known:
            what, name = known[subject]
            self._items[subject] = _Waiting(kind, name, what, datetime.fromisoformat(event["time"]), monotonic(), FIRST_S)

    def notes(self) -> list[str]:
        """One line for each item that has waited for too long, each time it is due."""
        told = []
        for item in self._items.values():
            waited = item.waited_s()
            if waited >= item.next_note_s:
                item.next_note_s = waited + min(waited * (LATER - 1), LONGEST_PAUSE_S)
                told.append(waits(item.what, item.kind, item.name, waited))
        return told


def waits(what: str, kind: Kind, name: str, seconds: float) -> str:
    more = f" What would serve the tool: {program()} tools show {name}" if kind == "tool" else ""
    return (
        f"{what} waits for a worker with {kind} '{name}': the {kind} is registered, but the work has waited {duration(seconds)}. "
        f"No worker with this {kind} runs now, or all of them are busy.{more}"
    )


async def with_pauses(stream: AsyncIterator[T], seconds: float) -> AsyncIterator[T | None]:
    """The items of a stream, and None each time that none has come for so many seconds."""
    import asyncio

    waiting: asyncio.Task[T] | None = None
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(_next(stream))
            await asyncio.wait({waiting}, timeout=seconds)
            if not waiting.done():
                yield None
                continue
            done, waiting = waiting, None
            try:
                item = done.result()
            except StopAsyncIteration:
                return
            yield item
    finally:
        if waiting is not None:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)


async def _next(stream: AsyncIterator[T]) -> T:
    return await anext(stream)
