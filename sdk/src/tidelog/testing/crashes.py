"""Runs an agent once for each point at which something can crash, and asserts that nobody sees a difference."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from tidelog.agent import Agent
from tidelog.failures import ErrorReport
from tidelog.reconciling import Reconciled
from tidelog.testing.clock import TestClock
from tidelog.testing.effects import Effects
from tidelog.testing.journal import MemoryJournal, Written
from tidelog.testing.ledger import AmbiguousCall, Resolve
from tidelog.testing.runs import CrashPoint, Outcome, run_agent
from tidelog.testing.scripted import ScriptedTool
from tidelog.tool_classes import AnyTool, tool_of
from tidelog.values import to_json

Tools = Sequence[AnyTool] | Callable[[], Sequence[AnyTool]]
RUN, AGENT_RUN = UUID("01930000-0000-7000-8000-000000000001"), UUID("01930000-0000-7000-8000-000000000002")
"""The ids of all executions: so the idempotency keys are the same, with a crash and without."""


@dataclass(slots=True)
class CrashReport:
    """What `assert_survives_crashes` has tried. `people_asked`: points after which a person had to say what became of a call."""

    points: list[CrashPoint] = field(default_factory=list)
    left_out: int = 0
    """Points that were over the limit."""
    people_asked: list[CrashPoint] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What must be equal with a crash and without."""

    result: Any
    sent: list[str]
    state: str
    calls: dict[str, str]
    effects: tuple[dict[str, int], ...]
    counted: tuple[Effects, ...]


