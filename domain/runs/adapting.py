"""Adaptive steps: an agent names the next steps, which become a child run, and sees their results."""

import json

from pydantic import ValidationError

from domain.kernel import Json
from domain.plans import Adaptive, AgentRef, Plan, Step
from domain.runs.deciding import Decision, PlanFault, bounded, fault_of_size
from domain.runs.events import StepStarted
from domain.runs.mapping import mapped_input
from domain.runs.parts import schedule_agent, schedule_child
from domain.runs.progress import results_of_round

MAY_SAY = ("key", "agent", "after", "input", "input_from", "when", "timeout_s", "retry", "on_failure")
"""What the agent may say of a step that it names."""


def begin_adaptive(d: Decision, step: Step, saw: dict[str, Json]) -> None:
    d.add(StepStarted(step=step.key, form="adaptive", saw=saw))
    is_mapped, value = mapped_input(d, step)
    given = value if is_mapped else d.run.input_of(step.key)
    _ask(d, step, 0, {"input": given, "round": 1, "results": None, "history": []})


def _ask(d: Decision, step: Step, part: int, value: Json) -> None:
    assert step.agent is not None
    version, asked = d.run.version_of(step)
    schedule_agent(d, step, part, bounded(value, "its input"), AgentRef(agent=step.agent, agent_version=version), asked=asked)


def went_on(d: Decision, step: Step, adaptive: Adaptive, part: int, result: Json) -> None:
    """Parts are numbered in the order of their beginning: the agent's answer, the child run that follows from it, the next answer.
    Raises PlanFault, for the author of the agent."""
    progress = d.run.progress[step.key]
    if part % 2:
        results = results_of_round(progress, result)
        asked = {"input": progress.base, "round": part // 2 + 2, "results": results, "history": list(progress.rounds)}
        while asked["history"] and fault_of_size(asked)[0] is not None:  # it must not be too large for what is a help only
            asked["history"].pop(0)
        _ask(d, step, part + 1, asked)
        return
    if not isinstance(result, dict) or ("steps" in result) == ("result" in result):
        raise _misfit('an adaptive agent answers with {"steps": [...]} or with {"result": ...}')
    if "result" in result:
        d.complete(step, bounded(result["result"], "the result"))
        return
    if part // 2 + 1 >= adaptive.max_rounds:
        raise _misfit(f'it named steps in round {adaptive.max_rounds}, the last one: answer with {{"result": ...}} by then')
    plan = _plan(adaptive, progress.named, result["steps"])
    body = bounded(json.loads(plan.model_dump_json(exclude_defaults=True)), "the plan of the named steps")
    schedule_child(d, step, part + 1, progress.base, body, _asked(d, step, adaptive, plan))


def _plan(adaptive: Adaptive, named: int, entries: Json) -> Plan:
    if not isinstance(entries, list) or not entries:
        raise _misfit('`steps` is a list of one step or more, each as {"key": "read", "agent": "reader"}')
    if named + len(entries) > adaptive.max_steps:
        raise _misfit(f"it named {named + len(entries)} steps so far; {adaptive.max_steps} are the most of all rounds together")
    allowed = {ref.agent: ref.agent_version for ref in adaptive.agents}
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise _misfit(f'/steps/{number} is no step: a step is as {{"key": "read", "agent": "reader"}}')
        if (other := next((name for name in entry if name not in MAY_SAY), None)) is not None:
            raise _misfit(f"/steps/{number}/{other}: a named step has {', '.join(f'`{name}`' for name in MAY_SAY)}, and no more")
        if not isinstance(agent := entry.get("agent"), str) or agent not in allowed:
            raise _misfit(f"/steps/{number}/agent: it may name {', '.join(sorted(allowed))}, not {json.dumps(agent)}")
    try:
        return Plan.model_validate({"steps": [{**entry, "agent_version": allowed[entry["agent"]]} for entry in entries]})
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        raise _misfit(f"{''.join(f'/{part}' for part in fault['loc'])}: {fault['msg']}") from None


def _asked(d: Decision, step: Step, adaptive: Adaptive, plan: Plan) -> tuple[str, ...]:
    """The named steps whose agents' versions were asked for."""
    asked = {ref.agent for number, ref in enumerate(adaptive.agents) if allowed_name(step.key, number) in d.run.asked}
    return tuple(named.key for named in plan.steps if named.agent in asked)


def allowed_name(step: str, number: int) -> str:
    """The name in `versions_asked` of an agent that may be named, and whose version was asked for."""
    return f"{step}.named.{number}"


def _misfit(message: str) -> PlanFault:
    return PlanFault(f"the answer of the step's agent cannot be carried out: {message}", "AdaptiveAnswer")
