"""Claiming an agent run: the worker becomes its owner for one attempt, and gets the data with which to continue."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import Caller, CommandOutcome
from application.workers.agent_runs import load_agent_run, request_for_agent_run
from application.workers.journal import LOADED_AT_ONCE, Journals, JournalView, empty_view
from domain import runs
from domain.agent_runs import AgentRun, ClaimAgentRun
from domain.errors import WorkOver
from domain.kernel import Json


@dataclass(frozen=True, slots=True)
class ClaimedAgentRun:
    run_id: UUID
    attempt: int
    step_key: str
    agent: str
    agent_version: str | None
    version_asked: bool
    """Whether the version was asked for. Otherwise it is only noted."""
    input: Json
    results: dict[str, Json]
    """Results of the completed steps before this step, by key."""
    missing: list[str]
    """Keys of the failed steps before this step."""
    peers: list[str]
    """Keys of the other steps of the run."""
    journal: JournalView
    """The first page. It is small where outcomes and messages must be loaded, so that work with a long journal begins at once."""
    on_behalf_of: str | None = None
    part: int | None = None
    """The number of the execution, where the step has several."""
    receives: dict[str, float] = field(default_factory=dict)
    """Key → the seconds that a `receive` may still take which was open when the agent run was suspended."""


def claim_name(worker_id: str, dispatch: int, claim: str) -> str:
    """The name of a claim's command.

    `claim`: an id that the worker makes for each delivery. A repeat of the request has the same name.
    """
    return f"claim:{worker_id}:{dispatch}:{claim}"


class Claims:
    def __init__(self, commands: CommandLoop, journals: Journals) -> None:
        self._commands = commands
        self._journals = journals

    async def claim(self, caller: Caller, command: ClaimAgentRun, claim: str) -> tuple[ClaimedAgentRun, CommandOutcome]:
        """Claims an agent run for a worker. `claim`: see `claim_name`.

        Raises:
            NotFound: the tenant has no such agent run.
            WorkOver: the agent run or its run has ended, or the agent run was dispatched again, or belongs to another worker.
        """
        name = claim_name(command.worker_id, command.dispatch, claim)
        request = await request_for_agent_run(self._commands, caller, command.agent_run_id, name)
        outcome = await self._commands.execute(request, command, runs.CheckRun(run_id=request.correlation_id))
        state = await load_agent_run(self._commands, caller.tenant_id, command.agent_run_id, fresh=outcome.duplicate)
        if state.status != "running" or (state.worker_id, state.session_id) != (command.worker_id, command.session_id):
            raise WorkOver(f"the agent run is {state.status}, claimed by {state.worker_id}")
        if command.session_id is not None and state.dispatch != command.dispatch:
            raise WorkOver(f"the claim of dispatch {command.dispatch} lapsed; {state.dispatch} is the newest")
        return await self.given(caller.tenant_id, command.agent_run_id, state, fresh=outcome.duplicate), outcome

    async def given(self, tenant_id: UUID, agent_run_id: UUID, state: AgentRun, *, fresh: bool = True) -> ClaimedAgentRun:
        """What a worker gets of an agent run that it has claimed. Raises WorkOver if the run has ended.

        `fresh`: with all events that other processes have recorded. A claim that was just recorded needs none: it was decided on
        the states that this process knows, and what comes later comes as an update.
        """
        assert state.requested is not None
        run = (await self._commands.load(runs.DECIDER, tenant_id, state.requested.run_id, fresh=fresh)).state
        _check(run)
        page = await self._journals.page(tenant_id, agent_run_id, after_version=0, max_loads=LOADED_AT_ONCE, fresh=fresh)
        return _claimed(run, state, page)

    def given_at_once(self, tenant_id: UUID, state: AgentRun) -> ClaimedAgentRun | None:
        """As `given`, where nothing has to be loaded for it. None: something has to be. Raises WorkOver if the run has ended."""
        assert state.requested is not None
        run, journal = self._commands.known(runs.DECIDER, tenant_id, state.requested.run_id), empty_view(state)
        if run is None or journal is None:
            return None
        _check(run.state)
        return _claimed(run.state, state, journal)


def _check(run: runs.Run) -> None:
    if run.status in runs.OVER:  # the cancellation of its agent runs is under way
        raise WorkOver(f"the run is {run.status}")


def _claimed(run: runs.Run, state: AgentRun, journal: JournalView) -> ClaimedAgentRun:
    assert state.requested is not None
    step = run.step(state.requested.step)
    upstream = {key: run.steps[key] for key in step.after}
    return ClaimedAgentRun(
        run_id=state.requested.run_id,
        attempt=state.attempt,
        step_key=state.requested.step,
        agent=state.requested.agent,
        agent_version=state.requested.agent_version,
        version_asked=state.requested.version_asked,
        input=run.input_of(state.requested.step),
        results={key: s.result for key, s in upstream.items() if s.status == "completed"},
        missing=[key for key, s in upstream.items() if s.status == "failed"],
        peers=[key for key in run.graph.steps if key != step.key],
        journal=journal,
        on_behalf_of=state.requested.on_behalf_of,
        part=_part(state.requested.step, step.key),
        receives=_left(state) if state.receives else {},
    )


def _part(name: str, key: str) -> int | None:
    """The number of a part, by its name. The name of an only execution is the key of its step."""
    return None if name == key else int(name.rpartition(".")[2])


def _left(state: AgentRun) -> dict[str, float]:
    now = datetime.now(UTC)
    return {one.key: max(0.0, (one.until - now).total_seconds()) for one in state.receives if one.until is not None}
