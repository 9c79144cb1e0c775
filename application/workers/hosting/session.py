"""One worker's session as this process hosts it: hello, definitions, free slots, work, reports, and the end."""

import asyncio
import secrets
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import structlog

from application.engine.background import end
from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import Caller, CommandRequest
from application.engine.ports.problems import WorkerProblem
from application.engine.ports.sessions import LEASE_S, WorkerSession, WorkerSessions
from application.engine.reading.live import LiveFeed
from application.engine.retry import persistently
from application.workers import Workers
from application.workers.claimed import ClaimedWork
from application.workers.hosting.answering import Answering
from application.workers.hosting.credit import KINDS, Slots
from application.workers.hosting.dispatch import Dispatcher
from application.workers.hosting.hand import Hand
from application.workers.hosting.hands import Hands
from application.workers.hosting.logs import LogIntake
from application.workers.hosting.messages import (
    VERSION,
    Define,
    Defined,
    Definitions,
    Drain,
    FreeSlots,
    Hello,
    Leaving,
    LifeSign,
    Log,
    MalformedMessage,
    NoCommonVersion,
    Saying,
    SilentWorker,
    TooManySessions,
    TooMuchUnanswered,
    Verdict,
    Welcome,
    WorkForAgent,
    WorkForTool,
)
from application.workers.hosting.offering import Offering
from application.workers.hosting.peer import Peer
from application.workers.hosting.served import ServedTools, VersionDefinitions
from application.workers.hosting.taking_back import TakingBack
from application.workers.registering import Offer, refused_definition
from application.workers.sessions import Claimed, ClaimedCall
from domain.errors import TidelogError
from domain.kernel import Json

log = structlog.get_logger(__name__)

MOST_OF_KEY, MOST_OF_TENANT = 2_000, 10_000
"""Sessions of one API key and of one tenant, over all processes."""
MAX_OPEN = 1_024
"""Reports of one session that may wait for their answers."""
MAX_OPEN_BYTES = 4 * 1024 * 1024
DRAIN_S = 3.0
"""Seconds that reports under way may take when the process stops."""
CLOSE_S = 2.0
"""Seconds that reports under way may take after their connection is lost."""


@dataclass(frozen=True, slots=True)
class Offers:
    """The definitions of a worker, read: each is an offer or an error."""

    agents: Sequence[Offer]
    tools: Sequence[Offer]
    problems: Sequence[WorkerProblem]


@dataclass(frozen=True, slots=True)
class Visitor:
    """Whose connection it is, and how its definitions are read."""

    caller: Caller
    key_id: UUID
    new_request: Callable[[], CommandRequest]
    """The request of one command, with a new id."""
    read: Callable[[Definitions], Offers]


@dataclass(frozen=True, slots=True)
class Facilities:
    """What all sessions of a process share."""

    workers: Workers
    commands: CommandLoop
    live: LiveFeed
    sessions: WorkerSessions
    dispatcher: "Dispatcher[HostedSession]"
    logs: LogIntake
    claimed: ClaimedWork
    served: ServedTools
    definitions: VersionDefinitions
    clock: Callable[[], float]
    turns: asyncio.Semaphore
    """Taken by each session while its worker is given it."""
    welcomed: "Callable[[HostedSession], None]"
    """Called when a worker has been given its session."""
    gone: "Callable[[HostedSession], None]"
    """Called when the connection is over."""


