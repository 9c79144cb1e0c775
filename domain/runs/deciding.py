"""One decision about a run: the events so far, the run after them, and what expressions may still cost."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

import pydantic_core

from domain import values
from domain.failures import Failure
from domain.kernel import Evaluated, Event, Functions, Json, Spent
from domain.plans import Step
from domain.runs.events import ByPerson, StepCompleted, StepFailed, StepSkipped
from domain.runs.progress import vote_of
from domain.runs.state import Run, evolve

MAX_MAPPED_BYTES = 200_000
"""Bytes of a value that an expression gives, or that results are gathered to, as JSON. An event has a limit."""
MOST_TOLD_VOTES = 20
"""Of more steps that gather one result, the votes are told by their hashes."""
MOST_SEEN = 10
"""Values that an expression named, in an event."""
LARGEST_SEEN = 1_000
"""Bytes of such a value, as JSON. A larger one is left out."""


NOTHING_JUDGED: Mapping[str, Json] = {}


class PlanFault(Exception):
    """A step cannot go on because of what its plan says, or what came of it. The text is for the author of the plan."""

    def __init__(self, message: str, type: str = "PlanExpressionError") -> None:
        super().__init__(message)
        self.failure = Failure(type=type, message=message[:10_000], kind="permanent")


class StepValues(Mapping[str, Json]):
    """`steps` of an expression. A value is made when it is named: a plan has up to a thousand steps."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __getitem__(self, key: str) -> dict[str, Json]:
        state = self._run.steps[key]
        value: dict[str, Json] = {"status": state.status, "result": state.result}
        if state.error is not None:
            value["error"] = {"type": state.error.type, "message": state.error.message, "kind": state.error.kind}
        return value

    def __contains__(self, key: object) -> bool:
        return key in self._run.steps

    def __iter__(self) -> Iterator[str]:
        return iter(self._run.graph.steps)

    def __len__(self) -> int:
        return len(self._run.steps)


