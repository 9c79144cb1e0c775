"""Attempts that workers of 0.1.0 have begun: without a session, over a protocol of which only their ends are still taken."""

from typing import Any
from uuid import UUID

from application.engine.commands.loop import CommandLoop
from domain import agent_runs, invocations
from domain.errors import TidelogError
from domain.kernel import Decider

FIRST_WITH_SESSIONS = "0.2.0"
"""The release whose workers, and all later ones, open a session."""


class WorkerProtocolReplaced(TidelogError):
    """A worker of 0.1.0 asks for what only a session does now."""

    code = "worker-protocol-replaced"

    def __init__(self) -> None:
        install = f"pip install 'tidelog>={FIRST_WITH_SESSIONS}'"
        super().__init__(f"this server takes workers from release {FIRST_WITH_SESSIONS} on: {install}, then restart the worker")


class EarlierAttempts:
    """Tells attempts without a session from those that only the worker of a session may report about, with its token."""

    def __init__(self, commands: CommandLoop) -> None:
        self._commands = commands

    async def must_be_of_agent_run(self, tenant_id: UUID, agent_run_id: UUID, attempt: int) -> None:
        """Raises WorkerProtocolReplaced if a session began this attempt of the agent run. Raises Unavailable."""
        await self._must_be_without_session(agent_runs.DECIDER, tenant_id, agent_run_id, attempt)

    async def must_be_of_call(self, tenant_id: UUID, invocation_id: UUID, attempt: int) -> None:
        """Raises WorkerProtocolReplaced if a session began this attempt of the call. Raises Unavailable."""
        await self._must_be_without_session(invocations.DECIDER, tenant_id, invocation_id, attempt)

    async def _must_be_without_session(self, decider: Decider[Any], tenant_id: UUID, work_id: UUID, attempt: int) -> None:
        state = (await self._commands.load(decider, tenant_id, work_id, fresh=False)).state
        if state.attempt < attempt:  # the cached state is older than the claim
            state = (await self._commands.load(decider, tenant_id, work_id)).state
        if state.attempt == attempt and state.session_id is not None:
            raise WorkerProtocolReplaced
