"""Registering a worker: its agents, its tools, and the queues of their work."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandRequest
from application.engine.ports.problems import WorkerProblem, WorkerProblems
from application.engine.ports.queue import Queue, WorkQueue
from application.engine.retry import persistently
from application.tools import Declarations
from domain.agents import RegisterAgent
from domain.errors import TidelogError
from domain.tools import RegisterTool

log = structlog.get_logger(__name__)

MAX_PENDING = {"agent": 2_000, "tool": 256, "reconcile": 256}
"""Items of one queue that workers may hold at the same time. Agents mostly wait: for tools, for people, for one another."""
OFFERS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Offer:
    """A definition of a worker: the command that registers it, or the reason why the definition cannot be read."""

    name: str | None
    version: str | None
    command: RegisterAgent | RegisterTool | None
    error: TidelogError | None = None

    @property
    def can_tell(self) -> bool:
        """Whether it is a tool with a `reconcile` function."""
        return isinstance(self.command, RegisterTool) and self.command.reconcile_timeout_s is not None


class Registration:
    """Registration of workers. Idempotent: an unchanged agent or tool makes no event. Each agent and each tool is one append."""

    def __init__(self, commands: CommandLoop, queue: WorkQueue, declarations: Declarations, problems: WorkerProblems) -> None:
        self._commands = commands
        self._queue = queue
        self._declarations = declarations
        self._problems = problems

    async def each(
        self, new_request: Callable[[], CommandRequest], kind: str, offers: Sequence[Offer]
    ) -> "list[tuple[Offer, Queue | None, Exception | None]]":
        """Registers each offer by itself. Gives for each its queue, or the reason of its refusal. Waits for the end of outages.

        `kind`: `agent` or `tool`. A defect that one definition brings to light refuses this definition only.
        """
        turns = asyncio.Semaphore(OFFERS_AT_ONCE)

        async def one(offer: Offer) -> "tuple[Offer, Queue | None, Exception | None]":
            command = offer.command
            if command is None:
                return offer, None, offer.error
            async with turns:
                try:
                    if isinstance(command, RegisterTool):
                        self._declarations.check(command)
                        await asyncio.sleep(0)  # a schema may take 50 ms to compile: other tasks run in between
                    request = new_request()
                    return offer, await persistently(lambda: self._offer(request, command, kind, command.name)), None
                except TidelogError as error:
                    return offer, None, error
                except Exception as error:
                    log.exception("definition_failed", kind=kind, name=offer.name)
                    return offer, None, error

        return list(await asyncio.gather(*map(one, offers)))

    async def report(self, tenant_id: UUID, worker_id: str, problems: Sequence[WorkerProblem]) -> None:
        """Replaces the worker's report about files that it cannot use. Raises Unavailable."""
        await self._problems.report(tenant_id, worker_id, problems)

    async def _offer(self, request: CommandRequest, command: RegisterAgent | RegisterTool, kind: str, name: str) -> Queue:
        await self._commands.execute(request, command)
        return self.queue_of(request.tenant_id, kind, name)

    def queue_of(self, tenant_id: UUID, kind: str, name: str) -> Queue:
        """The queue of the work of a kind for an agent or tool. The name is one of a definition that was accepted."""
        return self._queue.address(tenant_id, kind, name, max_pending=MAX_PENDING[kind])


def refused_definition(kind: str, name: str | None, error: Exception) -> WorkerProblem:
    """The refusal of a definition as operators see it, beside the files that the worker cannot use."""
    reason = error.message if isinstance(error, TidelogError) else "the server has a defect: see its log"
    what = f"{kind} {name or '(without a name)'}"
    path, message = (text.replace("\0", "?") for text in (what[:500], reason[:4_000]))  # PostgreSQL stores no NUL
    return WorkerProblem(path, "definition-refused", message)
