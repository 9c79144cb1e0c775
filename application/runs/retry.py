"""Retrying a run: what must have ended before, what became of calls that were under way, and the retry itself, in one append."""

from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandOutcome, CommandRequest
from application.engine.ports.log import EventFeed
from application.runs.admission import RunAdmission
from application.runs.keys import take, with_key
from application.runs.lookup import must_be_a_run
from application.runs.terms import NO_TERMS, Terms
from domain import agent_runs, invocations, runs
from domain.agent_runs import AgentRun, SettleCalls, SettledCall
from domain.compensations import CheckEffects
from domain.errors import EffectInDoubt, StillEnding
from domain.invocations import Invocation
from domain.kernel import Command, RecordedEvent, who_asked
from domain.runs import KeyNotTaken, RetryRun, Run, TaintRun

MOST_LOOKS = 3
"""Looks at a run that ends meanwhile."""
MOST_NAMED = 10
"""Calls that a refusal names."""


@dataclass
class _Found:
    """What a retry finds in the run and in the child runs that go on with it."""

    conditions: list[Command] = field(default_factory=list)
    ambiguous: list[UUID] = field(default_factory=list)
    under_way: str | None = None


async def retry_run(
    commands: CommandLoop, feed: EventFeed, request: CommandRequest, command: RetryRun,
    audited: Callable[[CommandRequest], CommandRequest], expected_version: int | None = None, terms: Terms = NO_TERMS,
    admission: RunAdmission | None = None,
) -> CommandOutcome:  # fmt: skip
    """Lets a run go on with what failed in it. `audited` gives the request its entry in the audit trail. `terms`: what holds from
    now on. The work that begins is for whom the run was started, whoever retries it. `admission`: a run that had ended is one more
    open run.

    Raises:
        TooManyOpenRuns, TooManyOpenRunsOfTenant: as many runs are open as may be.
        NotFound: the tenant has no such run.
        InvalidState: nothing of it has failed. InvalidCommand: it has no such step.
        RunOfParent: the run is a part of another one.
        EffectsTakenBack: its effects are being taken back, or were, or those of a child run that would go on.
        EffectInDoubt: a call waits for a person. StillEnding: work of it is still under way.
        RunKeyBusy: another run holds its key.
        VersionConflict, Unavailable.
    """
    if await commands.recorded(request) is not None:  # a repeat: the run has gone on since
        return await commands.execute(request, command, expected_version=expected_version)
    first = await must_be_a_run(feed, request.tenant_id, command.run_id)
    for look in range(MOST_LOOKS):
        try:
            return await _retried(commands, first, request, command, audited, expected_version, terms, admission)
        except KeyNotTaken:  # it has ended meanwhile, or gone on
            if look == MOST_LOOKS - 1:
                raise
    raise AssertionError("the last look raises")


async def _retried(
    commands: CommandLoop, first: RecordedEvent, request: CommandRequest, command: RetryRun,
    audited: Callable[[CommandRequest], CommandRequest], expected_version: int | None, terms: Terms,
    admission: RunAdmission | None,
) -> CommandOutcome:  # fmt: skip
    found = _Found()
    run: Run = (await commands.load(runs.DECIDER, request.tenant_id, command.run_id)).state
    if run.parent is None:  # else the rules refuse
        await _look_into(commands, request.tenant_id, command.run_id, run, runs.to_retry(run, command.steps), found)
    if found.ambiguous:
        calls = ", ".join(map(str, found.ambiguous[:MOST_NAMED]))
        others = f" and {len(found.ambiguous) - MOST_NAMED} more" if len(found.ambiguous) > MOST_NAMED else ""
        raise EffectInDoubt(
            f"nobody knows whether calls had their effect: resolve {calls}{others} first, or they might be made a second time"
        )
    if found.under_way is not None:
        raise StillEnding(f"{found.under_way} is still ending: try again in a moment")
    more = (*terms.commands(command.run_id), *found.conditions)
    for_whom = who_asked(first.metadata)[1]
    request = audited(request)._replace(on_behalf_of=for_whom)
    if run.status not in runs.OVER:
        return await commands.execute(request, command, *more, expected_version=expected_version)
    if admission is None:
        return await _begun_again(commands, request, command, run, more, expected_version)
    if not admission.counted:
        await admission.ready()
    with admission.admitted(request.tenant_id) as admitted:
        outcome = await _begun_again(commands, request, command, run, more, expected_version)
        admitted.position = None if outcome.duplicate else outcome.position
    return outcome


async def _begun_again(
    commands: CommandLoop, request: CommandRequest, command: RetryRun, run: Run, more: tuple[Command, ...],
    expected_version: int | None,
) -> CommandOutcome:  # fmt: skip
    """Of a run that had ended: it takes its key again, if it has one."""
    if run.concurrency is None:
        return await commands.execute(request, command, *more, expected_version=expected_version)
    taking = take(run.concurrency, command.run_id, turn=run.retries + 1, on_busy="reject")
    takes = command.model_copy(update={"takes_key": taking.turn})

    async def execute(of_key: tuple[Command, ...]) -> CommandOutcome:
        return await commands.execute(request, takes, *more, *of_key, expected_version=expected_version, beside=(taking.key_id,))

    return await with_key(commands, request.tenant_id, taking, execute)


async def _look_into(
    commands: CommandLoop, tenant_id: UUID, run_id: UUID, run: Run, again: runs.Again, found: _Found, above: tuple[UUID, ...] = ()
) -> None:
    """Looks at what goes on of a run, and of its child runs in turn. `above`: the runs above it, which go on as well."""
    runs_ = (run_id, *above)
    found.conditions.append(CheckEffects(run_id=run_id))
    agents, children = runs.executions_again(run, run_id, again)
    await commands.meet(tenant_id, dict.fromkeys(agents, agent_runs.DECIDER) | dict.fromkeys(children, runs.DECIDER), fresh=True)
    for agent_run_id in agents:
        state: AgentRun = (await commands.load(agent_runs.DECIDER, tenant_id, agent_run_id)).state
        if state.requested is None:
            continue
        if state.status not in agent_runs.TERMINAL:
            found.under_way = f"the agent run {agent_run_id}"
            continue
        settled = [await _settled(commands, tenant_id, key, call, found, runs_) for key, call in state.pending_keys.items()]
        if calls := [call for call in settled if call is not None]:
            found.conditions.append(SettleCalls(agent_run_id=agent_run_id, calls=tuple(calls)))
    for child_id in children:
        child: Run = (await commands.load(runs.DECIDER, tenant_id, child_id)).state
        if child.status not in runs.OVER:
            found.under_way = f"the child run {child_id}"
        elif child.status != "completed":
            await _look_into(commands, tenant_id, child_id, child, runs.of_child(child), found, runs_)


async def _settled(
    commands: CommandLoop, tenant_id: UUID, key: str, call: UUID, found: _Found, runs_: tuple[UUID, ...]
) -> SettledCall | None:
    """What became of a call whose agent run ended before. None: that is not known."""
    state: Invocation = (await commands.load(invocations.DECIDER, tenant_id, call)).state
    if state.status == "ambiguous":
        found.ambiguous.append(call)
        return None
    if state.status not in invocations.TERMINAL:
        found.under_way = f"the call {call}"
        return None
    if state.requested is not None and state.requested.untrusted:  # the run had ended when the output came, and heard nothing of it
        found.conditions += [TaintRun(run_id=run_id, invocation_id=call, key=key, goes_on=True) for run_id in runs_]
    return SettledCall(key=key, invocation_id=call, succeeded=state.status == "succeeded", effect=state.effect)
