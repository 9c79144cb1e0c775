"""Registering a worker: the agents and tools that it brings, and the queues that it pulls their work from."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandRequest
from application.engine.ports.queue import Queue, WorkQueue
from application.tool_schemas import ToolSchemas
from domain.agents import RegisterAgent
from domain.tools import RegisterTool

MAX_PENDING = {"agent": 256, "tool": 256}
"""Items of one queue that workers may have in hand."""


@dataclass(frozen=True, slots=True)
class Registered:
    queues: Sequence[Queue]
    """Those of the agents, then those of the tools, in the order of the offers."""
    ack_wait_s: float
    """Seconds of a worker's silence about an item after which another worker gets the item."""


class Registration:
    """Idempotent: what is registered already in the same form makes no event. Each agent and each tool is one append."""

    def __init__(self, commands: CommandLoop, queue: WorkQueue, schemas: ToolSchemas) -> None:
        self._commands = commands
        self._queue = queue
        self._schemas = schemas

    async def register(
        self, new_request: Callable[[], CommandRequest], agents: Sequence[RegisterAgent], tools: Sequence[RegisterTool]
    ) -> Registered:
        """`new_request`: makes the request of one command, each with an id of its own.

        Raises:
            InvalidCommand: the parameters of a tool are no JSON Schema that can be checked; nothing is registered then.
            Unavailable: the log or the queue is away; a repeat goes on from there.
        """
        for i, tool in enumerate(tools):
            self._schemas.check(tool.name, tool.parameters, pointer=f"/tools/{i}/parameters")
            await asyncio.sleep(0)  # a schema may take 50 ms to compile: others have their turn in between
        queues = [await self._offer(new_request(), agent, "agent", agent.name) for agent in agents]
        queues += [await self._offer(new_request(), tool, "tool", tool.name) for tool in tools]
        return Registered(queues, self._queue.ack_wait_s)

    async def _offer(self, request: CommandRequest, command: RegisterAgent | RegisterTool, kind: str, name: str) -> Queue:
        await self._commands.execute(request, command)
        return await self._queue.ensure(request.tenant_id, kind, name, max_pending=MAX_PENDING[kind])
