"""`Worker`: runs agents and tools over a session with a server, and survives outages of the server."""

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from uuid_utils.compat import uuid7

from tidelog.agent import Agent, AgentDefinition, describe_agent
from tidelog.calling import end_tasks
from tidelog.discovery import Problem
from tidelog.errors import DefinitionError, TidelogAPIError, TidelogConnectionError
from tidelog.isolation.tool import Isolating
from tidelog.logs import log
from tidelog.session import Offer, Session, SessionRefusedError, Slots, Target
from tidelog.tool_classes import AnyTool, tool_of
from tidelog.tools import Tool, ToolDefinition
from tidelog.transport import Transport
from tidelog.worker.agent_runs import AgentRunner
from tidelog.worker.bench import Bench
from tidelog.worker.invocations import ToolRunner
from tidelog.worker.pieces import Kind
from tidelog.worker.protocol import WorkerApi
from tidelog.worker.reception import Reception
from tidelog.worker.suspending import SUSPEND_AFTER_S
from tidelog.worker.tasks import going_on
from tidelog.worker.watch import LoopWatch

if TYPE_CHECKING:
    from tidelog.builtin.defined import DefinedTools

logger = logging.getLogger(__name__)

KINDS = ("http", "builtin")
"""Of tools that are data."""

T = TypeVar("T")

GRACE_S = 5.0
REPORT_EVERY_S = 60.0
"""Seconds between two reports of problems. The server keeps a report for three minutes."""
REPORT_WITHIN_S, WITHDRAW_S = 2.0, 2.0
WAITING_FOR_EACH_SLOT = 5
"""Agents that may wait for tools, people or messages without a slot, for each slot of the worker."""


class RefusedError(Exception):
    """The server refuses this worker: a wrong key, or definitions that it does not accept. A retry would not help."""


