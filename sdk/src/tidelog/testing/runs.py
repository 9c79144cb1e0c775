"""`run_agent`: an agent is executed in memory, as a worker does it."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidelog.agent import Agent, describe_agent
from tidelog.calling import keep_process, stop_task
from tidelog.context import Assignment, Context
from tidelog.journal import Journal
from tidelog.progress import Progress
from tidelog.testing.approving import Approve
from tidelog.testing.clock import KitClock, RealClock, TestClock
from tidelog.testing.journal import MemoryJournal, SentMessage, ToolCall
from tidelog.testing.ledger import Ledger, Resolve
from tidelog.testing.recorder import Answers, KitPlace, Life, MemoryRecorder
from tidelog.testing.spending import Spent, TestBudget
from tidelog.testing.vanishing import Vanish
from tidelog.tool_classes import AnyTool, tool_of
from tidelog.values import to_json


@dataclass(frozen=True)
class CrashPoint:
    """Where a crash comes, for `run_agent(..., crash_at=...)`.

    entry: the agent crashes when so many entries of the journal are written, before it hears of the last one. before: when the
    step of that entry is done, and before the entry is written.
    call: the worker of a tool vanishes in the call with this key. attempt: in this attempt. after_effect: when the tool is done,
    before its result is recorded; else before the tool is called.
    """

    entry: int | None = None
    before: bool = False
    call: str | None = None
    attempt: int = 1
    after_effect: bool = True

    def __post_init__(self) -> None:
        counted = self.entry is None or (isinstance(self.entry, int) and self.entry > 0)
        if (self.entry is None) == (self.call is None) or not counted:
            raise ValueError("a crash point has an entry, from 1 on, or the key of a call")

    def __repr__(self) -> str:
        if self.call is None:
            return f"CrashPoint(entry={self.entry}{', before=True' if self.before else ''})"
        return f"CrashPoint(call={self.call!r}, attempt={self.attempt}, after_effect={self.after_effect})"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of an execution.

    `result` is JSON data, as the server gets it. `unused_keys`: recorded keys that were not used again.
    """

    result: Any
    journal: MemoryJournal
    unused_keys: tuple[str, ...]

    @property
    def sent(self) -> list[SentMessage]:
        return self.journal.sent

    @property
    def state(self) -> dict[str, Any]:
        return self.journal.state

    @property
    def calls(self) -> list[ToolCall]:
        return self.journal.calls

    @property
    def asked(self) -> list[ToolCall]:
        """The calls of `reconcile` functions."""
        return self.journal.asked

    @property
    def schedules(self) -> dict[str, dict[str, Any]]:
        """The schedules that the agent has made and not removed, by the names that it gave: `when`, `start` and so on."""
        return self.journal.schedules

    @property
    def spent(self) -> Spent:
        """What the calls have cost: as their tools said, or else the most."""
        return self.journal.spending.spent

    @property
    def progress(self) -> list[Progress]:
        """What the agent has said of its progress, each with `done`, `total` and `message`. A server is told less of it."""
        return self.journal.progress

    @property
    def attempts(self) -> int:
        """How often the agent was executed: 1, and one for each crash."""
        return self.journal.attempts


class NoSuchCrash(AssertionError):
    """The execution ended without coming to the point at which it was to crash."""


async def run_agent(
    agent: type[Agent],
    input: Any = None,
    *,
    tools: Sequence[AnyTool] = (),
    results: Mapping[str, Any] | None = None,
    peers: Sequence[str] = (),
    over: Sequence[str] = (),
    missing: Sequence[str] = (),
    inbox: Sequence[tuple[str, Any]] = (),
    answers: Answers | None = None,
    state: Mapping[str, Any] | None = None,
    workspace: Path | str = ".",
    step_key: str | None = None,
    part: int | None = None,
    journal: MemoryJournal | None = None,
    on_behalf_of: str | None = None,
    clock: TestClock | None = None,
    crash_at: int | CrashPoint | None = None,
    resolve: Resolve | None = None,
    approve: Approve | None = None,
    budget: TestBudget | None = None,
    signals: Sequence[tuple[str, Any]] = (),
    children: Mapping[str, Any] | None = None,
) -> Outcome:
    """Execute an agent like a worker, and return the outcome. An exception of the agent is raised here.

    inbox: (sender, body) of messages that wait for the agent. answers: replies of its peers, see `Answers`. state: the shared
    context at the start. journal: the journal of an earlier execution, to continue it; inbox and state then come from the journal.
    on_behalf_of: for whom the run is. part: the number of the execution, as of a step with several.
    over: peers that have ended; `send` to them raises `RecipientOverError`.
    clock: a clock whose time passes without waiting. Without one, only the pauses between attempts of a tool are left out.
    crash_at: the agent crashes when so many entries are recorded, or at a `CrashPoint`, and is executed again.
    resolve: the person who is asked about an ambiguous call; see `Resolve`.
    approve: the people who are asked about a call that needs an approval; see `Approve`.
    budget: what the calls may cost, and the people who are asked for more; see `TestBudget`.
    children: name of an agent or workflow, or `plan` → the result of `ctx.child`, or a function that makes it of the input.
    signals: (name, payload) of signals that were sent before; `journal.signal` sends one meanwhile.

    Raises:
        DefinitionError: the agent or a tool is not well-formed.
        AmbiguousCallError: a call is ambiguous, and there is no `resolve`.
        HeldCallError: a call needs an approval, and there is no `approve`.
        BudgetStopError: the budget is spent, and stops the agent, or nobody gives more.
        BudgetAskError: the budget asks for more, and there is nobody who could give it.
        NoSuchCrash: the execution did not come to the point of `crash_at`.
    """
    return await execute_in_kit(
        agent, input, KitPlan(), tools=tools, results=results, peers=peers, over=over, missing=missing, inbox=inbox,
        answers=answers, state=state, workspace=workspace, step_key=step_key, part=part, journal=journal,
        on_behalf_of=on_behalf_of, clock=clock, crash_at=crash_at, resolve=resolve, approve=approve, budget=budget,
        signals=signals, children=children,
    )  # fmt: skip


