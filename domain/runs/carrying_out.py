"""Carrying a plan out: what begins once the steps before it have ended, and what each form of step does then."""

from typing import Any

from domain.plans import Step
from domain.runs.adapting import begin_adaptive
from domain.runs.deciding import Decision, PlanFault, bounded
from domain.runs.events import StepScheduled
from domain.runs.gathering import gathered
from domain.runs.mapping import mapped_input, runs_by_condition
from domain.runs.parts import begin_each, begin_repeat, begin_run
from domain.runs.progress import agent_run_id_of
from domain.runs.waiting import begin_wait


def carry_on(d: Decision) -> None:
    """Everything that follows from the steps that have ended: what waits for nothing any more, then what follows from that. The
    steps of one round are in the order of the plan."""
    graph = d.run.graph
    if d.run.stands:
        _judge(d)
        return
    while d.ended and d.failed is None:
        later = {key: None for ended in d.ended for key in graph.after.get(ended, ())}
        several = len(d.ended) > 1
        d.ended.clear()
        ready = [key for key in later if d.run.steps[key].status == "pending" and _may_be_looked_at(d, graph.steps[key])]
        for key in sorted(ready, key=graph.places.__getitem__) if several else ready:
            if d.run.steps[key].status == "pending":  # no step of this round has ended it meanwhile
                look_at(d, graph.steps[key])


def _judge(d: Decision) -> None:
    """While the run is paused or queued, only what cannot be said again later is said: that a result cannot be judged."""
    d.ended.clear()
    for key in list(d.faults):
        step = d.run.graph.steps[key]
        if step.gather is not None and d.run.steps[key].status == "pending":
            gathered(d, step, step.gather)
    d.ended.clear()


def _may_be_looked_at(d: Decision, step: Step) -> bool:
    return step.gather is not None or step.key not in d.run.waiting


def look_at(d: Decision, step: Step) -> None:
    """Begins a step before which nothing is open, or lets it gather one more result."""
    if step.gather is not None:
        gathered(d, step, step.gather)
        return
    try:
        begin(d, step)
    except PlanFault as fault:
        d.fail(step, fault.failure)


def begin(d: Decision, step: Step) -> None:
    """Begins a step, if its condition says so. Raises PlanFault."""
    saw = runs_by_condition(d, step)
    if saw is None:
        return
    if step.value is not None:
        d.complete(step, bounded(d.value(step.value, "`value`"), "the value"), saw=saw)
    elif step.wait is not None:
        begin_wait(d, step, step.wait, saw)
    elif step.each is not None:
        _needs_agent(step)
        begin_each(d, step, step.each, saw)
    elif step.repeat is not None:
        _needs_agent(step)
        begin_repeat(d, step, saw)
    elif step.adaptive is not None:
        _needs_agent(step)
        begin_adaptive(d, step, saw)
    elif step.run is not None:
        begin_run(d, step, saw)
    else:
        _needs_agent(step)
        is_mapped, value = mapped_input(d, step)
        schedule_step(d, step, saw=saw, input=value, mapped=is_mapped)


def _needs_agent(step: Step) -> None:
    if step.agent is None and step.run is None:
        raise PlanFault(f"no agent with the capability '{step.capability}' was looked up when the run started", "UnknownCapability")


def schedule_step(d: Decision, step: Step, **more: Any) -> None:
    """`more`: fields of the event that are not as the step says."""
    version, asked = d.run.version_of(step)
    said: dict[str, Any] = {
        "agent": step.agent, "agent_version": version, "agent_run_id": agent_run_id_of(d.run_id, step.key),
        "version_asked": asked, "again": d.run.retries, "fresh": d.run.fresh, "budgets": d.run.budgets,
    }  # fmt: skip
    priority = step.priority or d.run.priority
    d.add(StepScheduled(step=step.key, timeout_s=step.timeout_s, retry=step.retry, priority=priority, **(said | more)))
