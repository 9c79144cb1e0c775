"""A small independent model of what a plan does: at each outcome it looks at lists of everything that happened. Nothing is counted.

Only the order of what follows from one outcome is as in the rules: in rounds, each in the order of the plan.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from adapters.expressions.evaluator import CelExpressions
from domain.kernel import Json
from domain.plans import Plan, Step

EXPRESSIONS = CelExpressions()
OVER = ("completed", "failed", "skipped")


class Unusable(Exception):
    """An expression has no value that can be used."""


@dataclass
class PlanModel:
    plan: Plan
    input: Json
    status: dict[str, str] = field(default_factory=dict)
    results: dict[str, Json] = field(default_factory=dict)
    completed: list[str] = field(default_factory=list)
    """In the order of their ends."""
    open: dict[str, str] = field(default_factory=dict)
    """Key of an execution → `agent`, `run` or `wait`."""
    given: dict[str, Json] = field(default_factory=dict)
    """Key of an execution → its input."""
    tried: dict[str, int] = field(default_factory=dict)
    lists: dict[str, list[Json]] = field(default_factory=dict)
    parts: dict[str, dict[int, tuple[bool, Json]]] = field(default_factory=dict)
    """Step → part → whether it completed, and its result."""
    ended: list[str] = field(default_factory=list)
    broken: str | None = None
    outcome: str = "running"

    def start(self) -> None:
        self.status = {step.key: "pending" for step in self.plan.steps}
        for step in self.plan.steps:
            if not step.after:
                self._look(step)
        self._go_on()

    # --- outcomes -------------------------------------------------------------------------------------------------------------

    def end_execution(self, key: str, ok: bool, value: Json) -> None:
        kind = self.open.pop(key)
        owner, _, part = key.rpartition(".")
        step = self._step(owner if owner in self.status else key)
        if step.key == key:
            if kind == "wait":
                self._end(step, "completed", None)
            elif ok:
                self._end(step, "completed", value)
            elif not self._fall_back(step, key):
                self._end(step, "failed")
        elif not ok and kind == "agent" and self._fall_back(step, key):
            pass
        else:
            self._part(step, int(part), ok, value)
        self._go_on()

    def _fall_back(self, step: Step, key: str) -> bool:
        tried = self.tried[key] = self.tried.get(key, 0) + 1
        if tried > len(step.fallbacks):
            return False
        self.open[key] = "agent"
        return True

    def _part(self, step: Step, part: int, ok: bool, value: Json) -> None:
        parts = self.parts.setdefault(step.key, {})
        parts[part] = ok, value
        tolerated = step.each is not None and step.each.on_failure == "continue"
        if not ok and not tolerated:
            self._end(step, "failed")
            return
        try:
            if step.each is not None:
                self._fill(step)
            elif step.repeat is not None:
                self._again(step, part, value)
            elif step.adaptive is not None:
                self._adapt(step, part, value)
            else:
                self._end(step, "completed", value)
        except Unusable:
            self._end(step, "failed")

    # --- what follows ---------------------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        while self.ended and self.broken is None:
            ended, self.ended = set(self.ended), []
            waits = {step.key for step in self.plan.steps if any(self.status[key] not in OVER for key in step.after)}
            for step in self.plan.steps:
                touched = self.status[step.key] == "pending" and ended & set(step.after)
                if touched and (step.gather is not None or step.key not in waits):
                    self._look(step)
        if self.broken is not None:
            self.outcome = "failed"
        elif all(status in OVER for status in self.status.values()):
            failed = [key for key, status in self.status.items() if status == "failed"]
            self.outcome = "failed" if failed and not self.completed else "completed"

    def _look(self, step: Step) -> None:
        if self.status[step.key] != "pending":
            return
        try:
            if step.gather is not None:
                self._gather(step)
            elif self._runs(step):
                self._begin(step)
        except Unusable:
            self._end(step, "failed")

    def _runs(self, step: Step) -> bool:
        if step.when is not None:
            value = self._value(step.when)
            if not isinstance(value, bool):
                raise Unusable
            if not value:
                self._end(step, "skipped")
            return value
        return not step.after or not self._without(step)

    def _without(self, step: Step) -> bool:
        before = [self.status[key] for key in step.after]
        if "completed" in before:
            return False
        self._end(step, "failed" if "failed" in before else "skipped")
        return True

    def _begin(self, step: Step) -> None:
        if step.value is not None:
            self._end(step, "completed", self._value(step.value))
            return
        self.status[step.key] = "scheduled"
        if step.wait is not None:
            if step.wait.until is not None and not str(self._value(step.wait.until)).endswith("Z"):
                raise Unusable
            self.open[step.key] = "wait"
        elif step.each is not None:
            items = self._value(step.each.over)
            if not isinstance(items, list):
                raise Unusable
            self.lists[step.key] = items
            self._fill(step)
        elif step.repeat is not None:
            self._schedule(step, 0, self._mapped(step, self._own(step), iteration=1, last=None))
        elif step.adaptive is not None:
            base = self._mapped(step, self._own(step))
            self._schedule(step, 0, {"input": base, "round": 1, "results": None, "history": []})
        elif step.run is not None:
            self._schedule(step, 0, self._mapped(step, self._own(step)))
        else:
            self.given[step.key] = self._mapped(step, self._own(step))
            self.open[step.key] = "agent"

    def _own(self, step: Step) -> Json:
        return self.input if step.input is None else step.input

    def _schedule(self, step: Step, part: int, value: Json, kind: str | None = None) -> None:
        key = f"{step.key}.{part}"
        self.given[key] = value
        self.open[key] = kind or ("agent" if step.run is None else "run")

    def _fill(self, step: Step) -> None:
        assert step.each is not None
        items, parts = self.lists[step.key], self.parts.setdefault(step.key, {})
        for part, item in enumerate(items):
            begun = f"{step.key}.{part}" in self.given
            under_way = [key for key in self.open if key.rpartition(".")[0] == step.key]
            if not begun and len(under_way) < step.each.max_parallel:
                self._schedule(step, part, self._mapped(step, item, item=item, index=part))
        if len(parts) == len(items):
            self._end(step, "completed", [parts[part][1] if parts[part][0] else None for part in range(len(items))])

    def _again(self, step: Step, part: int, value: Json) -> None:
        assert step.repeat is not None
        repeat = step.repeat
        if repeat.until is not None:
            over = self._value(repeat.until, result=value, iteration=part + 1)
            if not isinstance(over, bool):
                raise Unusable
            if over:
                self._end(step, "completed", value)
                return
        if part + 1 == repeat.times:
            if repeat.until is not None and repeat.exhausted == "fail":
                raise Unusable
            self._end(step, "completed", value)
            return
        self._schedule(step, part + 1, self._mapped(step, value, iteration=part + 2, last=value))

    def _adapt(self, step: Step, part: int, value: Json) -> None:
        assert step.adaptive is not None
        base = self.given[f"{step.key}.0"]["input"]
        if part % 2:
            history: list[Json] = []
            for number in range(1, part + 1, 2):
                [named] = self.parts[step.key][number - 1][1]["steps"]
                said = [{"key": named["key"], "agent": named["agent"]}]
                result = value if number == part else self.parts[step.key][number][1]
                history.append({"round": number // 2 + 1, "steps": said, "results": {named["key"]: result}})
            asked = {"input": base, "round": part // 2 + 2, "results": history[-1]["results"], "history": history}
            self._schedule(step, part + 1, asked, "agent")
        elif "result" in value:
            self._end(step, "completed", value["result"])
        else:
            rounds = [answer for number, (_, answer) in self.parts[step.key].items() if number % 2 == 0]
            named = sum(len(answer["steps"]) for answer in rounds)
            if part // 2 + 1 == step.adaptive.max_rounds or named > step.adaptive.max_steps:
                raise Unusable
            self._schedule(step, part + 1, base, "run")

    # --- gathering ------------------------------------------------------------------------------------------------------------

    def _gather(self, step: Step) -> None:
        gather = step.gather
        assert gather is not None
        members = list(dict.fromkeys(step.after))
        came = [key for key in self.completed if key in members]
        rest = [key for key in members if self.status[key] not in OVER]
        verdict: Json = None
        decided = False
        if gather.mode == "all":
            decided = not rest and bool(came)
            verdict = {key: self.results[key] for key in members if key in came}
        elif gather.mode == "any":
            decided = len(came) >= gather.count
            verdict = {key: self.results[key] for key in members if key in came[: gather.count]}
        elif gather.mode == "first_good":
            good = [key for key in came if self._value(gather.good or "", result=self.results[key], step=key) is True]
            decided = bool(good)
            verdict = self.results[good[0]] if good else None
        elif came:
            votes = [repr(self._vote(step, key)) for key in came]
            counted = Counter(votes)
            winner = max(counted, key=lambda vote: (counted[vote], -votes.index(vote)))
            others = max((number for vote, number in counted.items() if vote != winner), default=0)
            decided = not rest or counted[winner] > others + len(rest)
            verdict = self.results[came[votes.index(winner)]]
        if decided:
            self._end(step, "completed", verdict)
        elif not rest and not came:
            self._without(step)
        elif (gather.mode == "any" and len(came) + len(rest) < gather.count) or (gather.mode == "first_good" and not rest):
            self._end(step, "failed")
        else:
            return
        if gather.rest == "cancel" and self.broken is None:
            for key in rest:
                self._end(self._step(key), "skipped")

    def _vote(self, step: Step, key: str) -> Json:
        assert step.gather is not None
        by = step.gather.by
        return self.results[key] if by is None else self._value(by, result=self.results[key], step=key)

    # --- small things ---------------------------------------------------------------------------------------------------------

    def _end(self, step: Step, status: str, result: Json = None) -> None:
        key = step.key
        self.status[key] = status
        self.open = {name: kind for name, kind in self.open.items() if name != key and name.rpartition(".")[0] != key}
        self.ended.append(key)
        if status == "completed":
            self.results[key] = result
            self.completed.append(key)
        elif status == "failed" and step.on_failure != "continue" and self.broken is None:
            self.broken = key

    def _step(self, key: str) -> Step:
        return next(step for step in self.plan.steps if step.key == key)

    def _mapped(self, step: Step, otherwise: Json, **more: Json) -> Json:
        if step.input_from is None:
            return otherwise
        if isinstance(step.input_from, str):
            return self._value(step.input_from, **more)
        return {name: self._value(each, **more) for name, each in step.input_from.items()}

    def _value(self, expression: str, **more: Json) -> Json:
        steps: dict[str, Any] = {}
        for key, status in self.status.items():
            steps[key] = {"status": status, "result": self.results.get(key)}
            if status == "failed":
                steps[key]["error"] = {"type": "T", "message": "M", "kind": "permanent"}
        found = EXPRESSIONS.evaluate(expression, {"input": self.input, "metadata": {}, "steps": steps, **more})
        if found.error is not None:
            raise Unusable(found.error)
        return found.value
