"""What the outcome of an execution does: of the only one of a step, or of a part of a step."""

from typing import Any
from uuid import UUID

from domain.failures import Failure
from domain.kernel import Json
from domain.plans import Step
from domain.runs.adapting import went_on
from domain.runs.carrying_out import schedule_step
from domain.runs.deciding import Decision, PlanFault
from domain.runs.events import PartCompleted, PartFailed
from domain.runs.parts import again, fall_back, fill, schedule_agent
from domain.runs.progress import agent_run_id_of, part_key


def step_failed(d: Decision, step: Step, agent_run_id: UUID, error: Failure) -> None:
    """The agent run of a step has failed."""
    if not (number := fall_back(d, step, None, agent_run_id, error)):
        d.fail(step, error, agent_run_id)
    elif not d.run.stands:
        schedule_fallback(d, step, number)


def schedule_fallback(d: Decision, step: Step, number: int) -> None:
    """Begins a step anew with another agent."""
    begin_fallback(d, step, number, mapped=step.key in d.run.inputs, input=d.run.inputs.get(step.key))


def begin_fallback(d: Decision, step: Step, number: int, *, mapped: bool, input: Json) -> None:
    """`mapped`: whether `input` was made for the step."""
    ref = step.fallbacks[number - 1]
    schedule_step(
        d, step, agent=ref.agent, agent_version=ref.agent_version, agent_run_id=agent_run_id_of(d.run_id, step.key, number),
        version_asked=fallback_name(step.key, number) in d.run.asked, mapped=mapped, input=input,
    )  # fmt: skip


def part_completed(d: Decision, step: Step, part: int, execution_id: UUID, result: Json, **forced: Any) -> None:
    """`forced`: fields of the event, where a person says so."""
    d.add(PartCompleted(step=step.key, part=part, execution_id=execution_id, result=result, **forced))
    try:
        if not d.run.stands or (step.repeat is None and step.adaptive is None):  # else it is decided at the resumption
            goes_on(d, step, part, result)
    except PlanFault as fault:
        d.fail(step, fault.failure)


def goes_on(d: Decision, step: Step, part: int, result: Json) -> None:
    """What follows from the completion of a part. Raises PlanFault."""
    if step.each is not None:
        fill(d, step, step.each)
    elif step.repeat is not None:
        again(d, step, step.repeat, part, result)
    elif step.adaptive is not None:
        went_on(d, step, step.adaptive, part, result)
    else:
        d.complete(step, result)


def part_failed(d: Decision, step: Step, part: int, execution_id: UUID, error: Failure) -> None:
    is_run = d.run.progress[step.key].open[part].is_run
    if not is_run and (number := fall_back(d, step, part, execution_id, error)):
        if not d.run.stands:
            schedule_fallback_of_part(d, step, part, number)
        return
    part_ended_badly(d, step, part, execution_id, error, tolerated=step.each is not None and step.each.on_failure == "continue")


def part_ended_badly(
    d: Decision, step: Step, part: int, execution_id: UUID, error: Failure, *, tolerated: bool, **forced: Any
) -> None:
    d.add(PartFailed(step=step.key, part=part, execution_id=execution_id, error=error, tolerated=tolerated, **forced))
    if step.each is None or not tolerated:
        d.fail(step, error)
        return
    try:
        fill(d, step, step.each)
    except PlanFault as fault:
        d.fail(step, fault.failure)


def schedule_fallback_of_part(d: Decision, step: Step, part: int, number: int) -> None:
    asked, value = fallback_name(step.key, number) in d.run.asked, d.run.inputs[part_key(step.key, part)]
    schedule_agent(d, step, part, value, step.fallbacks[number - 1], asked=asked, fallback=number)


def fallback_name(step: str, number: int) -> str:
    """The name in `versions_asked` of a fallback whose version was asked for."""
    return f"{step}.fallback.{number}"
