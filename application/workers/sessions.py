"""Work of sessions: a session claims a dispatch, gives work back, and learns after a reconnect what is still its own.

A dispatch is claimed once. It comes back only when its claim lapses: then the work is dispatched anew. So duplicates on the way of
the work do no harm.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal
from uuid import UUID

from application.approvals.notices import Notices
from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import Caller, CommandRequest
from application.engine.ports.queue import WorkItem
from application.engine.ports.sessions import HeldWork, WorkerSession, WorkerSessions
from application.lapses import lapse_of, lapse_request
from application.workers.claims import ClaimedAgentRun, Claims
from application.workers.invocations import WorkerInvocations
from application.workers.tokens import LeaseTokens
from domain import agent_runs, invocations, runs
from domain.agent_runs import AgentRun, ClaimAgentRun, PauseAgentRun
from domain.errors import NotFound, RunIsPaused, WorkOver
from domain.failures import LapseReason
from domain.invocations import ClaimInvocation, Invocation, PauseInvocation
from domain.kernel import Command, Decider, Json, derive_id


@dataclass(frozen=True, slots=True)
class ClaimedCall:
    """What a worker gets of a tool call that it has claimed."""

    run_id: UUID
    agent_run_id: UUID
    attempt: int
    tool: str
    arguments: dict[str, Json]
    timeout_s: float
    idempotent: bool
    on_behalf_of: str | None = None
    asks: bool = False
    """Whether the tool's `reconcile` function is called, and not the tool. `timeout_s` is the function's then."""
    tool_version: str | None = None
    """The version that was called. None: by a release that did not note it."""


Claimed = ClaimedAgentRun | ClaimedCall

HELD = invocations.HELD | {"running"}
"""The statuses of work that a worker has."""


class SessionWork:
    """The work of the sessions of one process."""

    def __init__(
        self, commands: CommandLoop, claims: Claims, calls: WorkerInvocations, sessions: WorkerSessions, tokens: LeaseTokens,
        notices: Notices,
    ) -> None:  # fmt: skip
        self._commands = commands
        self._claims = claims
        self._calls = calls
        self._sessions = sessions
        self.tokens = tokens
        self._notices = notices

    async def claim(
        self, caller: Caller, session: WorkerSession, item: WorkItem, claim_id: UUID, permit_holder: UUID | None = None
    ) -> Claimed | None:
        """Claims a dispatch for a session. None: the work is over, or was dispatched anew, or another claim has it.

        `permit_holder`: whose permit a call of a tool has, where the tool has a limit of calls at once.

        `claim_id`: an id that the caller makes for each claim. The same claim again gets its first answer, as long as the session
        has the work. Raises Unavailable and VersionConflict: whether the claim was recorded is then not known.
        """
        try:
            command = claim_of(session, item, permit_holder)
            if isinstance(command, ClaimAgentRun):
                return (await self._claims.claim(caller, command, str(claim_id)))[0]
            return await self._given(item.tenant_id, (await self._calls.claim(caller, command, str(claim_id)))[0])
        except NotFound:  # the log lost the work, as after a restore from a backup
            return None
        except RunIsPaused:
            await self._pause(item)
            return None
        except WorkOver:
            await self._lapse_if_lost(item)
            return None

    async def content_of(self, work: HeldWork) -> Claimed | None:
        """What the worker of a session gets of work that its session has. None: the session does not have it any more.

        Raises Unavailable.
        """
        return await self._content(
            work.tenant_id, work.kind, work.work_id, lambda state: state.attempt == work.attempt, work.session_id, fresh=True
        )

    async def claimed_content(self, session: WorkerSession, item: WorkItem, *, fresh: bool) -> Claimed | None:
        """What the worker of a session gets of a dispatch that its session has claimed. None: the session does not have it.

        `fresh`: with all events that other processes have recorded. Raises Unavailable.
        """
        return await self._content(
            item.tenant_id, item.kind, item.work_id, lambda state: state.dispatch == item.dispatch, session.session_id, fresh=fresh
        )

    def content_at_once(self, session: WorkerSession, item: WorkItem) -> Claimed | None:
        """As `claimed_content`, of what this process knows. None: something has to be loaded, or the session does not have it."""
        decider: Decider[Any] = agent_runs.DECIDER if item.kind == "agent" else invocations.DECIDER
        known = self._commands.known(decider, item.tenant_id, item.work_id)
        if known is None or not _is_held(known.state, session.session_id) or known.state.dispatch != item.dispatch:
            return None
        if item.kind != "agent":
            return None if _is_notice(known.state) else _call(known.state)
        try:
            return self._claims.given_at_once(item.tenant_id, known.state)
        except WorkOver:
            return None

    async def _content(
        self, tenant_id: UUID, kind: str, work_id: UUID, is_it: Callable[[AgentRun | Invocation], bool], session_id: UUID, *,
        fresh: bool,
    ) -> Claimed | None:  # fmt: skip
        """`is_it`: whether a state is that of the wanted attempt."""
        try:
            if kind == "agent":
                state = await self._agent_run(tenant_id, work_id, fresh=fresh)
                if not (_is_held(state, session_id) and is_it(state)):
                    return None
                return await self._claims.given(tenant_id, work_id, state, fresh=fresh)
            call = await self._invocation(tenant_id, work_id, fresh=fresh)
            return await self._given(tenant_id, call) if _is_held(call, session_id) and is_it(call) else None
        except WorkOver:
            return None

    async def _given(self, tenant_id: UUID, call: Invocation) -> ClaimedCall:
        """What the worker of a call gets. Raises WorkOver, Unavailable."""
        given = _call(call)
        return replace(given, arguments=await self._notices.arguments_of(tenant_id, call)) if _is_notice(call) else given

    async def may_report(self, tenant_id: UUID, work_id: UUID, attempt: int, token: str) -> Literal["agent", "tool"] | None:
        """Whether a worker may still report about work that it has in hand, and the kind of the work.

        None: the attempt is not the newest, or it lapsed and was dispatched anew, or the token is wrong. A call that became
        ambiguous because its session was lost may be reported until a person resolves it. Raises Unavailable.
        """
        await self.tokens.ready()
        agent_run = await self._agent_run(tenant_id, work_id)
        if agent_run.requested is not None:
            session_id = agent_run.session_id if agent_run.status == "running" and agent_run.attempt == attempt else None
            return "agent" if session_id is not None and self.tokens.fits(token, work_id, attempt, session_id) else None
        call = await self._invocation(tenant_id, work_id)
        of_call = call.session_of(attempt) if call.may_be_reported(attempt) else None
        return "tool" if of_call is not None and self.tokens.fits(token, work_id, attempt, of_call) else None

    async def returned(self, tenant_id: UUID, session_id: UUID, kind: str, work_id: UUID, attempt: int) -> None:
        """The worker of a session gives up a piece of work. It is dispatched anew at once. Raises Unavailable."""
        state = await (self._agent_run(tenant_id, work_id) if kind == "agent" else self._invocation(tenant_id, work_id))
        if state.requested is not None:
            await self.give_back(HeldWork(tenant_id, kind, work_id, state.requested.run_id, attempt, session_id), "left")

    async def give_back(self, work: HeldWork, reason: LapseReason) -> None:
        """Takes work away from a session before the session is over. It is dispatched anew at once.

        `unsent`: the work never reached the worker, so a call that must not be repeated does not become ambiguous.
        Raises Unavailable.
        """
        await self._commands.execute(lapse_request(work), lapse_of(work, reason))

    async def _pause(self, item: WorkItem) -> None:
        """Takes a dispatch back that waits for a worker while its run is paused. The end of the pause dispatches the work anew."""
        run: runs.Run = (await self._commands.load(runs.DECIDER, item.tenant_id, item.root_id)).state
        if not run.paused:
            return
        command: Command = PauseInvocation(invocation_id=item.work_id, dispatch=item.dispatch)
        if item.kind == "agent":
            command = PauseAgentRun(agent_run_id=item.work_id, number=run.pauses, dispatch=item.dispatch)
        command_id = derive_id(item.work_id, f"pause:{run.pauses}:{item.dispatch}")
        cause = f"run:{item.root_id}"
        request = CommandRequest(item.tenant_id, "system", command_id, item.root_id, cause, checked=True, goes_on=True)
        await self._commands.execute(request, command)

    async def _lapse_if_lost(self, item: WorkItem) -> None:
        """Lets the claim of a session that is over lapse where the read model does not know of the claim."""
        if item.kind == "agent":
            state: AgentRun | Invocation = await self._agent_run(item.tenant_id, item.work_id)
        else:
            state = await self._invocation(item.tenant_id, item.work_id)
        session_id = state.session_id if state.status in HELD else None
        if session_id is not None and await self._sessions.over([session_id]):
            work = HeldWork(item.tenant_id, item.kind, item.work_id, item.root_id, state.attempt, session_id)
            await self._commands.execute(lapse_request(work), lapse_of(work, "lost"))

    async def _agent_run(self, tenant_id: UUID, agent_run_id: UUID, *, fresh: bool = True) -> AgentRun:
        state: AgentRun = (await self._commands.load(agent_runs.DECIDER, tenant_id, agent_run_id, fresh=fresh)).state
        return state

    async def _invocation(self, tenant_id: UUID, invocation_id: UUID, *, fresh: bool = True) -> Invocation:
        state: Invocation = (await self._commands.load(invocations.DECIDER, tenant_id, invocation_id, fresh=fresh)).state
        return state


def claim_of(session: WorkerSession, item: WorkItem, permit_holder: UUID | None = None) -> ClaimAgentRun | ClaimInvocation:
    """The command by which a session claims a dispatch."""
    worker_id, session_id = session.worker_id, session.session_id
    if item.kind == "agent":
        return ClaimAgentRun(agent_run_id=item.work_id, worker_id=worker_id, dispatch=item.dispatch, session_id=session_id)
    return ClaimInvocation(
        invocation_id=item.work_id, worker_id=worker_id, dispatch=item.dispatch, session_id=session_id, permit_holder=permit_holder
    )


def _is_held(state: AgentRun | Invocation, session_id: UUID) -> bool:
    """Whether an attempt is under way, for this session."""
    return state.status in HELD and state.session_id == session_id


def _is_notice(call: Invocation) -> bool:
    return call.requested is not None and call.requested.is_notice


def _call(call: Invocation) -> ClaimedCall:
    requested = call.requested
    assert requested is not None
    asks = call.attempt != call.called
    return ClaimedCall(
        run_id=requested.run_id,
        agent_run_id=requested.agent_run_id,
        attempt=call.attempt,
        tool=requested.tool,
        arguments=requested.arguments,
        timeout_s=requested.reconcile_timeout_s or 0.0 if asks else requested.timeout_s,
        idempotent=requested.idempotent,
        on_behalf_of=requested.on_behalf_of,
        asks=asks,
        tool_version=requested.tool_version,
    )
