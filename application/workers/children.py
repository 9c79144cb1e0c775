"""Runs that agents start: each once for its key, in the append that begins the agent's wait for its end."""

from typing import Any
from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import Caller, CommandOutcome, CommandRequest
from application.plans.capabilities import KnownAgents
from application.plans.spelling import graph_of
from application.runs.start import prepared_start
from application.starting import START, plan_of
from application.workers.agent_runs import load_agent_run, request_for_agent_run
from application.workflows import AskedWorkflow, Workflows
from domain import agents, runs
from domain.agent_runs import StartWait, child_id_of
from domain.errors import AlreadyExists, InvalidCommand, Unavailable
from domain.kernel import Command, Json
from domain.plans import MAX_DEPTH, Plan, Step
from domain.starting import Target
from domain.workflows import WorkflowChanged

OF_PLAN = "plan"
"""The name of the wait for a run of a plan that the agent gives."""
MOST_NAMED = 10
"""Faults of a plan that are told."""
MOST_LOOKS = 5
"""Looks at agents and workflows that others change meanwhile."""


class ChildRuns:
    def __init__(self, commands: CommandLoop, workflows: Workflows, known: KnownAgents) -> None:
        self._commands = commands
        self._workflows = workflows
        self._known = known

    async def start(
        self, caller: Caller, wait: StartWait, *, agent: str | None, workflow: str | None, version: int | None, input: Json,
        plan: dict[str, Any] | None = None,
    ) -> CommandOutcome:  # fmt: skip
        """Starts a run of one agent (`name@version` asks for a version), of a workflow, or of a plan, once for the key of the wait.

        Raises InvalidCommand, which has all faults of the plan; UnknownAgent, UnknownWorkflow, NotFound, WorkOver, StaleAttempt:
        nothing was started.
        """
        if sum(each is not None for each in (agent, workflow, plan)) != 1:
            raise InvalidCommand("name an agent or a workflow, or give a plan", pointer="/agent")
        given = None if plan is None else _read(plan)
        name = f"wait:{wait.attempt}:{wait.key}"
        request = await request_for_agent_run(self._commands, caller, wait.agent_run_id, name)
        wait = wait.model_copy(update={"name": agent or workflow or OF_PLAN})
        for look in range(MOST_LOOKS):
            state = await load_agent_run(self._commands, caller.tenant_id, wait.agent_run_id, fresh=look > 0)
            assert state.requested is not None
            if wait.key in state.journal:
                return await self._commands.execute(request, wait)
            run: runs.Run = (
                await self._commands.load(runs.DECIDER, caller.tenant_id, state.requested.run_id, fresh=look > 0)
            ).state
            if run.depth >= MAX_DEPTH:
                raise InvalidCommand(f"child runs lie more than {MAX_DEPTH} deep")
            start, conditions = await self._prepared(
                request, state.requested.run_id, run, agent, workflow, version, input, given, fresh=look > 0
            )
            place = run.place(state.requested.step)
            parent = runs.Parent(
                run_id=state.requested.run_id, step=state.requested.step if place is None else place[0], depth=run.depth + 1,
                agent_run_id=wait.agent_run_id, key=wait.key,
            )  # fmt: skip
            child = start.model_copy(update={"run_id": child_id_of(wait.agent_run_id, wait.key, state.reopened), "parent": parent})
            try:
                return await self._commands.execute(request, wait, child, *conditions)
            except (agents.AgentChanged, WorkflowChanged, AlreadyExists, runs.GotTainted):  # this process had not heard of it
                if look == MOST_LOOKS - 1:
                    raise
        raise Unavailable("what the child run rests on is being changed: try again")

    async def _prepared(
        self, request: CommandRequest, run_id: UUID, run: runs.Run, agent: str | None, workflow: str | None, version: int | None,
        input: Json, given: Plan | None, *, fresh: bool,
    ) -> tuple[runs.StartRun, tuple[Command, ...]]:  # fmt: skip
        assert run.project_id is not None
        tenant_id: UUID = request.tenant_id
        conditions: tuple[Command, ...] = ()
        if workflow is not None:
            asked = AskedWorkflow(workflow, version, input)
            found = await self._workflows.resolved(tenant_id, asked, fresh=fresh)
            plan, ref, input, conditions = found.with_children, found.workflow, found.input, found.conditions
        elif given is not None:
            whole = await self._workflows.children.resolved(tenant_id, given, fresh=fresh)
            plan, ref, conditions = whole.plan, None, tuple(whole.conditions)
        else:
            assert agent is not None
            named, _, asked_version = agent.partition("@")
            plan, ref = Plan(steps=(Step(key=named, agent=named, agent_version=asked_version or None),)), None
        start, of_agents = await prepared_start(
            self._commands, tenant_id, project_id=run.project_id, plan=plan, priority=run.priority, compensate="never",
            known=self._known, fresh=fresh,
        )  # fmt: skip
        if not run.tainted:  # what the agent says may come from output that this process has not heard of
            conditions = (*conditions, runs.CheckUntainted(run_id=run_id))
        changes = {
            "input": input, "metadata": run.metadata, "workflow": ref, "tainted": run.tainted, "budget": None,
            "budgets": run.budgets, "on_behalf_of": run.on_behalf_of,
        }  # fmt: skip
        return start.model_copy(update=changes), (*of_agents, *conditions)


def _read(plan: dict[str, Any]) -> Plan:
    """Raises InvalidCommand, whose text has the faults: an agent gets no more of it."""
    try:
        return plan_of(Target(plan=graph_of(plan)))
    except InvalidCommand as error:
        faults = [(pointer.removeprefix(START), text) for pointer, text in error.faults]
        named = "; ".join(f"{pointer}: {text}" for pointer, text in faults[:MOST_NAMED])
        more = len(faults) - MOST_NAMED
        told = f"the plan has faults: {named}" + (f"; and {more} more" if more > 0 else "")
        raise InvalidCommand(told, pointer=faults[0][0], faults=faults) from None
