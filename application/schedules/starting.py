"""What a schedule starts: looked up once for all schedules of a batch that start the same."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from application.budgets.books import given_budget
from application.engine.commands.loop import CommandLoop
from application.plans.capabilities import KnownAgents
from application.runs.keys import key_of_run, take, turns_over
from application.runs.start import prepared_start
from application.runs.terms import Terms
from application.starting import START, plan_of
from application.workflows import AskedWorkflow, Workflows
from application.workflows.children import has_children
from domain import runs
from domain.concurrency import Concurrency, KeyOfRun
from domain.errors import InvalidCommand
from domain.kernel import Command, Functions, Json, Priority, Spent, timestamp
from domain.schedules import Schedule
from domain.starting import Target, Unmapped, input_of


class ScheduledStart(NamedTuple):
    """The start of a run, and what it rests on. All of them go into the append in which the schedule says that it has fired."""

    start: runs.StartRun
    conditions: Sequence[Command]

    @property
    def commands(self) -> tuple[Command, ...]:
        return (self.start, *self.conditions)


class ScheduleStarts:
    """Makes the starts of schedules of one tenant, for one batch: what two of them start is looked up once."""

    def __init__(
        self, commands: CommandLoop, workflows: Workflows, known: KnownAgents, functions: Functions, tenant_id: UUID, *,
        fresh: bool = False,
    ) -> None:  # fmt: skip
        """`fresh`: the log is asked for each workflow, agent and project. Without it what this process has seen is good enough."""
        self._commands = commands
        self._workflows = workflows
        self._known = known
        self._functions = functions
        self._tenant_id = tenant_id
        self._fresh = fresh
        self._prepared: dict[tuple[Any, ...], ScheduledStart] = {}
        """What is started in which project → its start, without what differs from time to time."""

    async def of(self, schedule: Schedule, run_id: UUID, due_at: datetime) -> ScheduledStart:
        """The start of the run of one time.

        Raises DomainError: there is no such workflow, agent or project, or the input does not fit; Unavailable.
        """
        created, definition = schedule.created, schedule.definition
        assert created is not None
        assert definition is not None
        depth = 0 if created.made_by is None else created.made_by.depth
        origin = runs.Origin(kind="schedule", name=created.name, due_at=due_at, depth=depth)
        given = _input(definition.start, created.name, due_at, self._functions)
        said = {"run_id": run_id, "origin": origin, "on_behalf_of": created.on_behalf_of}
        found = await self._prepare(created.project_id, definition.start, given, said, created.on_behalf_of)
        if (key := found.start.concurrency) is None:
            return found
        taking = take(key, run_id)
        over = await turns_over(self._commands, self._tenant_id, key.key_id) if taking.on_busy == "reject" else ()
        return found._replace(conditions=(*over, taking, *found.conditions))

    async def check(self, project_id: UUID, asked: Target, name: str, due_at: datetime) -> None:
        """Raises what the start of the run of a time would be refused with."""
        await self._prepare(project_id, asked, _input(asked, name, due_at, self._functions), {})

    async def _prepare(
        self, project_id: UUID, asked: Target, given: Json, said: Mapping[str, Any], for_whom: str | None = None
    ) -> ScheduledStart:
        """`said`: fields of the start that differ from time to time."""
        budget = await given_budget(self._commands, self._tenant_id, asked.budget, place=START)
        if asked.workflow is None:
            start, conditions = await self._of_plan(project_id, asked)
            said = {
                **said,
                "input": given,
                "metadata": asked.metadata,
                **({} if budget is None else {"budget": budget}),
                **self._key(project_id, asked.concurrency, for_whom),
            }
            return ScheduledStart(start.model_copy(update=said), (*_deadline(said, asked.deadline_s), *conditions))
        wanted = AskedWorkflow(asked.workflow, asked.version, given, asked.priority, asked.compensate, asked.metadata)
        found = await self._workflows.resolved(self._tenant_id, wanted, fresh=self._fresh)
        key = (project_id, found.workflow, found.priority, found.compensate)
        if key not in self._prepared:
            self._prepared[key] = await self._looked_up(project_id, found.with_children, found.priority, found.compensate)
        start, conditions = self._prepared[key]
        said = {**said, "input": found.input, "metadata": found.metadata, "workflow": found.workflow}
        budget = budget or await self._workflows.budget_of(self._tenant_id, found)
        said |= {} if budget is None else {"budget": budget}
        said |= self._key(project_id, asked.concurrency or found.concurrency, for_whom)
        deadline = _deadline(said, asked.deadline_s or found.deadline_s)
        return ScheduledStart(start.model_copy(update=said), (*deadline, *conditions, *found.conditions))

    def _key(self, project_id: UUID, wanted: Concurrency | None, for_whom: str | None) -> dict[str, KeyOfRun]:
        return {} if wanted is None else {"concurrency": key_of_run(self._tenant_id, project_id, wanted, for_whom)}

    async def _of_plan(self, project_id: UUID, asked: Target) -> ScheduledStart:
        text = None if asked.plan is None else json.dumps(asked.plan, sort_keys=True)
        key = (project_id, asked.agent, asked.agent_version, text, asked.priority, asked.compensate)
        if (found := self._prepared.get(key)) is None:
            plan, conditions = plan_of(asked), tuple[Command, ...]()
            if has_children(plan):
                whole = await self._workflows.children.resolved(self._tenant_id, plan, fresh=self._fresh)
                plan, conditions = whole.plan, tuple(whole.conditions)
            found = await self._looked_up(project_id, plan, asked.priority or "normal", asked.compensate or "never")
            found = self._prepared[key] = found._replace(conditions=(*found.conditions, *conditions))
        return found

    async def _looked_up(
        self, project_id: UUID, plan: runs.Plan, priority: Priority, compensate: runs.Compensate
    ) -> ScheduledStart:
        start, conditions = await prepared_start(
            self._commands, self._tenant_id, project_id=project_id, plan=plan, priority=priority, compensate=compensate,
            known=self._known, fresh=self._fresh,
        )  # fmt: skip
        return ScheduledStart(start, conditions)


def _deadline(said: Mapping[str, Any], deadline_s: float | None) -> tuple[Command, ...]:
    """For a start of which an id is `said`: one that is only checked needs no deadline."""
    return Terms(deadline_s).commands(said["run_id"]) if "run_id" in said else ()


def _input(asked: Target, name: str, due_at: datetime, functions: Functions) -> Json:
    """The input of a run. Raises InvalidCommand, with a pointer into the definition."""
    if asked.input_from is None:
        return asked.input
    try:
        return input_of(asked, {"schedule": name, "due_at": timestamp(due_at)}, functions, Spent())
    except Unmapped as error:
        raise InvalidCommand(f"the expression has no value: {error.why}", pointer=f"{START}{error.pointer}") from None
