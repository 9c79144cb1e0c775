"""Questions of a hosted session to the log."""

from typing import Any, NamedTuple
from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.workers.agent_runs import load_agent_run
from application.workers.tokens import LeaseTokens
from domain import agent_runs, invocations, runs
from domain.agent_runs import AgentRun
from domain.errors import NotFound
from domain.invocations import Invocation
from domain.kernel import Decider, Json


class WantedVersion(NamedTuple):
    version: str | None
    asked: bool
    """Whether the version was asked for. Otherwise it is only noted."""


async def version_of(commands: CommandLoop, tenant_id: UUID, agent_run_id: UUID) -> WantedVersion:
    """The version of the agent that an agent run wants. Raises Unavailable."""
    try:
        requested = (await load_agent_run(commands, tenant_id, agent_run_id)).requested
    except NotFound:  # the claim says so
        return WantedVersion(None, False)
    assert requested is not None
    return WantedVersion(requested.agent_version, requested.version_asked)


async def result_of(commands: CommandLoop, tenant_id: UUID, agent_run_id: UUID, step: str) -> Json:
    """The result of a step before the step of an agent run. Raises NotFound, Unavailable."""
    requested = (await load_agent_run(commands, tenant_id, agent_run_id)).requested
    assert requested is not None
    run: runs.Run = (await commands.load(runs.DECIDER, tenant_id, requested.run_id)).state
    if step not in run.step(requested.step).after or run.steps[step].status != "completed":
        raise NotFound(f"step '{requested.step}' has no result of a step '{step}'", pointer="/result")
    return run.steps[step].result


async def kind_for(
    commands: CommandLoop, tokens: LeaseTokens, tenant_id: UUID, session_id: UUID, work_id: UUID, attempt: int, token: str
) -> str | None:
    """The kind of a piece of work, `agent` or `tool`, for a worker that may report about an attempt.

    None: the token is neither of this session nor of the session that claimed the attempt, or there is no such work. Whether the
    attempt is the newest is for the rules of the work to say: a repeat of a report gets its first answer also later.
    Raises Unavailable.
    """
    run: AgentRun = (await commands.load(agent_runs.DECIDER, tenant_id, work_id, fresh=False)).state
    call: Invocation | None = None
    if run.requested is None:
        call = (await commands.load(invocations.DECIDER, tenant_id, work_id, fresh=False)).state
        if call.requested is None:
            return None
    state = run if call is None else call
    if state.attempt < attempt:  # the cached state is older than the claim
        decider: Decider[Any] = agent_runs.DECIDER if call is None else invocations.DECIDER
        state = (await commands.load(decider, tenant_id, work_id)).state
    if isinstance(state, Invocation):
        of_attempt = state.session_of(attempt)
    else:
        of_attempt = state.session_id if state.attempt == attempt else None
    mine = {session_id} | ({of_attempt} if of_attempt is not None else set())
    fits = any([tokens.fits(token, work_id, attempt, one) for one in mine])
    return ("agent" if call is None else "tool") if fits else None
