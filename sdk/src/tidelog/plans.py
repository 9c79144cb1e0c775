"""Plans as Python: constructors whose values `Client.start_run(plan=…)` takes.

A step is made by `agent`, `capability`, `run`, `gather`, `value` or `wait`, and may be wrapped in `each`, `repeat` or `adaptive`.
Steps become a plan by `graph`, `sequential` or `parallel`. Steps and plans are JSON: print one to see what is sent.

    plans.graph(
        plans.agent("lister", key="list"),
        plans.each(plans.agent("critic@2", key="reviews", after="list"), over="steps.list.result", max_parallel=5),
        plans.value("size(steps.reviews.result)", key="count", after="reviews"),
        result="steps.count.result",
    )
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import count as numbers
from itertools import pairwise
from typing import Any, Literal

Step = dict[str, Any]
Plan = dict[str, Any]
Mode = Literal["all", "any", "first_good", "vote"]
OnFailure = Literal["fail", "continue", "compensate"]


def agent(
    name: str,
    *,
    key: str | None = None,
    after: str | Iterable[str] = (),
    when: str | None = None,
    input: Any = None,
    input_from: str | Mapping[str, str] | None = None,
    timeout_s: float | None = None,
    retry: Mapping[str, Any] | None = None,
    priority: Literal["high", "normal", "low"] | None = None,
    fallbacks: Sequence[str] = (),
    on_failure: OnFailure | None = None,
) -> Step:
    """A step of an agent, as `critic`, or `critic@2` for its version 2.

    `key`: the name of the step; the agent's name if not given. `after`: keys of the steps before it. `when`: a CEL expression; the
    step is skipped where it is false. `input`: given to the agent instead of the run's input. `input_from`: the same as an
    expression, or names with an expression each. `fallbacks`: agents that are tried in this order where the agent has failed.
    """
    given = {"timeout_s": timeout_s, "retry": retry, "priority": priority, "fallbacks": list(fallbacks) or None}
    said = _common(key or name.partition("@")[0], after, when, input, input_from, on_failure)
    return _said({**said, "agent": name, **given})


def capability(name: str, *, key: str | None = None, **given: Any) -> Step:
    """A step of an agent that announces the capability when the run starts. All else as of `agent`."""
    step = agent("any", key=key or name, **given)
    del step["agent"]
    return {**step, "capability": name}


def run(
    what: str | Mapping[str, Any],
    *,
    key: str,
    after: str | Iterable[str] = (),
    when: str | None = None,
    input: Any = None,
    input_from: str | Mapping[str, str] | None = None,
    timeout_s: float | None = None,
    on_failure: OnFailure | None = None,
) -> Step:
    """A step that is a run of its own: of a plan, or of a workflow by its name, as `nightly` or `nightly@3`."""
    of = {"workflow": what} if isinstance(what, str) else {"plan": dict(what)}
    return _said({**_common(key, after, when, input, input_from, on_failure), "run": of, "timeout_s": timeout_s})


def value(expression: str, *, key: str, after: str | Iterable[str] = (), when: str | None = None) -> Step:
    """A step whose result is the value of a CEL expression. No agent is needed."""
    return _said({**_common(key, after, when), "value": expression})


def wait(
    s: float | None = None, *, key: str, until: str | None = None, after: str | Iterable[str] = (), when: str | None = None
) -> Step:
    """A step that waits so many seconds, or until the time that a CEL expression gives."""
    if (s is None) == (until is None):
        raise ValueError("give either s or until")
    return _said({**_common(key, after, when), "wait": {"s": s} if until is None else {"until": until}})


def gather(
    mode: Mode,
    *,
    key: str,
    after: str | Iterable[str],
    count: int | None = None,
    good: str | None = None,
    by: str | None = None,
    rest: Literal["cancel", "wait"] | None = None,
) -> Step:
    """A step that puts the results of the steps before it together, without an agent.

    `any`: `count` of them are enough. `first_good`: the first one of which the expression `good` is true. `vote`: the one with the
    most votes; `by` is an expression that gives the vote. `rest`: what becomes of the steps that are not needed any more.
    """
    return {**_common(key, after), "gather": _said({"mode": mode, "count": count, "good": good, "by": by, "rest": rest})}


# --- forms --------------------------------------------------------------------------------------------------------------


def each(
    step: str | Step, over: str, *, max_parallel: int | None = None, on_failure: Literal["fail", "continue"] | None = None
) -> Step:
    """The step once for each item of the list that the expression `over` gives; its result is the list of the results.

    `on_failure`: what the failure of an item does. With "continue" its result is null.
    """
    return {**_step(step), "each": _said({"over": over, "max_parallel": max_parallel, "on_failure": on_failure})}


def repeat(step: str | Step, *, times: int, until: str | None = None, exhausted: Literal["complete", "fail"] | None = None) -> Step:
    """The step again and again, at most `times`, until the expression `until` over `result` and `iteration` is true.

    `exhausted`: what becomes of a loop that `until` has not ended.
    """
    return {**_step(step), "repeat": _said({"times": times, "until": until, "exhausted": exhausted})}


def adaptive(step: str | Step, agents: Sequence[str], *, max_steps: int | None = None, max_rounds: int | None = None) -> Step:
    """The step's agent names the next steps out of `agents`, sees their results, and names further ones or ends."""
    return {**_step(step), "adaptive": _said({"agents": list(agents), "max_steps": max_steps, "max_rounds": max_rounds})}


