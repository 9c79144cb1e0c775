"""Whether a step runs, and with which input: the expressions of a step."""

from domain.failures import Failure
from domain.kernel import Json
from domain.plans import Step
from domain.runs.deciding import Decision, PlanFault, fault_of_size, named


def runs_by_condition(d: Decision, step: Step) -> dict[str, Json] | None:
    """Whether a step runs whose steps before have ended: what its condition saw. None: it has ended in this decision."""
    if step.when is None:
        return {} if not step.after or _runs_after_others(d, step) else None
    value = d.value(step.when, "`when`")
    if not isinstance(value, bool):
        raise PlanFault(f"`when` is neither true nor false; the expression is: {step.when}")
    saw = d.saw(step.when)
    if not value:
        d.skip(step.key, reason="condition", condition=step.when, value=value, saw=saw)
        return None
    return saw


def _runs_after_others(d: Decision, step: Step) -> bool:
    """Without a condition, one step before it must have completed."""
    states = d.run.steps
    if any(states[key].status == "completed" for key in step.after):
        return True
    end_without(d, step)
    return False


def end_without(d: Decision, step: Step) -> None:
    """Ends a step of whose steps before none has completed."""
    failed = [key for key in step.after if d.run.steps[key].status == "failed"]
    if not failed:
        d.skip(step.key, reason="upstream")
        return
    skipped = [key for key in step.after if d.run.steps[key].status != "failed"]
    why = f"every step before it failed: {named(failed)}"
    if skipped:
        why = f"no step before it completed: {named(failed)} failed, {named(skipped)} did not run"
    d.fail(step, Failure(type="UpstreamFailed", message=why, kind="upstream"))


def mapped_input(d: Decision, step: Step, **more: Json) -> tuple[bool, Json]:
    """Whether the step has an input of its own making, and the input. Raises PlanFault."""
    source = step.input_from
    if source is None:
        return False, None
    if isinstance(source, str):
        value = d.value(source, "`input_from`", **more)
    else:
        value = {name: d.value(each, f"`input_from` of '{name}'", **more) for name, each in source.items()}
    fault, size = fault_of_size(value)
    if fault is not None:
        raise PlanFault(f"`input_from` gives a value that is {fault}")
    d.mapped += size
    return True, value
