"""Random plans of every form, with outcomes in any order, beside a model that counts nothing (`tests/kit/plan_model.py`)."""

from random import Random
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from adapters.expressions.evaluator import CelExpressions
from application.functions import RuleFunctions
from domain import runs
from domain.failures import Failure
from domain.kernel import Event, Json
from domain.plans import Plan
from domain.registry import REGISTRY
from domain.runs import DECIDER, Run
from tests.kit.plan_model import PlanModel

FUNCTIONS = RuleFunctions(CelExpressions())
RUN = UUID("01900000-0000-7000-8000-0000000000aa")
BROKEN = Failure(type="ValueError", message="broken")
INPUT = {"list": [3, 1, 2], "empty": [], "n": 2}
CHILD = {"plan": {"steps": [{"key": "inner", "agent": "x"}]}}


def form_of(random: Random, before: list[str]) -> dict[str, Any]:
    """What a random step does."""
    last = before[-1] if before else None
    kinds = ["agent"] * 4 + ["value", "wait", "each", "each_run", "repeat", "run", "adaptive", "fallbacks"]
    match random.choice(kinds + ["gather"] * 4 if before else kinds):
        case "agent":
            return {
                "agent": "x",
                "input_from": random.choice([None, "input.n", {"a": "input.n"}, "input.nothing", {"s": "string(size(steps))"}]),
            }
        case "value":
            return {"value": random.choice(["input.n", "input.nothing", f"steps['{last}'].status" if last else "1"])}
        case "wait":
            return {"wait": random.choice([{"s": 5}, {"until": "'2026-11-30T08:00:00Z'"}, {"until": "'soon'"}])}
        case "each":
            over = random.choice(["input.list", "input.list", "input.empty", "input.n"])
            each = {"over": over, "max_parallel": random.choice([1, 2, 10]), "on_failure": random.choice(["fail", "continue"])}
            mapped = random.choice([None, "item + index", "input.list[index + 1]"])
            return {"agent": "x", "each": each, "input_from": mapped, "fallbacks": random.choice([[], [{"agent": "y"}]])}
        case "each_run":
            return {"run": CHILD, "each": {"over": "input.list", "on_failure": random.choice(["fail", "continue"])}}
        case "repeat":
            until = random.choice([None, "result >= 3", "result >= 3", "iteration == 2", "result"])
            repeat = {"times": random.choice([1, 3]), "until": until, "exhausted": random.choice(["complete", "fail"])}
            return {"agent": "x", "repeat": repeat, "input_from": random.choice([None, "last == null ? 0 : last", "iteration"])}
        case "run":
            return {"run": CHILD, "input": random.choice([None, 5])}
        case "adaptive":
            return {"agent": "x", "adaptive": {"agents": [{"agent": "y"}], "max_rounds": 3, "max_steps": 2}}
        case "fallbacks":
            return {"agent": "x", "fallbacks": [{"agent": "y"}, {"agent": "z"}][: random.choice([1, 2])]}
        case _:
            mode = random.choice(["all", "any", "first_good", "vote"])
            more: dict[str, Any] = {}
            if mode == "any":
                more["count"] = random.randint(1, min(3, len(before)))
            elif mode == "first_good":
                more["good"] = random.choice(["result == 3", "result != null", "result > 1"])
            elif mode == "vote" and random.random() < 0.5:
                more["by"] = random.choice(["string(result)", "step", "result.nothing"])
            return {"gather": {"mode": mode, "rest": random.choice(["cancel", "wait"]), **more}}


def plan_of(random: Random, size: int, reach: int = 8, tolerated: float = 0.93) -> Plan:
    """`reach`: how far back a step looks. `tolerated`: the share of failures."""
    steps: list[dict[str, Any]] = []
    for number in range(size):
        near = [step["key"] for step in steps[-reach:]]
        before = [key for key in near if random.random() < 0.35]
        step = {"key": f"s{number}", "after": before, **form_of(random, before)}
        if before and "gather" not in step and random.random() < 0.3:
            step["when"] = random.choice(
                [f"steps.{before[0]}.status == 'failed'", f"steps.{before[0]}.status != 'skipped'", "input.n > 5", "input.nothing"]
            )
        step["on_failure"] = "continue" if random.random() < tolerated else random.choice(["fail", "compensate"])
        steps.append(step)
    if size <= 20:
        random.shuffle(steps)
    return Plan.model_validate({"steps": steps})


def answer_of(random: Random, run: Run, key: str) -> Json:
    """What an agent or a child run gives as its result."""
    step = run.step(key)
    if step.adaptive is not None and int(key.rpartition(".")[2]) % 2 == 0:
        return random.choice([{"result": 3}, {"steps": [{"key": "named", "agent": "y"}]}])
    return random.choice([0, 1, 2, 3, 3, 3])


def open_in(run: Run) -> dict[str, str]:
    """Key of an execution → what it is."""
    found: dict[str, str] = {}
    for key, state in run.steps.items():
        progress = run.progress.get(key)
        if state.status != "scheduled":
            assert progress is None or state.status in ("failed", "skipped"), "kept for a retry"
        elif progress is None:
            found[key] = "agent"
        elif progress.form == "wait":
            found[key] = "wait"
        else:
            found |= {runs.part_key(key, part): "run" if one.is_run else "agent" for part, one in progress.open.items()}
    return found


