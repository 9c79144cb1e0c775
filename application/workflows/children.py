"""Child workflows: a step of a plan that starts a workflow gets the plan that the workflow has at the start of the run.

So a run keeps its whole plan, whatever becomes of the workflows, and carrying it out needs no look at them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

import pydantic_core
from pydantic import ValidationError

from application.engine.commands.loop import CommandLoop
from application.workflows.looking import look_to_start
from application.workflows.versions import Versions
from domain.errors import DomainError, InvalidCommand
from domain.kernel import Command, Json
from domain.plans import MAX_DEPTH, ChildRun, Plan, Step
from domain.workflows import UseWorkflow, WorkflowDefinition, defaults_of, workflow_id_of

MAX_PLAN_BYTES = 64 * 1024
"""Bytes of the plan of one child run as JSON, with the plans of its own child runs."""


class InvalidChild(InvalidCommand):
    """A child workflow cannot be started. The text shows the way to it, the pointer its step."""

    code = "invalid-child-workflow"


@dataclass(frozen=True, slots=True)
class PlanWithChildren:
    plan: Plan
    """The same object as was given, if it has no child workflows."""
    conditions: tuple[Command, ...] = ()
    """Go into the append of the start: the workflows are as they were looked at."""


@dataclass
class _Looking:
    tenant_id: UUID
    of: str | None
    fresh: bool
    uses: dict[UUID, UseWorkflow] = field(default_factory=dict)


def has_children(plan: Plan) -> bool:
    """Whether a step starts a child run, which may be a workflow."""
    return not plan.is_plain and any(step.run is not None for step in plan.steps)


class Children:
    def __init__(self, commands: CommandLoop, versions: Versions) -> None:
        self._commands = commands
        self._versions = versions

    async def resolved(
        self, tenant_id: UUID, plan: Plan, *, of: str | None = None, fresh: bool = False, at: str = "/plan"
    ) -> PlanWithChildren:
        """A plan with the plans of its child workflows. `of`: the workflow that the plan is of. `at`: where the plan stands.

        Raises InvalidChild: a child workflow is not there, is deprecated, starts itself, or lies too deep, or its plan is too
        large.
        """
        if not has_children(plan):
            return PlanWithChildren(plan)
        looking = _Looking(tenant_id, of, fresh)
        found = await self._of_plan(looking, plan, (of,) if of is not None else (), 0, at)
        if found is not plan:
            _must_be_a_plan(found, at)
        return PlanWithChildren(found, tuple(looking.uses.values()))

    async def _of_plan(
        self, looking: _Looking, plan: Plan, path: tuple[str, ...], depth: int, at: str, *, is_given: bool = True
    ) -> Plan:
        """`path`: the workflows around the plan. `at`: its place in what was given; inside a workflow, that of its name there."""
        if not has_children(plan):
            return plan
        steps: list[Step] = []
        for place, step in enumerate(plan.steps):
            where = f"{at}/steps/{place}/run" if is_given else at
            run = step.run and await self._of_run(looking, step.run, path, depth + 1, where, is_given)
            steps.append(step if run is step.run else step.model_copy(update={"run": run}))
        return Plan.model_construct(steps=tuple(steps), result=plan.result)

    async def _of_run(
        self, looking: _Looking, run: ChildRun, path: tuple[str, ...], depth: int, at: str, is_given: bool
    ) -> ChildRun:
        if depth >= MAX_DEPTH:
            way = f": {' → '.join(path)}" if path else ""
            raise InvalidChild(f"child runs lie more than {MAX_DEPTH - 1} deep{way}", pointer=at)
        if run.workflow is None:
            given = Plan.model_validate(run.plan)  # the plan around it was checked with it
            plan = await self._of_plan(looking, given, path, depth, f"{at}/plan" if is_given else at, is_given=is_given)
            return run if plan is given else ChildRun(plan=_written(plan, path, at))
        at, path = f"{at}/workflow" if is_given else at, (*path, run.workflow)
        if run.workflow in path[:-1]:
            raise InvalidChild(f"the workflow starts itself: {' → '.join(path)}", pointer=at)
        version, definition = await self._of_workflow(looking, run.workflow, run.version, path, at)
        plan, defaults = definition.plan, defaults_of(definition.parameters)
        plan = await self._of_plan(looking, plan, path, depth, at, is_given=False)
        return ChildRun(workflow=run.workflow, version=version, plan=_written(plan, path, at), defaults=defaults)

    async def _of_workflow(
        self, looking: _Looking, name: str, asked: int | None, path: tuple[str, ...], at: str
    ) -> tuple[int, WorkflowDefinition]:
        known = looking.uses.get(workflow_id_of(looking.tenant_id, name))
        try:
            workflow, version, use = await look_to_start(
                self._commands, looking.tenant_id, name, asked, fresh=looking.fresh and known is None
            )
        except DomainError as error:
            around = [one for one in path[:-1] if one != looking.of]
            way = f" (in {' → '.join(around)})" if around else ""
            raise InvalidChild(f"{error.message}{way}", pointer=at) from error
        looking.uses[use.workflow_id] = use
        return version, await self._versions.definition(looking.tenant_id, workflow, name, version)


def _must_be_a_plan(plan: Plan, at: str) -> None:
    """Each plan is one, but all together may be too large for one: such a start could never be read back."""
    try:
        Plan.model_validate(plan.model_dump(mode="json", exclude_defaults=True))
    except ValidationError as error:
        told = error.errors(include_url=False, include_input=False)[0]["msg"].removeprefix("Value error, ")
        raise InvalidChild(f"with the plans of its child workflows, {told}", pointer=at) from None


def _written(plan: Plan, path: Sequence[str], at: str) -> Json:
    written = plan.model_dump(mode="json", exclude_defaults=True)
    size = len(pydantic_core.to_json(written))
    if size > MAX_PLAN_BYTES:
        of = f" of {' → '.join(path)}" if path else ""
        raise InvalidChild(f"the plan{of} has {size:,} bytes with its child runs, {MAX_PLAN_BYTES:,} are allowed", pointer=at)
    return written
