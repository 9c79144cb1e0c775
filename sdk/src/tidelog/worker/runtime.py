"""`Worker`: registers with a server, pulls work for its agents and tools, and survives outages of the server and of NATS."""

import asyncio
import logging
import random
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from nats.errors import Error as NatsError
from uuid_utils.compat import uuid7

from tidelog.agent import Agent, AgentDefinition, describe_agent
from tidelog.calling import end_tasks
from tidelog.discovery import Problem
from tidelog.errors import (
    AuthenticationError,
    DefinitionError,
    InvalidRequestError,
    PermissionDeniedError,
    TidelogAPIError,
    TidelogConnectionError,
)
from tidelog.logs import log, log_failure
from tidelog.nats_security import NatsSecurity, SecuredClient
from tidelog.tools import Tool, ToolDefinition
from tidelog.transport import NO_RETRY, Transport
from tidelog.worker.agent_runs import AgentRunner
from tidelog.worker.bench import Bench
from tidelog.worker.invocations import ToolRunner
from tidelog.worker.protocol import Queue, Registration, WorkerApi
from tidelog.worker.pulling import Puller
from tidelog.worker.tasks import going_on
from tidelog.worker.watch import LoopWatch

logger = logging.getLogger(__name__)

T = TypeVar("T")

GRACE_S = 5.0
NATS_CONNECT_S = 15.0
NATS_ANSWER_S = 3.0
START_S = 10.0
"""Seconds in which a worker that was never registered does not warn: its server may be starting beside it."""
REPORT_EVERY_S = 60.0
"""Seconds between two reports of problems. The server keeps a report for three minutes."""
REPORT_WITHIN_S, WITHDRAW_S = 2.0, 2.0
WAITING_FOR_EACH_SLOT = 5
"""Agents that may wait for tools, people or messages without a slot, for each slot of the worker."""
MAX_PAUSE_S = 2.0
"""Longest pause between attempts to reach the server. Pause and attempt together take less than five seconds."""


class RefusedError(Exception):
    """The server refuses this worker: a wrong key, or definitions that it does not accept. A retry would not help."""