def command_of(run: Run, key: str, ok: bool, value: Json) -> runs.RunCommand:
    place = run.place(key)
    assert place is not None
    step, part = place
    if part is None:
        if run.waits(step):
            return runs.EndWait(run_id=RUN, step=step)
        agent_run_id = run.steps[step].agent_run_id
        assert agent_run_id is not None
    else:
        one = run.progress[step].open[part]
        agent_run_id = one.execution_id
        if one.is_run:
            error = None if ok else BROKEN
            return runs.FinishChild(run_id=RUN, step=step, part=part, child_id=agent_run_id, result=value, error=error)
    if ok:
        return runs.CompleteStep(run_id=RUN, step=key, agent_run_id=agent_run_id, result=value)
    return runs.FailStep(run_id=RUN, step=key, agent_run_id=agent_run_id, error=BROKEN)


class Played:
    """A run by the rules, beside the model."""

    def __init__(self, plan: Plan) -> None:
        self.run, self.model = Run(), PlanModel(plan, INPUT)
        self.ended: list[runs.RunCommand] = []
        self.do(runs.StartRun(run_id=RUN, project_id=RUN, plan=plan, input=INPUT))
        self.model.start()
        self.check()

    def do(self, command: runs.RunCommand) -> list[Event]:
        decided = DECIDER.events(self.run, command, FUNCTIONS)
        self.run = DECIDER.fold(self.run, decided)
        return decided

    def go_on(self, random: Random) -> None:
        key = random.choice(sorted(self.model.open))
        ok, value = random.random() < 0.75, answer_of(random, self.run, key)
        command = command_of(self.run, key, ok, value)
        decided = self.do(command)
        assert decided
        self.model.end_execution(key, ok, value)
        self.ended.append(command)

    def check(self) -> None:
        run, model = self.run, self.model
        assert {key: state.status for key, state in run.steps.items()} == model.status
        assert {key: state.result for key, state in run.steps.items() if state.status == "completed"} == model.results
        assert (run.status if run.status != "running" else "running") == model.outcome
        assert open_in(run) == model.open
        for key, kind in model.open.items():
            if kind == "agent":
                assert run.input_of(key) == model.given[key], key
        over = [state for state in run.steps.values() if state.status in ("completed", "failed", "skipped")]
        assert run.ended == len(over)
        if run.status == "running":
            assert model.open, "a run that goes on waits for something"
        else:
            assert not [key for key in run.inputs if key not in model.given]


@settings(max_examples=150, deadline=None)
@for_all(st.integers(0, 2**32), st.integers(1, 14))
def test_a_run_is_at_every_outcome_where_the_model_is(seed: int, size: int) -> None:
    random = Random(seed)
    played = Played(plan_of(random, size))
    while played.run.status == "running":
        played.go_on(random)
        played.check()
    for command in played.ended:
        assert played.do(command) == [], "an outcome that comes again, or late, changes nothing"


@settings(max_examples=50, deadline=None)
@for_all(st.integers(0, 2**32), st.integers(1, 14))
def test_what_ends_names_all_that_was_under_way(seed: int, size: int) -> None:
    """Whatever begins is either over before its step, or is named by the event that ends its step or the run."""
    random = Random(seed)
    played, open_ = Played(plan_of(random, size)), set[UUID]()
    run = Run()
    events = DECIDER.events(run, runs.StartRun(run_id=RUN, project_id=RUN, plan=played.run.plan, input=INPUT), FUNCTIONS)  # type: ignore[arg-type]
    while True:
        for event in events:
            open_ |= {
                id_
                for name in ("agent_run_id", "child_id")
                if "cheduled" in type(event).__name__ and (id_ := getattr(event, name, None))
            }
            open_ -= {*getattr(event, "abandoned", ()), *getattr(event, "abandoned_runs", ())}
        run = DECIDER.fold(run, events)
        if run.status != "running":
            break
        key = random.choice(sorted(open_in(run)))
        command = command_of(run, key, random.random() < 0.7, answer_of(random, run, key))
        open_ -= {getattr(command, "agent_run_id", None), getattr(command, "child_id", None)}  # type: ignore[arg-type]
        if random.random() < 0.05:
            command = runs.CancelRun(run_id=RUN)
        events = DECIDER.events(run, command, FUNCTIONS)
    assert not open_ or run.status == "cancelled"


@pytest.mark.parametrize("seed", [0])
def test_plans_of_a_thousand_steps(seed: int) -> None:
    """The model looks at everything at each outcome, so it is compared now and then."""
    random = Random(seed)
    played, number = Played(plan_of(random, 850, tolerated=1.0)), 0  # a thousand with those of child runs
    while played.run.status == "running":
        played.go_on(random)
        number += 1
        if number % 300 == 0:
            played.check()
    played.check()
    assert number > 100 or played.run.status == "failed"


@settings(max_examples=30, deadline=None)
@for_all(st.integers(0, 2**32), st.integers(1, 10))
def test_the_events_tell_everything(seed: int, size: int) -> None:
    """A fold of the stored events gives the same run, without any function."""
    random = Random(seed)
    run, stored = Run(), list[tuple[str, int, bytes]]()
    command: runs.RunCommand = runs.StartRun(run_id=RUN, project_id=RUN, plan=plan_of(random, size), input=INPUT)
    while True:
        events = DECIDER.events(run, command, FUNCTIONS)
        run = DECIDER.fold(run, events)
        stored += [(event.TOPIC, event.stored_version, REGISTRY.encode(event)) for event in events]
        if run.status != "running":
            break
        key = random.choice(sorted(open_in(run)))
        command = command_of(run, key, random.random() < 0.7, answer_of(random, run, key))
    assert DECIDER.fold(Run(), [REGISTRY.decode(*one) for one in stored]) == run
