"""`run_plan`: a whole plan with its agents, in memory, by the rules of the server."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from tidelog.agent import Agent, describe_agent
from tidelog.bodies import plan_of
from tidelog.calling import stop_task
from tidelog.failures import agent_failure
from tidelog.testing.approving import Approve, HeldCallError
from tidelog.testing.clock import TestClock
from tidelog.testing.engines import NoPlanEngineError, PlanEngine, plan_engine
from tidelog.testing.journal import MemoryJournal
from tidelog.testing.ledger import AmbiguousCallError, Resolve
from tidelog.testing.plan_agents import AgentOfPlan
from tidelog.testing.plan_outcomes import Execution, PlanOutcome, StepOutcome, outcome_of
from tidelog.testing.runs import CrashPoint, NoSuchCrash, execute_in_kit
from tidelog.testing.spending import BudgetAskError, BudgetStopError, ShareOfSpending, Spending, TestBudget
from tidelog.tool_classes import AnyTool
from tidelog.values import to_json

__all__ = ["NoPlanEngineError", "PlanOutcome", "PlanRefusedError", "StepOutcome", "StuckPlanError", "run_plan"]

OF_THE_TEST = (AmbiguousCallError, HeldCallError, BudgetAskError, BudgetStopError, NoSuchCrash)
"""What ends the test, and is no failure of an agent."""
FILES = (".yaml", ".yml", ".json")
STUCK_S = 2.0
"""Real seconds in which nothing happens, and nothing can."""


class PlanRefusedError(ValueError):
    """The server would not start this plan. `faults`: each as `(pointer, text)`."""

    def __init__(self, error: Exception) -> None:
        found = getattr(error, "faults", None) or ((getattr(error, "pointer", None) or "", str(error)),)
        self.faults: tuple[tuple[str, str], ...] = tuple((str(pointer), str(text)) for pointer, text, *_ in found)
        super().__init__("; ".join(f"{pointer}: {text}" if pointer else text for pointer, text in self.faults))
        self.code = getattr(error, "code", None)


class StuckPlanError(AssertionError):
    """The plan waits for something that never comes: a signal, or a message without a time-out."""


async def run_plan(
    plan: Mapping[str, Any] | str | Path,
    input: Any = None,
    *,
    agents: Sequence[type[Agent]],
    tools: Sequence[AnyTool] = (),
    workflows: Sequence[Mapping[str, Any] | str | Path] = (),
    clock: TestClock | None = None,
    crash_at: Mapping[str, int | CrashPoint] | None = None,
    resolve: Resolve | None = None,
    approve: Approve | None = None,
    budget: TestBudget | None = None,
    signals: Sequence[tuple[str, Any] | tuple[str, Any, str]] = (),
    metadata: Mapping[str, Any] | None = None,
    on_behalf_of: str | None = None,
    deadline_s: float | None = None,
    workspace: Path | str = ".",
) -> PlanOutcome:
    """Run a plan to its end, with all its agents, and return what has become of it. A plan that fails raises nothing.

    The rules are those of the server, whose package must be installed; no server is needed. Each agent is executed as by
    `run_agent`, on one clock, which goes by itself unless it is moved by hand.

    plan: a plan as of `tidelog.plans`; a workflow, as a mapping; YAML of either; the path of a file of it; or the name of one of
    `workflows`. workflows: further ones that the plan or its agents start.
    crash_at: key of a step, or of a part of one (`reviews.0`) → where its agent crashes, as of `run_agent`.
    budget: what all agents may spend together. resolve, approve: as of `run_agent`, for all agents.
    signals: (name, payload), or (name, payload, step), sent at the start; whoever waits for one later gets it.
    deadline_s: of the whole run.

    Raises:
        NoPlanEngineError: the package of the server is not installed.
        PlanRefusedError: a server would not start the plan.
        StuckPlanError: the plan waits for something that never comes.
        AmbiguousCallError, HeldCallError, BudgetStopError, BudgetAskError, NoSuchCrash: as of `run_agent`.
    """
    clock = TestClock() if clock is None else clock
    engine = plan_engine(clock.now)
    known = {describe_agent(agent).name: agent for agent in agents}
    said: dict[str, Any] = {"input": to_json(input, "the input"), "metadata": dict(metadata or {})}
    if deadline_s is not None:
        said["deadline_s"] = deadline_s
    played = PlayedPlan(
        engine, known, clock, dict(crash_at or {}), budget, tools=tools, resolve=resolve, approve=approve, workspace=workspace
    )
    try:
        for agent in known.values():
            await engine.register(describe_agent(agent).model_dump(mode="json"))
        for workflow in workflows:
            await engine.publish(_read(engine, workflow))
        if isinstance(plan, str) and "\n" not in plan and Path(plan).suffix not in FILES:
            said["workflow"] = {"name": plan}
        elif "plan" in (given := _read(engine, plan)):
            said["workflow"] = {"name": await engine.publish(given)}
        else:
            said["plan"] = plan_of({"kind": "graph", **given} if "steps" in given else given)
        run_id = await engine.start(said, on_behalf_of)
        for name, payload, *step in signals:
            await engine.signal(name, to_json(payload, "the payload"), step[0] if step else None)
    except Exception as error:
        if not hasattr(error, "code"):
            raise
        raise PlanRefusedError(error) from error
    await played.play()
    return outcome_of(run_id, engine.views(), list(played.executions.values()), played.spending.spent)


def _read(engine: PlanEngine, what: Mapping[str, Any] | str | Path) -> dict[str, Any]:
    if isinstance(what, Mapping):
        return dict(what)
    text = what if isinstance(what, str) and "\n" in what else Path(what).read_text("utf-8")
    found = engine.read(text)
    if not isinstance(found, dict):
        raise ValueError("a plan or a workflow is a mapping")
    return found


class PlayedPlan:
    """A plan under way: the engine decides, the kit executes agents, the clock goes on when both have nothing to do."""

    def __init__(
        self, engine: PlanEngine, agents: Mapping[str, type[Agent]], clock: TestClock, crashes: dict[str, int | CrashPoint],
        budget: TestBudget | None, **options: Any,
    ) -> None:  # fmt: skip
        self.executions: dict[UUID, Execution] = {}
        self.spending = Spending(budget or TestBudget())
        self._engine = engine
        self._agents = agents
        self._clock = clock
        self._crashes = crashes
        self._options = options
        self._under_way: dict[asyncio.Task[None], AgentOfPlan] = {}
        self._changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._fault: BaseException | None = None

    async def play(self) -> None:
        """Until the run has ended. Raises StuckPlanError, and what ends the test."""
        try:
            while True:
                self._changed = asyncio.get_running_loop().create_future()
                with self._clock.working(step=True):
                    await self._engine.settle()
                    await self._engine.fire()
                    await self._look_after_agents()
                    over = await self._engine.is_over()
                if self._fault is not None:
                    raise self._fault
                if over:
                    break
                await self._wait()
        finally:
            for task in list(self._under_way):
                await stop_task(task)
        if self._crashes:
            raise NoSuchCrash(f"no agent was executed as {', '.join(map(repr, self._crashes))}")

    def _change(self) -> None:
        if not self._changed.done():
            self._changed.set_result(None)

    async def _look_after_agents(self) -> None:
        for task, of_plan in list(self._under_way.items()):
            if not await self._engine.has(of_plan.agent_run_id, of_plan.attempt):
                await stop_task(task)  # cancelled, or too late
            else:
                await of_plan.hear()
        for agent_run_id, dispatch in self._engine.take_work():
            given = await self._engine.claim(agent_run_id, dispatch)
            if given is not None:
                self._begin(agent_run_id, given)

    def _begin(self, agent_run_id: UUID, given: dict[str, Any]) -> None:
        execution = self.executions.get(agent_run_id)
        if execution is None:
            journal = MemoryJournal(run_id=given["run_id"], agent_run_id=agent_run_id)
            journal.spending = ShareOfSpending(self.spending, given["key"])
            execution = Execution(given["key"], given["agent"], given["run_id"], given["input"], journal)
            self.executions[agent_run_id] = execution
        execution.attempts += 1
        of_plan = AgentOfPlan(self._engine, agent_run_id, given["attempt"], execution.journal, self._clock, self._change)
        of_plan.busy.begin()
        task = asyncio.get_running_loop().create_task(self._execute(of_plan, execution, given), name=f"agent {given['key']}")
        self._under_way[task] = of_plan
        task.add_done_callback(self._ended)
        self._change()  # messages may be waiting

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._under_way.pop(task).busy.end()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fault = self._fault or error
        self._change()

    async def _execute(self, of_plan: AgentOfPlan, execution: Execution, given: dict[str, Any]) -> None:
        try:
            outcome = await execute_in_kit(
                self._agents[given["agent"]], given["input"], of_plan, results=given["results"], peers=given["peers"],
                missing=given["missing"], step_key=given["step_key"], part=given["part"], journal=execution.journal,
                on_behalf_of=given["on_behalf_of"], clock=self._clock, crash_at=self._crashes.pop(execution.key, None),
                **self._options,
            )  # fmt: skip
        except OF_THE_TEST:
            raise
        except Exception as error:  # noqa: BLE001  # of the agent: the plan says what follows
            report = agent_failure(error).model_dump(mode="json")
            execution.error = report
            await of_plan.ask(self._engine.fail(of_plan.agent_run_id, of_plan.attempt, report))
        else:
            execution.result, execution.error = outcome.result, None
            await of_plan.ask(self._engine.complete(of_plan.agent_run_id, of_plan.attempt, outcome.result, outcome.unused_keys))

    async def _wait(self) -> None:
        """Until something has changed, or a timer of the engine is due."""
        due = self._engine.next_due()
        left = None if due is None else max(0.0, (due - self._clock.now()).total_seconds())
        waiting = asyncio.ensure_future(self._clock.wait(self._changed, left))
        try:
            while not waiting.done():
                await asyncio.wait({waiting}, timeout=STUCK_S if left is None else None)
                if left is None and not waiting.done() and self._clock.is_idle:
                    raise StuckPlanError(self._told())
        finally:
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                await waiting

    def _told(self) -> str:
        waits = [
            f"{self.executions[each.agent_run_id].key} ({', '.join(map(str, each.journal.written[-1:])) or 'nothing recorded'})"
            for each in self._under_way.values()
        ]
        return f"nothing goes on: agents that wait: {'; '.join(waits) or 'none'}. Give signals=[...], or time-outs"
