"""Waits of agents: beginning one, and the agent run that leaves its worker meanwhile."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from application.approvals.needs import ApprovalNeeds, Asker
from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import Caller, CommandOutcome
from application.workers.agent_runs import load_agent_run, request_for_agent_run
from domain import agent_runs
from domain.agent_runs import OpenReceive, StartWait, SuspendAgentRun
from domain.approval_policies import PoliciesChanged
from domain.approval_rules import Demand, arguments_hash, question_id_of
from domain.approvals import RequestApproval
from domain.errors import Unavailable
from domain.kernel import Json
from domain.runs import GotTainted

MOST_LOOKS = 5


class AgentWaits:
    def __init__(self, commands: CommandLoop, needs: ApprovalNeeds) -> None:
        self._commands = commands
        self._needs = needs

    async def start(self, caller: Caller, command: StartWait) -> CommandOutcome:
        """Begins a wait, once for its key. Raises NotFound, WorkOver, StaleAttempt, InvalidState, InvalidCommand."""
        name = f"wait:{command.attempt}:{command.key}"
        request = await request_for_agent_run(self._commands, caller, command.agent_run_id, name)
        return await self._commands.execute(request, command)

    async def ask(self, caller: Caller, command: StartWait, title: str, details: dict[str, Json], demand: Demand) -> CommandOutcome:
        """Asks people a question, once for its key, and begins the wait for their answer.

        Raises NotFound, WorkOver, StaleAttempt, InvalidState, InvalidCommand, Unavailable.
        """
        tenant_id, agent_run_id = caller.tenant_id, command.agent_run_id
        request = await request_for_agent_run(self._commands, caller, agent_run_id, f"wait:{command.attempt}:{command.key}")
        for look in range(MOST_LOOKS):
            state = await load_agent_run(self._commands, tenant_id, agent_run_id, fresh=look > 0)
            requested = state.requested
            assert requested is not None
            if command.key in state.journal:
                return await self._commands.execute(request, command)
            name = command.name or ""
            asker = Asker(requested.run_id, requested, requested.on_behalf_of)
            needs = await self._needs.of(tenant_id, None, asker, fresh=look > 0)
            asked = RequestApproval(
                approval_id=question_id_of(agent_run_id, command.key, state.reopened), kind="step", run_id=requested.run_id,
                tool=name, arguments_hash=arguments_hash(details), demand=needs.question(name, demand),
                agent_run_id=agent_run_id, key=command.key, on_behalf_of=requested.on_behalf_of, title=title, details=details,
                reopened=state.reopened,
            )  # fmt: skip
            try:
                return await self._commands.execute(request, command, asked, *needs.conditions)
            except (PoliciesChanged, GotTainted):  # this process had not heard of it
                continue
        raise Unavailable("the approval policies are being changed: try again")

    async def suspend(
        self,
        caller: Caller,
        agent_run_id: UUID,
        attempt: int,
        seen: int,
        receives: Sequence[tuple[str, float | None, str | None]],
    ) -> tuple[bool, CommandOutcome]:
        """The agent run leaves its worker. False: something has come that the worker has not heard of, and the worker goes on.

        `receives`: key, seconds left and sender of each open `receive`. Raises NotFound, WorkOver, StaleAttempt, InvalidState.
        """
        now = datetime.now(UTC)
        command = SuspendAgentRun(
            agent_run_id=agent_run_id,
            attempt=attempt,
            seen=seen,
            receives=tuple(
                OpenReceive(key=key, until=None if left is None else now + timedelta(seconds=left), sender=sender)
                for key, left, sender in receives
            ),
        )
        request = await request_for_agent_run(self._commands, caller, agent_run_id, f"suspend:{attempt}")
        outcome = await self._commands.execute(request, command)
        state = await load_agent_run(self._commands, caller.tenant_id, agent_run_id, fresh=outcome.duplicate)
        goes_on = state.status == "running" and state.attempt == attempt
        return not goes_on and state.status not in agent_runs.TERMINAL, outcome