class Worker:
    """Runs agents and tools for a server until the stop event of `run` is set.

    `concurrency`: agent executions at once. One that waits for a tool or a message for more than two seconds does not count; up to
    five times as many may wait. `tool_concurrency`: tool calls at once. `workspace`: the folder handed to tools. `nats_security`:
    certificates and credentials for NATS; the server gives the URL. `grace_s`: seconds after the stop in which work may end.
    `proxy`: as of `Client`. Raises `TidelogConnectionError` if the URL or the proxy cannot be used.
    """

    def __init__(
        self,
        *,
        url: str,
        api_key: str,
        agents: Iterable[type[Agent]] = (),
        tools: Iterable[Tool[..., Any]] = (),
        workspace: Path | str = ".",
        concurrency: int = 100,
        tool_concurrency: int = 16,
        worker_id: str | None = None,
        nats_security: NatsSecurity | None = None,
        grace_s: float = GRACE_S,
        proxy: str | None = None,
    ) -> None:
        self.worker_id = worker_id or str(uuid7())
        self._grace_s = grace_s
        self._agents: dict[str, type[Agent]] = {}
        self._tools: dict[str, Tool[..., Any]] = {}
        self._agent_definitions: dict[str, AgentDefinition] = {}
        self._tool_definitions: dict[str, ToolDefinition] = {}
        self._problems: tuple[Problem, ...] = ()
        # Each agent run may hold a long poll, a heartbeat's check and some calls at once; one that waits a long poll.
        waiting = WAITING_FOR_EACH_SLOT * concurrency
        self._transport = Transport(url, api_key, max_connections=2 * (concurrency + tool_concurrency) + 20 + waiting, proxy=proxy)
        self._api = WorkerApi(self._transport)
        agent_runner = AgentRunner(self._api, self.worker_id, self._agents)
        tool_runner = ToolRunner(self._api, self.worker_id, self._tools, Path(workspace).resolve())
        self._benches: Mapping[str, Bench] = {
            "agent": Bench("agent", concurrency, agent_runner.run, waiting),
            "tool": Bench("tool", tool_concurrency, tool_runner.run),
        }
        self._nats_security = nats_security or NatsSecurity()
        self._nats: SecuredClient | None = None
        self._nats_url = ""
        self._pullers: dict[Queue, asyncio.Task[None]] = {}
        self._lost: dict[str, list[str]] = {}
        """Queues that were lost since the last registration, by reason."""
        self._trouble = asyncio.Event()
        self._reconnected = False
        self._began = 0.0
        self._was_registered = False
        self._told: dict[str, str] = {}
        """The last reason by event, since the worker was registered."""
        self._ack_wait_s = 10.0
        self.registered = asyncio.Event()
        """Set while the worker is known to the server and pulls."""
        self.add(agents, tools)

    @property
    def agents(self) -> tuple[str, ...]:
        """Names of the agents that the worker runs."""
        return tuple(self._agents)

    def slots_held(self) -> dict[str, list[str]]:
        """What keeps slots though its work is over: names and places of code that does not stop, by kind (`agent`, `tool`)."""
        return {kind: bench.what_does_not_stop() for kind, bench in self._benches.items()}

    def add(self, agents: Iterable[type[Agent]], tools: Iterable[Tool[..., Any]]) -> None:
        """Take over more agents and tools. A worker that runs registers them.

        Raises:
            DefinitionError: one of them is not well-formed, or its name is taken.
        """
        for agent in agents:
            definition = describe_agent(agent)
            _put(self._agents, definition.name, agent)
            self._agent_definitions[definition.name] = definition
        for tool in tools:
            described = tool.describe()
            _put(self._tools, described.name, tool)
            self._tool_definitions[described.name] = described
        self._trouble.set()

    def show_problems(self, problems: Iterable[Problem]) -> None:
        """What cannot be used now of the files of users: the server shows it to operators while this worker runs."""
        self._problems = tuple(problems)
        self._trouble.set()

    async def report_problems_once(self) -> None:
        """Report the problems of a worker that has nothing to run, and never will: operators see them for three minutes."""
        try:
            async with asyncio.timeout(REPORT_WITHIN_S):
                await self._api.register(self.worker_id, (), (), NO_RETRY, self._problems)
        except (TidelogConnectionError, TidelogAPIError, TimeoutError) as error:
            log(logger, logging.WARNING, "problems_not_reported", reason=repr(error))
        finally:
            await self._transport.close()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; then finish the work that ends within `grace_s` seconds and give back the rest.

        Raises:
            RefusedError: the server refuses this worker.
        """
        self._began = asyncio.get_running_loop().time()
        session = asyncio.create_task(self._stay_registered(), name="session")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        watching = asyncio.create_task(going_on("loop watch", LoopWatch(self._in_hand).run), name="loop watch")
        try:
            await asyncio.wait({session, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if session.cancelled():
                raise RuntimeError("the worker's session was cancelled, and nobody who may had asked for it")
            if session.done():
                session.result()
        finally:
            await end_tasks(stopping, session)
            await self._shut_down()
            await end_tasks(watching)

    async def publish(self, subject: str, payload: bytes) -> None:
        """Publish on the present connection; see `Publisher`."""
        if self._nats is None:
            return
        try:
            await self._nats.publish(subject, payload)
        except (NatsError, OSError) as error:
            log(logger, logging.DEBUG, "publish_failed", subject=subject, reason=repr(error))

    async def _stay_registered(self) -> None:
        """Register, connect, pull; and again after any trouble. Pauses grow while the trouble lasts."""
        pause_s = 0.2
        while True:
            self._trouble.clear()
            if self._reconnected:  # a restarted server forgets the requests of the pullers
                self._reconnected = False
                queues = tuple(self._pullers)
                await self._set_pullers()
                await self._set_pullers(queues, self._ack_wait_s)
            try:
                registration = await self._register()
                await self._connect(registration)
                self._ack_wait_s = registration.ack_wait_s
                await self._set_pullers(registration.queues, self._ack_wait_s)
            except (TidelogConnectionError, TidelogAPIError, NatsError, OSError, TimeoutError) as error:
                self._tell("server_not_ready", error)
                await asyncio.sleep(random.uniform(pause_s / 2, pause_s))
                pause_s = min(pause_s * 2, MAX_PAUSE_S)
                continue
            self._told.clear()
            self._was_registered = True
            self.registered.set()
            if not await self._in_trouble():
                continue  # the server forgets a report of problems
            self.registered.clear()
            # Several queues are lost together: one registration and one line for all.
            await asyncio.sleep(random.uniform(0.1, 0.5))
            self._tell_lost()

    async def _in_trouble(self) -> bool:
        """Waits for trouble. False: it is time to report the problems again."""
        try:
            async with asyncio.timeout(REPORT_EVERY_S if self._problems else None):
                await self._trouble.wait()
        except TimeoutError:
            return False
        return True

    async def _register(self) -> Registration:
        agents, tools = self._agent_definitions.values(), self._tool_definitions.values()
        try:
            registration = await self._api.register(self.worker_id, list(agents), list(tools), NO_RETRY, self._problems)
        except (AuthenticationError, PermissionDeniedError, InvalidRequestError) as error:
            faults = "; ".join(f"{fault.get('pointer')}: {fault.get('detail')}" for fault in error.errors)
            raise RefusedError(f"the server refuses this worker: {error} {faults}".rstrip()) from error
        log(
            logger,
            logging.INFO,
            "worker_registered",
            worker_id=self.worker_id,
            agents=sorted(self._agents),
            tools=sorted(self._tools),
            **{f"{kind}_slots_held": bench.held for kind, bench in self._benches.items() if bench.held},
        )
        return registration

    async def _connect(self, registration: Registration) -> None:
        """Connect to NATS, or keep the present connection if it leads to the same server (it reconnects by itself)."""
        if self._nats is not None and self._nats_url == registration.nats.url and await _is_usable(self._nats):
            return
        old, self._nats = self._nats, None
        await self._set_pullers()
        if old is not None:
            await _close(old)
        servers = registration.nats.url.split(",")
        connection = SecuredClient(self._nats_security, require_tls=self._nats_security.asks_for_tls(servers))
        try:
            async with asyncio.timeout(NATS_CONNECT_S):
                await connection.connect(
                    servers,
                    name=f"tidelog-worker {self.worker_id}",
                    inbox_prefix=registration.nats.inbox_prefix,
                    allow_reconnect=True,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=1,
                    connect_timeout=5,
                    ping_interval=10,
                    max_outstanding_pings=2,
                    error_cb=self._on_error,
                    disconnected_cb=partial(self._on_disconnect, connection),
                    reconnected_cb=self._on_reconnect,
                    closed_cb=partial(self._on_closed, connection),
                    **connection.security_options(),
                )
        except BaseException:
            await _close(connection)
            raise
        self._nats, self._nats_url = connection, registration.nats.url

    async def _set_pullers(self, queues: Iterable[Queue] = (), ack_wait_s: float = 10.0) -> None:
        wanted = set(queues)
        stopped = [self._pullers.pop(queue) for queue in list(self._pullers) if queue not in wanted or self._pullers[queue].done()]
        await end_tasks(*stopped)
        for queue in wanted - set(self._pullers):
            if self._nats is None or not self._serves(queue):
                continue
            puller = Puller(self._nats, queue, self, self._benches[queue.kind], self._on_lost, ack_wait_s)
            task = asyncio.create_task(puller.run(), name=f"pull {queue.kind} {queue.pool}")
            task.add_done_callback(partial(self._on_puller_end, queue))
            self._pullers[queue] = task

    def _serves(self, queue: Queue) -> bool:
        return queue.pool in (self._agents if queue.kind == "agent" else self._tools)

    def _on_lost(self, queue: Queue, reason: str) -> None:
        self._lost.setdefault(reason, []).append(f"{queue.kind} {queue.pool}")
        self._trouble.set()

    def _tell_lost(self) -> None:
        for reason, queues in self._lost.items():
            log(logger, logging.WARNING, "queue_lost", queues=sorted(set(queues)), reason=reason)
        self._lost.clear()

    def _in_hand(self) -> set[str]:
        return set().union(*(bench.in_hand for bench in self._benches.values()))

    def _on_puller_end(self, queue: Queue, task: "asyncio.Task[None]") -> None:
        """A puller that was not stopped on purpose is made again with the next registration, however it ended."""
        if self._pullers.get(queue) is not task:
            return
        error = asyncio.CancelledError() if task.cancelled() else task.exception() or RuntimeError("it returned")
        log_failure(logger, "puller_ended", error, task=task.get_name())
        self._trouble.set()

    async def _on_error(self, error: Exception) -> None:
        self._tell("nats_error", error)

    def _tell(self, event: str, error: Exception) -> None:
        """Log a warning. During an outage each attempt brings the same warning: the repetitions are logged at level debug.

        During a start: one line of level info.
        """
        reason = f"{type(error).__name__}: {error}"
        if not self._was_registered and asyncio.get_running_loop().time() < self._began + START_S:
            event, reason, level = "waiting_for_server", "", logging.INFO
        else:
            level = logging.WARNING
        repeated = self._told.get(event) == reason
        self._told[event] = reason
        log(logger, logging.DEBUG if repeated else level, event, **({"reason": reason} if reason else {}))

    async def _on_disconnect(self, connection: SecuredClient) -> None:
        if self._nats is connection:  # otherwise the worker closes it, or has not taken it into use yet
            log(logger, logging.WARNING, "nats_disconnected")
        if self._nats in (connection, None):
            self._trouble.set()

    async def _on_reconnect(self) -> None:
        log(logger, logging.INFO, "nats_reconnected")
        self._reconnected = True
        self._trouble.set()

    async def _on_closed(self, connection: SecuredClient) -> None:
        """The connection closed for good, not on our request: the worker has to make another one."""
        if self._nats is connection:
            log(logger, logging.WARNING, "nats_closed")
            self._trouble.set()

    async def _shut_down(self) -> None:
        await self._set_pullers()
        busy = {kind: bench.busy for kind, bench in self._benches.items()}
        held = {f"{kind}_slots_held": bench.held for kind, bench in self._benches.items() if bench.held}
        log(logger, logging.INFO, "worker_stopping", worker_id=self.worker_id, **busy, **held)
        await asyncio.gather(*(bench.finish(self._grace_s) for bench in self._benches.values()), self._withdraw_problems())
        connection, self._nats = self._nats, None
        if connection is not None:
            await _close(connection)
        await self._transport.close()

    async def _withdraw_problems(self) -> None:
        """A worker that has ended has no problems. Without an answer the report expires by itself."""
        if not (self._problems and self._nats_url):
            return
        try:
            async with asyncio.timeout(WITHDRAW_S):
                await self._api.register(self.worker_id, (), (), NO_RETRY)
        except (TidelogConnectionError, TidelogAPIError, TimeoutError) as error:
            log(logger, logging.DEBUG, "problems_not_withdrawn", reason=repr(error))


def _put(things: dict[str, T], name: str, thing: T) -> None:
    if name in things:
        raise DefinitionError("invalid-name", f"two of one name: {name!r}")
    things[name] = thing


async def _is_usable(connection: SecuredClient) -> bool:
    """Whether the client is worth keeping. A client that has lost its connection is: it reconnects by itself, or closes."""
    if connection.is_closed:
        return False
    if not connection.is_connected:
        return True
    try:
        await connection.flush(timeout=NATS_ANSWER_S)  # type: ignore[arg-type]  # any number of seconds
    except (NatsError, OSError) as error:
        log(logger, logging.WARNING, "nats_does_not_answer", reason=repr(error))
        return not connection.is_connected
    return True


async def _close(connection: SecuredClient) -> None:
    """Flush acknowledgements that are still in the buffer, then close; a server that is away must not delay the end."""
    try:
        async with asyncio.timeout(3):
            if connection.is_connected:
                await connection.flush(timeout=2)
            await connection.close()
    except Exception as error:  # noqa: BLE001  # logged; whatever prevents the close, nobody needs the connection any more
        log(logger, logging.DEBUG, "nats_close_failed", reason=repr(error))
        connection.abandon()