async def assert_survives_crashes(
    agent: type[Agent],
    input: Any = None,
    *,
    tools: Tools = (),
    effects: Effects | Sequence[Effects] = (),
    same: Callable[[Outcome], Any] | None = None,
    reset: Callable[[], object] | None = None,
    resolve: Resolve | None = None,
    ask_people: bool = True,
    limit: int = 300,
    within_s: float = 30,
    **options: Any,
) -> CrashReport:
    """Execute the agent without a crash, and then once for each crash point: after each entry of its journal, between each step and
    its entry, and with the worker of each attempt of a tool gone before the call and after its effect. Result, messages, shared
    state, calls and effects must be those without a crash. Raises AssertionError for the first point at which something differs.

    tools: the tools, or a function that makes them anew for each execution. effects: what the tools count.
    same: what of the outcome must be equal; default: its result. reset: makes the world of the test as it was at the beginning.
    resolve: the person who is asked about ambiguous calls; default: one who knows the truth. ask_people=False: nobody may be asked.
    limit: so many points at most; of more, points are left out evenly. within_s: real seconds of one execution.
    options: further arguments of `run_agent`.
    """
    counted = (effects,) if isinstance(effects, Effects) else tuple(effects)
    tried = _Tried(agent, input, tools, counted, same or (lambda outcome: outcome.result), reset, resolve, within_s, options)
    try:
        outcome, expected = await tried.execute(None)
        _, again = await tried.execute(None)
    except TimeoutError as error:
        raise AssertionError(f"{agent.__name__} comes to no end within {within_s:g} real seconds, without any crash") from error
    if faults := _differences(expected, again):
        raise AssertionError(
            f"two executions of {agent.__name__} without a crash differ, so a crash cannot be told from chance:\n- "
            + "\n- ".join(faults)
            + "\nTake chance and time from ctx.step or a tool, reset= what executions share, or say with same= what must be equal"
        )
    points = crash_points(outcome)
    chosen = points if len(points) <= limit else [points[number * len(points) // limit] for number in range(limit)]
    report = CrashReport(left_out=len(points) - len(chosen))
    for point in chosen:
        report.points.append(point)
        faults = await tried.at(point, expected)
        if tried.asked:
            report.people_asked.append(point)
            if not ask_people:
                faults = [f"a person had to be asked: {tried.asked[0].reason}", *faults]
        if faults:
            raise AssertionError(
                f"{agent.__name__} does not survive a crash {_where(point, outcome)}:\n- "
                + "\n- ".join(faults)
                + f"\nPoint {len(report.points)} of {len(points)}. Alone: run_agent({agent.__name__}, ..., crash_at={point})"
            )
    return report


def crash_points(outcome: Outcome) -> list[CrashPoint]:
    """Every point at which the execution could have crashed."""
    points = []
    for entry in outcome.journal.written:
        if entry.what == "step":
            points.append(CrashPoint(entry=entry.number, before=True))
        points.append(CrashPoint(entry=entry.number))
    for call in outcome.calls:
        points += [CrashPoint(call=call.key, attempt=call.attempt, after_effect=after) for after in (False, True)]
    return points


class _Tried:
    """Executions of an agent in a world that is the same each time."""

    def __init__(
        self,
        agent: type[Agent],
        input: Any,
        tools: Tools,
        effects: tuple[Effects, ...],
        same: Callable[[Outcome], Any],
        reset: Callable[[], object] | None,
        resolve: Resolve | None,
        within_s: float,
        options: dict[str, Any],
    ) -> None:
        self.asked: list[AmbiguousCall] = []
        """Calls about which a person was asked in the last execution."""
        self._agent = agent
        self._input = input
        self._tools = tools
        self._effects = effects
        self._same = same
        self._reset = reset
        self._resolve = resolve
        self._within_s = within_s
        self._options = options

    async def at(self, point: CrashPoint, expected: _Seen) -> list[str]:
        """What differs after a crash."""
        try:
            outcome, seen = await self.execute(point)
        except TimeoutError:
            return [f"it came to no end within {self._within_s:g} real seconds"]
        except Exception as error:  # noqa: BLE001  # whatever the agent raises
            return [f"it failed with {type(error).__name__}: {error}"]
        faults = _differences(expected, seen)
        if outcome.unused_keys and not faults:
            faults = [f"it did not use these recorded keys again: {', '.join(outcome.unused_keys)}"]
        return faults

    async def execute(self, point: CrashPoint | None) -> tuple[Outcome, _Seen]:
        if self._reset is not None:
            self._reset()
        made = self._tools() if callable(self._tools) else self._tools
        tools = [tool_of(tool) for tool in made]
        scripted = [tool for tool in tools if isinstance(tool, ScriptedTool)]
        counted = tuple(dict.fromkeys([*self._effects, *(tool.effects for tool in scripted)]))
        for tool in scripted:
            tool.reset()
        for effects in self._effects:
            effects.clear()
        self.asked = []
        options = {"clock": TestClock(), **self._options}
        journal = MemoryJournal(run_id=RUN, agent_run_id=AGENT_RUN)

        async def person(call: AmbiguousCall) -> Reconciled:
            self.asked.append(call)
            return _truth(call, journal, scripted)

        async with asyncio.timeout(self._within_s):
            outcome = await run_agent(
                self._agent, self._input, tools=tools, journal=journal, crash_at=point, resolve=self._resolve or person, **options
            )
        seen = _Seen(
            to_json(self._same(outcome), "what must be equal", None),
            sorted(json.dumps([message.to, message.body], sort_keys=True) for message in outcome.sent),
            json.dumps(outcome.state, sort_keys=True),
            {key: json.dumps([tool, arguments], sort_keys=True) for key, (tool, arguments) in journal.requested.items()},
            tuple(effects.counts() for effects in counted),
            counted,
        )
        return outcome, seen


def _truth(call: AmbiguousCall, journal: MemoryJournal, scripted: Sequence[ScriptedTool]) -> Reconciled:
    """What an honest person says who has looked: the worker that vanished knew it, or the script does."""
    if call.idempotency_key in journal.lost:
        end = journal.lost[call.idempotency_key]
        return Reconciled.not_happened() if isinstance(end, ErrorReport) else Reconciled.succeeded(end)
    for tool in scripted:
        if tool.name == call.tool:
            return tool.truth(call.idempotency_key, call.arguments)
    return Reconciled.not_happened()


def _differences(expected: _Seen, seen: _Seen) -> list[str]:
    faults = []
    for key in seen.calls.keys() - expected.calls.keys():
        lost = [other for other in expected.calls.keys() - seen.calls.keys() if expected.calls[other] == seen.calls[key]]
        instead = f" instead of {lost[0]!r}" if lost else ""
        faults.append(
            f"it made the call {key!r}{instead}, which it does not make without a crash. Give the call a key that each execution "
            "finds again: ctx.tool(..., key=...)"
        )
    for key in expected.calls.keys() & seen.calls.keys():
        if expected.calls[key] != seen.calls[key]:
            faults.append(f"the call {key!r} was {seen.calls[key]:.300}, without a crash {expected.calls[key]:.300}")
    for effects, before, now in zip(seen.counted, expected.effects, seen.effects, strict=True):
        faults += [effects.twice(key) for key, count in now.items() if count > max(1, before.get(key, 0))]
        faults += [f"the effect {key!r} did not happen" for key in before if key not in now]
        new = [key for key in now if key not in before and now[key] == 1]
        faults += [f"the effect {key!r} happened, which does not happen without a crash" for key in new]
    pairs = (("the result is", expected.result, seen.result), ("the shared state is", expected.state, seen.state))
    faults += [f"{what} {_short(now)}, without a crash {_short(before)}" for what, before, now in pairs if before != now]
    if expected.sent != seen.sent:
        faults.append(f"its messages were {_short(seen.sent)}, without a crash {_short(expected.sent)}")
    return faults


def _where(point: CrashPoint, outcome: Outcome) -> str:
    written: list[Written] = outcome.journal.written
    if point.entry is not None:
        entry = written[point.entry - 1]
        if point.before:
            return f"between the step {entry.key!r} and its entry"
        return f"at entry {point.entry} of {len(written)}, when {entry}"
    after = "after the tool was done, before its result was recorded" if point.after_effect else "before the tool was called"
    return f"of the worker of {point.call!r} in attempt {point.attempt}, {after}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 300 else f"{text[:300]}…"
