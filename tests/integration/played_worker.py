"""A worker that the test plays, over one session on a real connection."""

import asyncio
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

import httpx2
import nats.errors
import orjson
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from application.engine.ports.queue import WorkItem
from application.engine.ports.sessions import HeldWork
from application.workers.hosting.session import HostedSession
from application.workers.registering import MAX_PENDING
from domain.failures import LapseReason
from domain.runs import agent_run_id_of
from tests.integration.nats_kit import consumer_of
from tests.integration.session_kit import PATIENCE_S, Message, SocketWorker, worker_at
from tests.pace import ANSWER_S, Deadline, within

if TYPE_CHECKING:
    from tests.integration.system_kit import System

ASKED_S = 3.0
"""For a request of the queue, which a NATS server that is killed loses."""


@dataclass(frozen=True, slots=True)
class Work:
    """A message of the work queue."""

    kind: str
    pool: str
    work_id: str
    dispatch: int
    message: Msg

    @property
    def delivery(self) -> int:
        return int(self.message.metadata.num_delivered)

    async def ack(self) -> None:
        await self.message.ack_sync(timeout=ANSWER_S)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a session answers to a report of its worker."""

    said: Message

    @property
    def status_code(self) -> int:
        """200 for `done`, else the status of the problem."""
        return 200 if self.said["t"] == "done" else int(self.said["problem"]["status"])

    def json(self) -> dict[str, Any]:
        """The fields of the answer, or the problem."""
        if self.said["t"] == "refused":
            return dict(self.said["problem"])
        return {name: value for name, value in self.said.items() if name not in ("t", "id")}

    @property
    def text(self) -> str:
        return repr(self.said)


@dataclass
class Claim:
    """An agent run or an invocation that the played worker holds."""

    worker: "PlayedWorker"
    kind: str
    work_id: str
    body: Message
    """The message `work` of the session."""
    work: Work | None = None

    @property
    def attempt(self) -> int:
        return int(self.body["attempt"])

    async def post(self, report: str, **fields: Any) -> Answer:
        """Says a report, by the name of its message."""
        socket = await self.worker.socket()
        return Answer(await socket.ask(self.body, report, **fields))

    async def ok(self, report: str, **fields: Any) -> dict[str, Any]:
        answer = await self.post(report, **fields)
        assert answer.status_code == 200, answer
        return answer.json()

    async def complete(self, result: Any = None) -> None:
        await self.ok("complete", result=result)

    async def fail(self, kind: str = "permanent", message: str = "broken", **error: Any) -> dict[str, Any]:
        return await self.ok("fail", error={"type": "TestError", "message": message, "kind": kind, **error})

    async def call(self, key: str, tool: str, **arguments: Any) -> str:
        return str((await self.ok("call", key=key, tool=tool, arguments=arguments))["invocation_id"])

    async def journal(self, after: int = 0) -> dict[str, Any]:
        """The first page of what is new after a version."""
        return await self.ok("more", after=after)

    async def stopped(self) -> str:
        """Waits until the worker is told to stop the work. Returns the reason."""
        return str((await (await self.worker.socket()).wait(t="stop", work=self.work_id, attempt=self.attempt))["reason"])

    async def lose(self, reason: LapseReason = "lost") -> None:
        """The server takes the work away, as from a worker that vanished."""
        hosted = await self.worker.hosted()
        assert hosted.session is not None
        where = hosted.tenant_id, self.kind, UUID(self.work_id), UUID(self.body["run"]), self.attempt
        await self.worker.system.container.workers.sessions.give_back(HeldWork(*where, hosted.session.session_id), reason)


@dataclass
class PlayedWorker:
    """A worker with one session, on one connection to a real HTTP server.

    It offers no free slots. The test pulls from the queue itself and claims what it wants for the session, at the moment that it
    chooses; the session hands the work over and takes the reports.
    """

    system: "System"
    worker_id: str
    http: httpx2.AsyncClient
    """A client with the key of the worker."""
    queues: dict[tuple[str, str], JetStreamContext.PullSubscription] = field(default_factory=dict)
    _offers: dict[tuple[str, str], Message] = field(default_factory=dict)
    _socket: SocketWorker | None = None
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def socket(self) -> SocketWorker:
        """The worker's connection, with its session."""
        async with self._opening:
            if self._socket is None:
                key = self.http.headers["authorization"].removeprefix("Bearer ")
                opened = worker_at(await self.system.url(), key, name=self.worker_id)
                self._socket = await self.system.opened.enter_async_context(opened)
                await self._socket.hello(self._named("agent"), self._named("tool"))
        return self._socket

    async def hosted(self) -> HostedSession:
        """The worker's session, as the server has it."""
        session = (await self.socket()).session
        [found] = [one for one in self.system.container.hosting.connected if one.session and str(one.session.session_id) == session]
        return found

    def _named(self, kind: str) -> list[Message]:
        return [offer for (of, _), offer in self._offers.items() if of == kind]

    async def register(self, *agents: Message | str, tools: Iterable[Message | str] = ()) -> None:
        """Offers further agents and tools. A refusal fails the test."""
        assert all(one["accepted"] for one in await self.define(*agents, tools=tools))
        await asyncio.gather(*map(self._bind, self._pools() - self.queues.keys()))

    def _pools(self) -> set[tuple[str, str]]:
        """The queues of all that is offered, also of the `reconcile` functions of tools."""
        able = {("reconcile", name) for (_, name), offer in self._offers.items() if offer.get("reconcile_timeout_s")}
        return self._offers.keys() | able

    async def bind(self) -> None:
        """Makes sure of all queues, as whoever pulls from a queue that was lost does."""
        await asyncio.gather(*map(self._bind, self._pools()))

    async def _bind(self, of: tuple[str, str]) -> None:
        kind, pool = of
        tenant_id, queues = (await self.hosted()).tenant_id, self.system.container.work_queue
        queue = await consumer_of(queues, tenant_id, kind, pool, max_pending=MAX_PENDING[kind])
        jetstream = self.system.nats.jetstream(timeout=ANSWER_S)
        self.queues[of] = await jetstream.pull_subscribe_bind(consumer=queue.consumer, stream=queue.stream)

    async def define(self, *agents: Message | str, tools: Iterable[Message | str] = ()) -> list[Message]:
        """Offers further agents and tools. Returns the verdicts on all."""
        told = self._socket is not None
        for kind, offers in (("agent", agents), ("tool", tools)):
            for one in offers:
                offer = {"name": one} if isinstance(one, str) else one
                self._offers[kind, offer["name"]] = offer
        socket = await self.socket()
        answer = await socket.define(self._named("agent"), self._named("tool")) if told else socket.welcome
        return [*answer["agents"], *answer["tools"]]

    async def withdraw(self, *agents: str) -> None:
        """Offers some agents no longer."""
        for name in agents:
            del self._offers["agent", name]
        await self.define()

    async def take(self, pool: str, kind: str = "agent", timeout_s: float = PATIENCE_S) -> Work:
        """Waits for the next message of a queue. Raises TimeoutError after the seconds of an idle machine."""
        deadline = Deadline(timeout_s)
        while True:
            try:
                [message] = await self.queues[kind, pool].fetch(1, timeout=min(ASKED_S, max(0.2, deadline.left_s)))
                break
            except nats.errors.TimeoutError:
                if await deadline.over():
                    raise
        body = orjson.loads(message.data)
        return Work(body["kind"], body["pool"], body["work_id"], body["dispatch"], message)

    async def nothing_to_take(self, pool: str, kind: str = "agent") -> bool:
        """Whether no message waits for this worker. The caller settles the system first."""
        info = await self.queues[kind, pool].consumer_info()
        return not info.num_pending

    async def try_claim(self, work_id: str, kind: str = "agent", dispatch: int = 1, claim: str = "") -> Claim | None:
        """Claims a dispatch for the session. `claim`: repeats of one claim have the same text. None: the claim came to nothing."""
        socket, hosted = await self.socket(), await self.hosted()
        assert hosted.session is not None
        hand = hosted.hands.new(kind, UUID(work_id))
        item = WorkItem(hosted.tenant_id, kind, "", UUID(work_id), dispatch, UUID(work_id))
        claim_id = uuid5(UUID(work_id), claim or secrets.token_hex(8))
        claimed = await self.system.container.workers.sessions.claim(hosted.caller, hosted.session, item, claim_id)
        if claimed is None:
            hand.drop()
            return None
        hosted.hand_over(hand, claimed, reserved=False)
        return Claim(self, kind, work_id, await socket.wait(t="work", work=work_id, attempt=claimed.attempt))

    async def claim(self, work_id: str, kind: str = "agent", dispatch: int = 1, claim: str = "") -> Claim:
        claimed = await self.try_claim(work_id, kind, dispatch, claim)
        assert claimed is not None
        return claimed

    async def next(self, pool: str, kind: str = "agent") -> Claim:
        """Takes the next work of a queue and claims it. What is over is acknowledged, and so is what was claimed."""
        while True:
            work = await self.take(pool, kind)
            claimed = await self.try_claim(work.work_id, kind, work.dispatch)
            assert claimed is not None or work.delivery > 1, work
            await work.ack()
            if claimed is not None:
                claimed.work = work
                return claimed

    async def as_if_held(self, kind: str, work_id: str, run_id: str, attempt: int) -> Claim:
        """An attempt with the token that the session would have, whether or not the session has the attempt."""
        hosted, tokens = await self.hosted(), self.system.container.workers.sessions.tokens
        assert hosted.session is not None
        token = tokens.token_of(UUID(work_id), attempt, hosted.session.session_id)
        return Claim(self, kind, work_id, {"work": work_id, "run": run_id, "attempt": attempt, "token": token})

    async def step(self, run_id: str, key: str) -> Claim:
        """Claims a step of a run without the queue. The step's agent run may not exist yet."""
        work_id = str(agent_run_id_of(UUID(run_id), key))
        async with within(PATIENCE_S):
            while True:
                if (claimed := await self.try_claim(work_id)) is not None:
                    return claimed
                await asyncio.sleep(0.01)