class Decision:
    def __init__(self, run_id: UUID, run: Run, functions: Functions) -> None:
        self.run_id = run_id
        self.run = run
        self.events: list[Event] = []
        self.ended: list[str] = []
        """Steps that have ended in this decision, and whose followers have not been looked at."""
        self.failed: StepFailed | None = None
        """The first failure that the plan does not tolerate."""
        self.faults: dict[str, PlanFault] = {}
        """Step that gathers results → why it cannot judge one of them."""
        self.mapped = 0
        """Bytes of the inputs that were mapped."""
        self._functions = functions
        self._spent = Spent()

    def add(self, event: Event) -> None:
        self.run = evolve(self.run, event)  # type: ignore[arg-type]  # only this slice's events are made here
        self.events.append(event)

    # --- how a step ends ------------------------------------------------------------------------------------------------------

    def complete(self, step: Step, result: Json, agent_run_id: UUID | None = None, **told: Any) -> None:
        """Ends a step. Parts of it that have no outcome are abandoned."""
        judged = self.judged(step.key, result)
        abandoned, abandoned_runs = self.run.executions(step.key) if agent_run_id is None else ((), ())
        self.add(
            StepCompleted(
                step=step.key, agent_run_id=agent_run_id, result=result, judged=judged, abandoned=abandoned,
                abandoned_runs=abandoned_runs, **told,
            )
        )  # fmt: skip
        self.ended.append(step.key)

    def fail(self, step: Step, error: Failure, agent_run_id: UUID | None = None, person: ByPerson | None = None) -> None:
        abandoned, abandoned_runs = self.run.executions(step.key) if agent_run_id is None else ((), ())
        tolerated = step.on_failure == "continue"
        event = StepFailed(
            step=step.key, agent_run_id=agent_run_id, error=error, tolerated=tolerated, abandoned=abandoned,
            abandoned_runs=abandoned_runs, compensate=step.on_failure == "compensate", person=person,
        )  # fmt: skip
        self.add(event)
        self.ended.append(step.key)
        if not tolerated and self.failed is None:
            self.failed = event

    def skip(self, key: str, **why: Any) -> None:
        abandoned, abandoned_runs = self.run.executions(key)
        self.add(StepSkipped(step=key, abandoned=abandoned, abandoned_runs=abandoned_runs, **why))
        self.ended.append(key)

    def judged(self, key: str, result: Json, before: Mapping[str, Json] = NOTHING_JUDGED) -> dict[str, Json]:
        """What the steps that gather the result make of it. `before`: what some of them have made of it already."""
        judged: dict[str, Json] = {}
        judges = self.run.graph.gathered.get(key, ())
        if judges and (size := fault_of_size(result)[0]) is not None:
            self.faults.update(dict.fromkeys(judges, PlanFault(f"the result of the step '{key}' is {size}", "TooLarge")))
            return {}
        for later in judges:
            gather = self.run.graph.steps[later].gather
            if gather is None or self.run.steps[later].status != "pending":
                continue
            if later in before:
                judged[later] = before[later]
                continue
            for verdict in self.judge(later, key, result, few=len(judges) <= MOST_TOLD_VOTES):
                judged[later] = verdict
        return judged

    def judge(self, later: str, key: str, result: Json, *, few: bool = False) -> list[Json]:
        """What a step that gathers results makes of the result of the step `key`. Empty: nothing."""
        gather = self.run.graph.steps[later].gather
        assert gather is not None
        expression = gather.good if gather.mode == "first_good" else gather.by
        try:
            if expression is not None:
                verdict = self.value(expression, "`good`" if gather.mode == "first_good" else "`by`", result=result, step=key)
                if gather.mode == "first_good" and not isinstance(verdict, bool):
                    raise PlanFault(f"`good` is neither true nor false for the step '{key}': {expression}")
                return [vote_of(verdict, few=few)]
            if gather.mode == "vote":
                return [vote_of(result, few=few)]
        except PlanFault as fault:
            self.faults[later] = fault
        return []

    # --- expressions ----------------------------------------------------------------------------------------------------------

    def evaluate(self, expression: str, **more: Json) -> Evaluated:
        return self._functions.evaluate(expression, self._given(more), self._spent)

    def value(self, expression: str, place: str, **more: Json) -> Json:
        """The value of an expression. Raises PlanFault, which names the place and the expression."""
        found = self.evaluate(expression, **more)
        if found.error is not None:
            raise PlanFault(f"{place} cannot be evaluated: {found.error}; the expression is: {expression}")
        return found.value

    def saw(self, expression: str) -> dict[str, Json]:
        """The values that an expression names, as far as they are small."""
        seen: dict[str, Json] = {}
        for name, value in self._functions.named(expression, self._given({})).items():
            if len(seen) < MOST_SEEN and len(pydantic_core.to_json(value)) <= LARGEST_SEEN:
                seen[name] = value
        return seen

    def _given(self, more: Mapping[str, Json]) -> dict[str, Json]:
        return {"input": self.run.input, "metadata": self.run.metadata, "steps": StepValues(self.run), **more}


def bounded(value: Json, what: str) -> Json:
    """The value. Raises PlanFault if an event cannot hold it. `what`: the subject of the sentence."""
    if (fault := fault_of_size(value)[0]) is not None:
        raise PlanFault(f"{what} is {fault}", "TooLarge")
    return value


def fault_of_size(value: Json) -> tuple[str | None, int]:
    """Why an event cannot hold a value, and its bytes as JSON."""
    text = pydantic_core.to_json(value)
    if len(text) > MAX_MAPPED_BYTES:
        return f"too large: {len(text):,} bytes of JSON, a run can pass on {MAX_MAPPED_BYTES:,}", len(text)
    if values.is_deeper(text, values.MAX_DEPTH):
        return f"nested more than {values.MAX_DEPTH} levels deep", len(text)
    return None, len(text)


def named(keys: Sequence[str]) -> str:
    more = len(keys) - MOST_NAMED
    return ", ".join(keys[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


MOST_NAMED = 100
"""Steps that the words of a failure name."""