# --- plans --------------------------------------------------------------------------------------------------------------


def graph(*steps: str | Step, result: str | None = None) -> Plan:
    """Steps in any order, each after those that it names. `result`: a CEL expression that gives the result of the run."""
    return _said({"kind": "graph", "steps": _keyed([_step(step) for step in steps]), "result": result})


def sequential(*steps: str | Step, result: str | None = None) -> Plan:
    """One after the other. A step that says by itself what it comes after stays so."""
    made = _keyed([_step(step) for step in steps])
    for before, step in pairwise(made):
        step.setdefault("after", [before["key"]])
    return _said({"kind": "graph", "steps": made, "result": result})


def parallel(
    *members: str | Step,
    aggregate: Mode | None = None,
    aggregator: str | Step | None = None,
    count: int | None = None,
    good: str | None = None,
    by: str | None = None,
    rest: Literal["cancel", "wait"] | None = None,
    result: str | None = None,
) -> Plan:
    """Side by side, then the aggregator with all results, or `aggregate`, which needs no agent: see `gather`.

    A member that fails is left out and reported, unless it says otherwise.
    """
    if aggregate is not None and aggregator is not None:
        raise ValueError("give either aggregate or aggregator")
    if aggregate is None and any(option is not None for option in (count, good, by, rest)):
        raise ValueError("count, good, by and rest go with aggregate")
    made = [{"on_failure": "continue", **_step(member)} for member in members]
    last = [] if aggregator is None else [_step(aggregator)]
    steps = _keyed([*made, *last])
    keys = [step["key"] for step in steps[: len(made)]]
    if aggregator is not None:
        steps[-1]["after"] = keys
    if aggregate is not None:
        steps.append(gather(aggregate, key=_free("aggregate", keys), after=keys, count=count, good=good, by=by, rest=rest))
    return _said({"kind": "graph", "steps": steps, "result": result})


def _step(step: str | Step) -> Step:
    return agent(step) if isinstance(step, str) else dict(step)


def _common(
    key: str,
    after: str | Iterable[str],
    when: str | None = None,
    input: Any = None,
    input_from: str | Mapping[str, str] | None = None,
    on_failure: OnFailure | None = None,
) -> Step:
    before = [after] if isinstance(after, str) else list(after)
    given = {"key": key, "after": before or None, "when": when, "input": input, "on_failure": on_failure}
    return _said({**given, "input_from": dict(input_from) if isinstance(input_from, Mapping) else input_from})


def _said(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _keyed(steps: list[Step]) -> list[Step]:
    """The steps, each with a key of its own: a second `critic` is `critic-2`."""
    taken: list[str] = []
    for step in steps:
        step["key"] = _free(step["key"], taken)
        taken.append(step["key"])
    return steps


def _free(key: str, taken: Sequence[str]) -> str:
    return key if key not in taken else next(found for n in numbers(2) if (found := f"{key}-{n}") not in taken)