class KitPlan:
    """What surrounds an execution: here an agent alone. See `tidelog.testing.plans` for one in a plan."""

    def place(self, life: Life, clock: KitClock) -> KitPlace:
        return KitPlace(life, clock)

    def recorder(self, *given: Any, **named: Any) -> MemoryRecorder:
        return MemoryRecorder(*given, **named)


async def execute_in_kit(
    agent: type[Agent],
    input: Any,
    plan: KitPlan,
    *,
    tools: Sequence[AnyTool] = (),
    results: Mapping[str, Any] | None = None,
    peers: Sequence[str] = (),
    over: Sequence[str] = (),
    missing: Sequence[str] = (),
    inbox: Sequence[tuple[str, Any]] = (),
    answers: Answers | None = None,
    state: Mapping[str, Any] | None = None,
    workspace: Path | str = ".",
    step_key: str | None = None,
    part: int | None = None,
    journal: MemoryJournal | None = None,
    on_behalf_of: str | None = None,
    clock: KitClock | None = None,
    crash_at: int | CrashPoint | None = None,
    resolve: Resolve | None = None,
    approve: Approve | None = None,
    budget: TestBudget | None = None,
    signals: Sequence[tuple[str, Any]] = (),
    children: Mapping[str, Any] | None = None,
) -> Outcome:
    """As `run_agent`, in what surrounds it."""
    definition = describe_agent(agent)
    known = {tool.describe().name: tool for tool in map(tool_of, tools)}
    journal = MemoryJournal() if journal is None else journal
    kit_clock: KitClock = clock or RealClock()
    if budget is not None:
        journal.spending.budget = budget
    point = crash_at if crash_at is None or isinstance(crash_at, CrashPoint) else CrashPoint(entry=crash_at)
    vanish = None
    if point is not None and point.call is not None:
        vanish = Vanish(point.call, point.attempt, point.after_effect)
    ledger = Ledger(
        journal, known, Path(workspace), on_behalf_of=on_behalf_of, clock=kit_clock, resolve=resolve, vanish=vanish, approve=approve
    )
    if journal.attempts == 0:
        journal.watch(kit_clock.now, lambda _: None)
        journal.state.update({name: to_json(value, f"the shared value {name!r}") for name, value in (state or {}).items()})
        for sender, body in inbox:
            journal.deliver(sender, body)
        journal.children.update(children or {})
        for name, payload in signals:
            journal.signal(name, payload)
    given = to_json(dict(results or {}), "the results")
    assert isinstance(given, dict)

    async def lived(life: Life) -> Outcome | None:
        """None: the agent has crashed."""
        recorder = plan.recorder(
            journal, known, tuple(peers), answers, Path(workspace), over, on_behalf_of, clock=kit_clock, ledger=ledger, life=life,
            agent=definition.name,
        )  # fmt: skip
        recorder.resume_calls()
        assignment = Assignment(
            journal.run_id,
            journal.agent_run_id,
            journal.next_attempt(),
            step_key or definition.name,
            definition.name,
            to_json(input, "the input"),
            given,
            tuple(peers),
            tuple(missing),
            on_behalf_of,
            part,
        )
        recorded = journal.changes(0)
        start = Journal(recorded.version, recorded.journal, recorded.mailbox)
        context = Context(assignment, start, recorder, plan.place(life, kit_clock), clock=kit_clock)
        try:
            return await _executed(agent, context, life, ledger, journal)
        finally:
            context.close()
            await recorder.close()

    try:
        if point is not None and point.entry is not None and (outcome := await lived(Life(point.entry, point.before))) is not None:
            raise NoSuchCrash(f"the agent did not come to {point}: {_told(journal)}")
        outcome = await lived(Life())
        assert outcome is not None
        if vanish is not None and ledger.vanishes:
            raise NoSuchCrash(f"the agent did not come to {point}: {_told(journal)}")
        return outcome
    finally:
        await ledger.close()


async def _executed(agent: type[Agent], context: Context, life: Life, ledger: Ledger, journal: MemoryJournal) -> Outcome | None:
    """The outcome; None after a crash. Raises what the agent raises, and AmbiguousCallError."""

    async def execute() -> Any:
        with keep_process():
            return to_json(await agent().execute(context), "the agent's result")

    task = asyncio.create_task(execute(), name=f"execute {agent.__name__}")
    crash = asyncio.create_task(life.crashed.wait(), name="crash")
    ends: set[asyncio.Future[Any]] = {task, crash, ledger.stuck}
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended = task.done()
        await stop_task(task)
        await stop_task(crash)
    if life.crashed.is_set():
        if task.done() and not task.cancelled():
            task.exception()  # nobody hears of it
        return None
    if not ended and ledger.stuck.done():
        raise ledger.stuck.result()
    return Outcome(task.result(), journal, context.unused_keys())


def _told(journal: MemoryJournal) -> str:
    entries = "; ".join(f"{written.number} {written}" for written in journal.written[-20:])
    return f"its entries were: {entries or 'none'}"
