"""Which blobs a worker may put and read: those of the runs whose work it holds. The lease of the work proves that."""

import re
from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.workers.hosting.looking import kind_for
from application.workers.hosting.messages import InvalidToken
from application.workers.tokens import LeaseTokens
from domain import agent_runs, invocations
from domain.agent_runs import AgentRun
from domain.errors import InvalidCommand, WorkOver
from domain.invocations import Invocation

LEASE = "Tidelog-Lease"
"""The header: the id of the work, the attempt, and the token, with blanks between."""
_FORM = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}) ([1-9][0-9]{0,17}) ([\w-]{1,200})", re.ASCII)
NO_SESSION = UUID(int=0)


async def root_of_lease(commands: CommandLoop, tokens: LeaseTokens, tenant_id: UUID, lease: str) -> UUID:
    """The root of the work that a lease is for: its run. Raises InvalidCommand, InvalidToken, WorkOver, Unavailable."""
    form = _FORM.fullmatch(lease)
    if form is None:
        raise InvalidCommand(f"{LEASE} must be the id, the attempt and the token of a piece of work in hand, with blanks between")
    work_id, attempt, token = UUID(form[1]), int(form[2]), form[3]
    kind = await kind_for(commands, tokens, tenant_id, NO_SESSION, work_id, attempt, token)
    if kind is None:
        raise InvalidToken("the token is not the one of this work and attempt")
    if kind == "agent":
        run: AgentRun = (await commands.load(agent_runs.DECIDER, tenant_id, work_id, fresh=False)).state
        assert run.requested is not None
        root_id, is_open, newest = run.requested.run_id, run.status == "running", run.attempt
    else:
        call: Invocation = (await commands.load(invocations.DECIDER, tenant_id, work_id, fresh=False)).state
        assert call.requested is not None
        root_id, is_open, newest = call.requested.run_id, call.may_be_reported(attempt), attempt
    if not is_open or newest != attempt:
        raise WorkOver("the work is over, or has another attempt: it reads and puts no blobs any more")
    return root_id
