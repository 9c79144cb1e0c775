"""A run whose outcomes are given by hand: the rules of runs, with expressions and without an engine."""

from typing import Any
from uuid import UUID

from adapters.expressions.evaluator import CelExpressions
from application.functions import RuleFunctions
from domain import runs
from domain.failures import Failure
from domain.kernel import Event, Json
from domain.plans import Plan
from domain.runs import DECIDER, Run

FUNCTIONS = RuleFunctions(CelExpressions())
RUN, PROJECT = UUID("01900000-0000-7000-8000-0000000000aa"), UUID("01900000-0000-7000-8000-0000000000bb")
BROKEN = Failure(type="ValueError", message="broken", traceback="…")
BODY = {"steps": [{"key": "inner", "agent": "x"}]}


class Played:
    """A run whose outcomes are given by hand."""

    def __init__(self, *steps: Json, input: Json = None, result: str | None = None, **more: Any) -> None:
        plan = Plan.model_validate({"steps": steps, "result": result})
        self.run = Run()
        self.events = self.do(runs.StartRun(run_id=RUN, project_id=PROJECT, plan=plan, input=input, **more))

    def do(self, command: runs.RunCommand) -> list[Event]:
        self.events = DECIDER.events(self.run, command, FUNCTIONS)
        self.run = DECIDER.fold(self.run, self.events)
        return self.events

    def id_of(self, key: str) -> UUID:
        place = self.run.place(key)
        assert place is not None
        step, part = place
        found = self.run.steps[step].agent_run_id if part is None else self.run.progress[step].open[part].execution_id
        assert found is not None
        return found

    def done(self, key: str, result: Json = None) -> list[Event]:
        return self.do(runs.CompleteStep(run_id=RUN, step=key, agent_run_id=self.id_of(key), result=result))

    def fails(self, key: str) -> list[Event]:
        return self.do(runs.FailStep(run_id=RUN, step=key, agent_run_id=self.id_of(key), error=BROKEN))

    def child(self, key: str, result: Json = None, error: Failure | None = None) -> list[Event]:
        step, part = self.run.place(key) or ("", None)
        assert part is not None
        return self.do(runs.FinishChild(run_id=RUN, step=step, part=part, child_id=self.id_of(key), result=result, error=error))

    def one(self, kind: type[Event], step: str | None = None) -> Any:
        [found] = [e for e in self.events if isinstance(e, kind) and step in (None, getattr(e, "step", None))]
        return found

    def error(self, step: str) -> tuple[str, str, str]:
        found = self.one(runs.StepFailed, step).error
        return found.type, found.kind, found.message


def gathering(mode: str, keys: str = "abc", **more: Json) -> Played:
    steps = [{"key": key, "agent": "x", "on_failure": "continue"} for key in keys]
    return Played(*steps, {"key": "z", "gather": {"mode": mode, **more}, "after": list(keys), "on_failure": "continue"})
