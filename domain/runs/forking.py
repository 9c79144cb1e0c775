"""Forks: a run that begins with what another run was. What had ended is not run again; what was under way begins again."""

from collections.abc import Iterable, Mapping

from domain.errors import InvalidCommand, InvalidState
from domain.plans import Step
from domain.runs.carrying_out import begin, schedule_step
from domain.runs.commands import BegunStep, OpenExecution, TakenOver
from domain.runs.deciding import Decision, PlanFault
from domain.runs.events import StepStarted
from domain.runs.outcomes import begin_fallback, fallback_name, goes_on
from domain.runs.parts import fill, schedule, schedule_agent, schedule_child
from domain.runs.taken_over import StepTakenOver

MOST_FAULTS = 10
"""Faults that a refusal describes."""


def take_over(d: Decision, taken: TakenOver) -> None:
    """Raises InvalidCommand: the plan has no place for what is taken over. InvalidState: it holds a failure that ends the run."""
    _must_fit(d.run.graph.steps, taken)
    for event in taken.ended:
        judged = d.judged(event.step, event.result, event.judged) if event.status == "completed" else {}
        d.add(event if judged == event.judged else event.model_copy(update={"judged": judged}))
        d.ended.append(event.step)
    for begun in taken.begun:
        step = d.run.step(begun.step)
        try:
            if begun.form is None:
                _execution(d, step, begun.open[0])
            else:
                _parts(d, step, begun)
        except PlanFault as fault:
            d.fail(step, fault.failure)


def _execution(d: Decision, step: Step, one: OpenExecution) -> None:
    """The only execution of a step."""
    for fell_back in one.fell_back:
        d.add(fell_back)
    if one.fell_back:
        begin_fallback(d, step, one.fell_back[-1].number, mapped=one.mapped, input=one.input)
    elif one.given:
        schedule_step(d, step, mapped=one.mapped, input=one.input)
    else:
        begin(d, step)


def _parts(d: Decision, step: Step, begun: BegunStep) -> None:
    assert begun.form is not None
    d.add(StepStarted(step=step.key, form=begun.form, items=begun.items))
    for part in begun.parts:
        d.add(part)
    for one in begun.open:
        _part(d, step, one)
    if step.each is not None:
        fill(d, step, step.each)
    elif not begun.open:
        last = begun.parts[-1]
        goes_on(d, step, last.part, last.result)


def _part(d: Decision, step: Step, one: OpenExecution) -> None:
    assert one.part is not None
    if one.plan is not None:
        schedule_child(d, step, one.part, one.input, one.plan, one.versions_asked)
        return
    if not one.fell_back:
        schedule(d, step, one.part, one.input)
        return
    for fell_back in one.fell_back:
        d.add(fell_back)
    number = one.fell_back[-1].number
    asked = fallback_name(step.key, number) in d.run.asked
    schedule_agent(d, step, one.part, one.input, step.fallbacks[number - 1], asked=asked, fallback=number)


def _must_fit(steps: Mapping[str, Step], taken: TakenOver) -> None:
    faults = list(_faults(steps, taken))
    if faults:
        told, more = "; ".join(text for _, text in faults[:MOST_FAULTS]), len(faults) - MOST_FAULTS
        raise InvalidCommand(told + (f"; and {more} more" if more > 0 else ""), pointer="/plan", faults=tuple(faults))
    for event in taken.ended:
        if event.status == "failed" and steps[event.step].on_failure != "continue":
            raise InvalidState(
                f"step '{event.step}' had failed by then, and the plan does not tolerate it: fork the run at that step"
            )


def _faults(steps: Mapping[str, Step], taken: TakenOver) -> Iterable[tuple[str, str]]:
    ended = {event.step for event in taken.ended}
    for event in taken.ended:
        if (step := steps.get(event.step)) is None:
            yield "/plan/steps", f"step '{event.step}' had {_how(event)} by then: the plan must have it"
        elif event.status == "skipped" or step.gather is not None or step.key in taken.early:
            continue
        elif missing := [key for key in step.after if key not in ended]:
            yield "/plan/steps", f"step '{step.key}' had {_how(event)} by then, and cannot come after '{missing[0]}', which had not"
    for begun in taken.begun:
        if (step := steps.get(begun.step)) is None:
            yield "/plan/steps", f"step '{begun.step}' was under way by then: the plan must have it"
        elif (form := _form(step)) != (begun.form or "agent"):
            yield "/plan/steps", f"step '{step.key}' was under way by then as `{begun.form or 'agent'}`, and cannot become `{form}`"
        elif missing := [key for key in step.after if key not in ended]:
            yield (
                "/plan/steps",
                f"step '{step.key}' was under way by then, and cannot come after '{missing[0]}', which had not ended",
            )


def _how(event: StepTakenOver) -> str:
    return "been skipped" if event.status == "skipped" else event.status


def _form(step: Step) -> str:
    """What the parts of the step are, or what it does."""
    for form in ("each", "repeat", "adaptive", "run", "gather", "value", "wait"):
        if getattr(step, form) is not None:
            return form
    return "agent"