class Worker:
    """Runs agents and tools for a server until the stop event of `run` is set. A URL and a key are all that it needs.

    `concurrency`: agent executions at once. One that waits for a tool or a message for more than two seconds does not count; up to
    five times as many may wait. `tool_concurrency`: tool calls at once. `workspace`: the folder handed to tools. `grace_s`: seconds
    after the stop in which work may end. `suspend_after_s`: seconds of waiting after which an agent that does nothing else is
    unloaded, until something comes for it; None: never. `proxy`: as of `Client`. Raises `TidelogConnectionError` if the URL or the
    proxy cannot be used.
    """

    def __init__(
        self,
        *,
        url: str,
        api_key: str,
        agents: Iterable[type[Agent]] = (),
        tools: Iterable[AnyTool] = (),
        workspace: Path | str = ".",
        concurrency: int = 100,
        tool_concurrency: int = 16,
        worker_id: str | None = None,
        grace_s: float = GRACE_S,
        proxy: str | None = None,
        defined: "DefinedTools | None" = None,
        suspend_after_s: float | None = SUSPEND_AFTER_S,
    ) -> None:
        """`defined`: carries out the tools of the server's catalogue, which this worker then serves, too."""
        self.worker_id = worker_id or str(uuid7())
        self._target = Target.of(url, api_key, proxy)
        self._grace_s = grace_s
        self._agents: dict[str, type[Agent]] = {}
        self._tools: dict[str, Tool[..., Any]] = {}
        self._agent_definitions: dict[str, AgentDefinition] = {}
        self._tool_definitions: dict[str, ToolDefinition] = {}
        self._problems: tuple[Problem, ...] = ()
        self._isolating = Isolating()
        self._serves = KINDS if defined is not None else ()
        self._api = WorkerApi(partial(Transport, url, api_key, proxy=proxy))
        self._agent_runner = AgentRunner(self._api, self._agents, suspend_after_s)
        tool_runner = ToolRunner(self._api, self._tools, Path(workspace).resolve(), defined)
        self._slots = Slots(concurrency, tool_concurrency)
        waiting = WAITING_FOR_EACH_SLOT * concurrency
        self._benches: Mapping[Kind, Bench] = {
            "agent": Bench("agent", concurrency, self._agent_runner.run, self._api, self._slots_changed, waiting),
            "tool": Bench("tool", tool_concurrency, tool_runner.run, self._api, self._slots_changed),
        }
        self._reception: Reception | None = None
        self.registered = asyncio.Event()
        """Set while the worker is known to the server and gets work."""
        self.add(agents, tools)

    @property
    def agents(self) -> tuple[str, ...]:
        """Names of the agents that the worker runs."""
        return tuple(self._agents)

    def slots_held(self) -> dict[str, list[str]]:
        """What keeps slots though its work is over: names and places of code that does not stop, by kind (`agent`, `tool`)."""
        return {kind: bench.what_does_not_stop() for kind, bench in self._benches.items()}

    def add(self, agents: Iterable[type[Agent]], tools: Iterable[AnyTool]) -> None:
        """Take over more agents and tools, with the tools that take the effects of these back. A worker that runs registers them.

        Raises:
            DefinitionError: one of them is not well-formed, or its name is taken.
        """
        for agent in agents:
            definition = describe_agent(agent)
            _put(self._agents, definition.name, agent)
            self._agent_definitions[definition.name] = definition
        given = [tool_of(tool) for tool in tools]
        taking_back = [undo for tool in given if (undo := tool.undo) is not None and undo not in given]
        for tool in (*dict.fromkeys(undo for undo in taking_back if undo.name not in self._tools), *given):
            described = tool.describe()
            _put(self._tools, described.name, self._isolating.isolated(tool))
            self._tool_definitions[described.name] = described
        self._offer()

    def show_problems(self, problems: Iterable[Problem]) -> None:
        """What cannot be used now of the files of users: the server shows it to operators while this worker runs."""
        self._problems = tuple(problems)
        self._offer()

    async def report_problems_once(self) -> None:
        """Report the problems of a worker that has nothing to run, and never will: operators see them for three minutes."""
        session, _ = self._begin()
        try:
            session.offer(Offer(problems=self._all_problems()))
            session.open()
            known = asyncio.create_task(self.registered.wait(), name="report of problems")
            ends: set[asyncio.Future[Any]] = {known, session.ended}
            await asyncio.wait(ends, timeout=REPORT_WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
            if not known.done():
                reason = "no answer" if not session.ended.done() else repr(session.ended.exception())
                log(logger, logging.WARNING, "problems_not_reported", reason=reason)
            await end_tasks(known)
        except SessionRefusedError as error:
            log(logger, logging.WARNING, "problems_not_reported", reason=str(error))
        finally:
            await session.close(leave=False)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; then finish the work that ends within `grace_s` seconds and give back the rest.

        Raises:
            RefusedError: the server refuses this worker.
        """
        session, reception = self._begin()
        tasks = [
            asyncio.create_task(stop.wait(), name="stop"),
            asyncio.create_task(going_on("loop watch", LoopWatch(self._in_hand).run), name="loop watch"),
            asyncio.create_task(going_on("report of problems", self._report_problems), name="report of problems"),
        ]
        try:
            self._offer()
            session.open()
            ends: set[asyncio.Future[Any]] = {session.ended, reception.refused, tasks[0]}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if session.ended.done():
                session.ended.result()
            if reception.refused.done():
                raise RefusedError(f"the server refuses this worker: {reception.refused.result()}")
        except SessionRefusedError as error:
            raise RefusedError(f"the server refuses this worker: {error}") from error
        finally:
            await end_tasks(tasks[0], tasks[2])
            await self._shut_down(session, reception)
            await end_tasks(tasks[1])

    def _begin(self) -> tuple[Session, Reception]:
        self._reception = Reception(self._api, self._benches, self.registered, self._said)
        self._api.session = Session(self._target, self.worker_id, self._slots, self._reception, self._serves)
        return self._api.session, self._reception

    def _said(self) -> dict[str, Any]:
        held: dict[str, Any] = {f"{kind}_slots_held": bench.held for kind, bench in self._benches.items() if bench.held}
        held |= {"serves": list(self._serves)} if self._serves else {}
        return {"worker_id": self.worker_id, "agents": sorted(self._agents), "tools": sorted(self._tools), **held}

    def _slots_changed(self) -> None:
        if self._reception is not None:
            self._reception.slots_changed()

    def _offer(self) -> None:
        if self._api.session is not None:
            agents, tools = list(self._agent_definitions.values()), list(self._tool_definitions.values())
            self._api.session.offer(Offer(agents, tools, self._all_problems()))

    def _all_problems(self) -> tuple[Problem, ...]:
        return (*self._problems, *self._isolating.problems)

    def _in_hand(self) -> set[str]:
        return set().union(*(bench.in_hand for bench in self._benches.values()))

    async def _report_problems(self) -> None:
        """The server forgets a report of problems. Runs until cancelled."""
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            if self._all_problems():
                self._offer()

    async def _shut_down(self, session: Session, reception: Reception) -> None:
        reception.closing = True
        reception.tell_slots()
        busy = {kind: bench.busy for kind, bench in self._benches.items()}
        held = {f"{kind}_slots_held": bench.held for kind, bench in self._benches.items() if bench.held}
        log(logger, logging.INFO, "worker_stopping", worker_id=self.worker_id, **busy, **held)
        self._agent_runner.drain()
        await asyncio.gather(*(bench.finish(self._grace_s) for bench in self._benches.values()), self._withdraw_problems(session))
        await session.close()
        await self._api.close()
        self._isolating.close()
        self.registered.clear()
        self._api.session = None

    async def _withdraw_problems(self, session: Session) -> None:
        """A worker that has ended has no problems. Without an answer the report expires by itself."""
        withdrawn = session.offer(Offer()) if self._all_problems() else None
        if withdrawn is None:
            return
        with contextlib.suppress(TidelogConnectionError, TidelogAPIError, TimeoutError):
            async with asyncio.timeout(WITHDRAW_S):
                await withdrawn


def _put(things: dict[str, T], name: str, thing: T) -> None:
    if name in things:
        raise DefinitionError("invalid-name", f"two of one name: {name!r}")
    things[name] = thing