class HostedSession:
    """A session from the first message to the end of its connection.

    The connection calls `take` for each message, and `close` at the end. Everything that waits is done by tasks of the session.
    """

    def __init__(self, shared: Facilities, visitor: Visitor, peer: Peer) -> None:
        self._shared = shared
        self._workers = shared.workers
        self._visitor = visitor
        self._peer = peer
        self.caller = visitor.caller
        self.key_id = visitor.key_id
        self.key_expires_at: datetime | None = None
        self.tenant_id = visitor.caller.tenant_id
        self.session: WorkerSession | None = None
        """None: the worker has not been welcomed."""
        self.heard_at = shared.clock()
        self.problems: Sequence[WorkerProblem] = ()
        self.is_over = False
        self.hands = Hands(shared.commands, shared.workers.journals, shared.live, self.tenant_id, peer, self._start)
        """The work that the worker has."""
        self.slots = Slots(partial(shared.dispatcher.credit_grew, self), partial(shared.dispatcher.starved, self))
        """The free slots that the worker has told, also while this session gets no work."""
        self.number = 0
        """Of the last work that was sent."""
        self._greeting = self._open = self._draining = False
        self._offering = Offering(self, shared.dispatcher, shared.workers.registration, shared.served, self._offers_changed)
        self._telling_offered = False
        answering = Answering(shared.workers, shared.commands, self.caller, peer, self.hands, self._session_id)
        self._lanes = answering.lanes
        claiming = shared.dispatcher.claiming
        self._taking_back = TakingBack(
            self, peer, shared.workers.sessions, shared.claimed, claiming, self._lanes.waits, self._start
        )  # fmt: skip
        self._defining = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._farewell: asyncio.Task[None] | None = None
        """The worker has said that it leaves."""

    # --- what the worker says -------------------------------------------------------------------------------------------------

    def take(self, said: Saying, size: int) -> None:
        """Takes a message of `size` bytes. Raises MalformedMessage."""
        self.heard_at = self._shared.clock()
        match said:
            case LifeSign():
                return
            case Hello():
                if self._greeting:
                    raise MalformedMessage("a worker says hello once on a connection")
                self._greeting = True
                self._start(self._greet(said), "greet")
            case _ if not self._open:
                raise MalformedMessage(f"'{said.t}' came before the worker was welcomed")
            case FreeSlots():
                self.slots.tell(said, self.number)
            case Define():
                self._start(self._define(said), "define")
            case Leaving():
                self._farewell = self._start(self._leave(), "leave")
            case Log():
                assert self.session is not None
                self._shared.logs.take(self.tenant_id, self.session.session_id, said, size)
            case _:
                self._lanes.put(said, size)
                if self._lanes.open > MAX_OPEN or self._lanes.bytes > MAX_OPEN_BYTES:
                    what = f"{self._lanes.open:,} reports of {self._lanes.bytes:,} bytes have no answer yet"
                    self._peer.end("too-much", TooMuchUnanswered(f"{what}: a worker waits for answers"))

    @property
    def greeted(self) -> bool:
        """Whether the worker has said hello."""
        return self._greeting

    async def _greet(self, hello: Hello) -> None:
        if VERSION not in hello.versions:
            self._peer.end("no-version", NoCommonVersion(f"the server speaks version {VERSION} of the protocol"))
            return
        offers = self._visitor.read(hello)
        async with self._shared.turns:
            await self._let_in(hello, offers)

    async def _let_in(self, hello: Hello, offers: Offers) -> None:
        """Gives the worker its session and the work that is its own."""
        session, secret, resumed = await self._opened(hello)
        if session is None:
            self._peer.end("unavailable", TooManySessions("the API key or the tenant has all the sessions that it may have"))
            return
        await persistently(self._workers.sessions.tokens.ready)
        self.session = session
        self._shared.welcomed(self)
        agents, tools = await self._defined(offers)
        self._open = True
        self._offering.serve(hello.serves)
        self._peer.put(Welcome(session.session_id, secret, LEASE_S, agents, tools))
        log.info("worker_welcomed", worker=session.worker_id, session_id=str(session.session_id), resumed=resumed)
        await self._taking_back.take(hello.work)
        if resumed:
            await self._taking_back.send_claimed()

    async def _opened(self, hello: Hello) -> tuple[WorkerSession | None, str, bool]:
        """The session, its secret, and whether the worker had the session before. No session: there are too many."""
        port, tenant_id = self._shared.sessions, self.tenant_id
        if hello.session is not None and hello.secret:
            known_id, secret = hello.session, hello.secret
            known = await persistently(lambda: port.resume(tenant_id, known_id, secret, hello.incarnation))
            if known is not None:
                return known, secret, True
        secret = secrets.token_urlsafe(24)
        session = WorkerSession(uuid4(), tenant_id, hello.worker, self.caller.actor, hello.incarnation, hello.release)
        opened = await persistently(lambda: port.open(session, secret, most_of_actor=MOST_OF_KEY, most_of_tenant=MOST_OF_TENANT))
        return (session if opened else None), secret, False

    async def _define(self, said: Define) -> None:
        agents, tools = await self._defined(self._visitor.read(said))
        self._peer.put(Defined(said.id, agents, tools))

    async def _defined(self, offers: Offers) -> tuple[Sequence[Verdict], Sequence[Verdict]]:
        """Registers the whole set of the worker's definitions, and offers what is accepted."""
        async with self._defining:
            assert self.session is not None
            worker_id, registration = self.session.worker_id, self._workers.registration
            verdicts = []
            problems = list(offers.problems)
            for kind, given in (("agent", offers.agents), ("tool", offers.tools)):
                registered = await registration.each(self._visitor.new_request, kind, given)
                if not self.is_over and not self._draining:
                    accepted = {queue.pool: offer.version or "" for offer, queue, _ in registered if queue is not None}
                    self._offering.announce(kind, accepted)
                    if kind == "tool":
                        self._offer_to_ask([offer for offer, queue, _ in registered if queue is not None])
                verdicts.append([Verdict(offer.name, offer.version, error) for offer, _, error in registered])
                problems += [refused_definition(kind, offer.name, error) for offer, _, error in registered if error is not None]
            self.problems = problems
            await persistently(lambda: registration.report(self.tenant_id, worker_id, problems))
            await self._tell_offered()
            return verdicts[0], verdicts[1]

    async def _tell_offered(self) -> None:
        """Writes down what the session offers."""
        if not self.is_over and not self._draining and self.session is not None:
            told, session_id = self._offering.told, self.session.session_id
            await persistently(lambda: self._shared.sessions.offer(session_id, told))

    def _offers_changed(self) -> None:
        if not self._telling_offered:  # once for several changes
            self._telling_offered = True
            self._start(self._tell_changes(), "offers")

    async def _tell_changes(self) -> None:
        async with self._defining:
            self._telling_offered = False
            await self._tell_offered()

    def _offer_to_ask(self, accepted: Sequence[Offer]) -> None:
        """Offers the `reconcile` functions of accepted tools. Workers that know of no such functions get no such work."""
        able = {offer.name: offer.version or "" for offer in accepted if offer.name is not None and offer.can_tell}
        self._offering.announce("reconcile", able)

    async def _leave(self) -> None:
        assert self.session is not None
        session_id = self.session.session_id
        self._withdraw()
        await self._lanes.idle.wait()
        await persistently(lambda: self._shared.sessions.end([session_id]))
        self._peer.end("left")

    # --- free slots -----------------------------------------------------------------------------------------------------------

    def free(self, kind: str) -> int:
        """Free slots for work of a kind."""
        return 0 if self._draining or self.is_over or self._peer.is_crowded else self.slots.free(kind)

    def offered(self, kind: str) -> Collection[str]:
        """The names of the agents or tools that this session offers."""
        return self._offering.of(kind)

    def relieved(self) -> None:
        """What waited to be sent has been sent: work may be added again."""
        for kind in KINDS:
            self._shared.dispatcher.credit_grew(self, kind)

    # --- work -----------------------------------------------------------------------------------------------------------------

    def hand_over(self, hand: Hand, claimed: Claimed, *, reserved: bool) -> None:
        """Sends claimed work. `reserved`: a slot was kept for it."""
        definition: Json = None
        if isinstance(claimed, ClaimedCall) and self._offering.defines(claimed):
            definition = self._shared.definitions.known(self.tenant_id, claimed.tool, claimed.tool_version or "")
            if definition is None:
                self._start(self._hand_over_defined(hand, claimed, reserved=reserved), "definition")
                return
        self._send(hand, claimed, definition, reserved=reserved)

    async def _hand_over_defined(self, hand: Hand, claimed: ClaimedCall, *, reserved: bool) -> None:
        """Sends a call whose definition has to be loaded: of an earlier version, or of a tool that was removed meanwhile."""
        load, version = self._shared.definitions.load, claimed.tool_version or ""
        try:
            definition = await persistently(lambda: load(self.tenant_id, claimed.tool, version))
        except BaseException:
            hand.drop()
            raise
        if self.is_over:  # the worker gets the work when it comes back, or the claim lapses with the session
            hand.drop()
        else:
            self._send(hand, claimed, definition, reserved=reserved)

    def _send(self, hand: Hand, claimed: Claimed, definition: Json, *, reserved: bool) -> None:
        assert self.session is not None
        self.number += 1
        self.slots.sent(hand.kind, self.number, reserved=reserved)
        hand.attempt = claimed.attempt
        hand.token = self._workers.sessions.tokens.token_of(hand.work_id, claimed.attempt, self.session.session_id)
        alone = not self.hands.held and not self._lanes.open
        if isinstance(claimed, ClaimedCall):
            self._peer.put(WorkForTool(self.number, hand.work_id, hand.token, claimed, definition), alone=alone)
        else:
            hand.seen, hand.paging = claimed.journal.version, claimed.journal.more
            self._peer.put(WorkForAgent(self.number, hand.work_id, hand.token, claimed), alone=alone)
        self.hands.hold(hand)

    def _session_id(self) -> UUID:
        assert self.session is not None
        return self.session.session_id

    # --- the end --------------------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """The process stops: no more work is sent, and the connection ends when nothing waits for an answer."""
        if self._draining or self.is_over:
            return
        self._withdraw()
        if not self._open:
            self._peer.end("stopping")
            return
        self._peer.put(Drain(DRAIN_S), urgent=True)
        self._start(self._drained(), "drain")

    async def _drained(self) -> None:
        try:
            async with asyncio.timeout(DRAIN_S):
                await self._lanes.idle.wait()
        except TimeoutError:
            log.info("drained_with_open_reports", open=self._lanes.open)
        self._peer.end("stopping")

    def revoke(self, error: TidelogError) -> None:
        """The key is not valid any more."""
        self._withdraw()
        self._peer.end("key", error)

    def tick(self, now: float, *, beat_s: float, silence_s: float, hello_s: float) -> None:
        """Looks at the times of the connection."""
        silent_s = now - self.heard_at
        if silent_s >= (silence_s if self._greeting else hello_s):
            what = "nothing came" if self._greeting else "no hello came"
            self._peer.end("silent", SilentWorker(f"{what} for {silent_s:.0f} s"))
        elif now - self._peer.sent_at >= beat_s:
            self._peer.put(LifeSign(), urgent=True)

    def replace(self) -> None:
        """The worker has come back on another connection: this one gets no work and hears of no work any more."""
        self._withdraw()
        self.hands.let_go()
        self._peer.end("replaced")

    def _withdraw(self) -> None:
        self._draining = True
        self._offering.withdraw()

    async def close(self) -> None:
        """The connection is over. What the worker holds stays its own until its lease is over."""
        self.is_over = True
        self._withdraw()
        self.hands.let_go()
        self.slots.close()
        self._taking_back.close()
        self._shared.gone(self)
        await self._lanes.close(CLOSE_S)
        if self._farewell is not None and not self._farewell.done():  # a worker may close right after it said that it leaves
            await asyncio.wait({self._farewell}, timeout=CLOSE_S)
        await end(*self._tasks)

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(self._guarded(work), name=f"session-{name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: work.close())  # of a task that was ended before its first turn
        return task

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            log.exception("session_failed")
            self._peer.end("unavailable", error if isinstance(error, TidelogError) else None)
