"""All sessions whose connections this process has: beats, silence, leases, keys."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

import structlog

from application.engine.background import OnDemand, side_by_side
from application.engine.commands.loop import CommandLoop
from application.engine.leases import SessionPresence
from application.engine.ports.log import EventFeed
from application.engine.ports.outcomes import OutcomeCounts
from application.engine.ports.permits import PermitBook, PermitNews
from application.engine.ports.queue import WorkQueue
from application.engine.ports.sessions import SEEN_EVERY_S, WorkerSessions
from application.engine.reading.live import LiveFeed
from application.engine.retry import persistently
from application.reads import DataToolReads
from application.workers import Workers
from application.workers.claimed import ClaimedWork
from application.workers.hosting.breakers import Breakers
from application.workers.hosting.dispatch import Dispatcher
from application.workers.hosting.gates import LimitGates
from application.workers.hosting.handover import Handover
from application.workers.hosting.logs import LogIntake
from application.workers.hosting.peer import Peer
from application.workers.hosting.served import ServedTools, VersionDefinitions
from application.workers.hosting.session import Facilities, HostedSession, Visitor
from domain import tenants
from domain.errors import Unauthenticated, Unavailable

log = structlog.get_logger(__name__)

TICK_S = 1.0
BEAT_S = 2.5
"""The server says something at least every `BEAT_S` and a tick. A worker that hears nothing for 4.5 s opens another connection."""
SILENCE_S = 15.0
HELLO_S = 5.0
GREETED_AT_ONCE = 50
"""Workers that are given their sessions side by side. The others wait for their turns: thousands may come back at once."""
SEEN_TIMEOUT_S = 2.5
PROBLEMS_EVERY_S = 60.0
"""Seconds between two reports of files that a worker cannot use. A report expires after three minutes."""


class SessionHost:
    """All sessions whose connections this process has. `run` must run while there are sessions."""

    def __init__(
        self,
        workers: Workers,
        commands: CommandLoop,
        queue: WorkQueue,
        live: LiveFeed,
        sessions: WorkerSessions,
        presence: SessionPresence,
        logs: LogIntake,
        feed: EventFeed,
        tools: DataToolReads,
        outcomes: OutcomeCounts,
        permits: PermitBook,
        permit_news: PermitNews,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        told: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`now`: the time of day. `told`: is told what this process does with breakers, for metrics."""
        self.workers = workers
        self.commands = commands
        self.live = live
        self.sessions = sessions
        self._logs = logs
        self._clock = clock
        self.breakers = Breakers(commands, live, outcomes, clock=now, changed=told)
        workers.invocations.ended = self.breakers.heard
        self.gates = LimitGates(permits, permit_news, commands, live, clock)
        workers.invocations.told_to_wait = self.gates.hold
        self.dispatcher: Dispatcher[HostedSession] = Dispatcher(workers, commands, queue, self.breakers, self._heir, self.gates)
        commands.hand_over_to(Handover(workers, self.dispatcher))
        turns = asyncio.Semaphore(GREETED_AT_ONCE)
        self._claimed = ClaimedWork(sessions, feed, live, commands.registry)
        self.served = ServedTools(tools, feed, live, commands)
        self._facilities = Facilities(
            workers, commands, live, sessions, self.dispatcher, logs, self._claimed, self.served, VersionDefinitions(commands),
            clock, turns, self._add, self._remove,
        )  # fmt: skip
        self.connected: set[HostedSession] = set()
        """Also those that have not said hello."""
        self._by_id: dict[UUID, HostedSession] = {}
        self._opened = asyncio.Event()
        """Set when a worker connects."""
        self._needed = asyncio.Event()
        """Set when leases are to be kept."""
        self._any_session = True
        """Whether any process has a session, as far as this process knows."""
        self._keys_watched: dict[UUID, Callable[[], None]] = {}
        """Tenant → the function that ends the watch of its keys."""
        self._keys_changed: set[UUID] = set()
        self._key_check = OnDemand(self._check_keys, "check-keys-of-sessions")
        self._needed.set()
        presence.call(self._sessions_somewhere)

    # --- connections ------------------------------------------------------------------------------------------------------------

    def open(self, visitor: Visitor, peer: Peer) -> HostedSession:
        """A worker has connected. The caller calls `take` for what the worker says, and `close` at the end."""
        session = HostedSession(self._facilities, visitor, peer)
        self.connected.add(session)
        tenant_id = session.tenant_id
        if tenant_id not in self._keys_watched:
            self._keys_watched[tenant_id] = self.live.call(
                tenant_id,
                frozenset({tenants.ApiKeyRevoked.TOPIC, tenants.ApiKeyRotated.TOPIC}),
                lambda _: self._key_changed(tenant_id),
            )
        self._key_changed(tenant_id)  # the read model that let the worker in may be behind, and the key may expire
        self._opened.set()
        self._needed.set()
        return session

    def _add(self, session: HostedSession) -> None:
        """A worker has been given its session. An older connection of the same session is ended."""
        assert session.session is not None
        before = self._by_id.get(session.session.session_id)
        self._by_id[session.session.session_id] = session
        if before is not None:
            before.replace()

    def _remove(self, session: HostedSession) -> None:
        """The connection of a session is over."""
        self.connected.discard(session)
        if session.session is not None and self._by_id.get(session.session.session_id) is session:
            del self._by_id[session.session.session_id]
        if not any(other.tenant_id == session.tenant_id for other in self.connected):
            self._keys_watched.pop(session.tenant_id, lambda: None)()

    def _heir(self, session: HostedSession) -> HostedSession | None:
        """The session that a worker has on its present connection."""
        assert session.session is not None
        found = self._by_id.get(session.session.session_id)
        return None if found is session or found is None or found.is_over else found

    def free(self, kind: str) -> int:
        """Free slots of all sessions for work of a kind."""
        return sum(session.free(kind) for session in self._by_id.values())

    # --- the loop ---------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Beats, watches for silence, renews the leases. Raises TaskEnded if the task of a pool has ended by itself.

        The beats do not wait for the database: a worker that hears nothing for some seconds opens another connection.
        """
        await side_by_side(self._watch_connections(), self._keep_leases())

    async def _watch_connections(self) -> None:
        while True:
            if not self.connected:
                self._opened.clear()
                await self._opened.wait()
            self.dispatcher.check()
            self.tick(self._clock())
            await asyncio.sleep(TICK_S)

    async def _keep_leases(self) -> None:
        reported = -PROBLEMS_EVERY_S
        while True:
            if not self.connected and not self._any_session:
                self._needed.clear()
                await self._needed.wait()
            self.dispatcher.check()
            began = self._clock()
            await self.renew()
            if began - reported >= PROBLEMS_EVERY_S:
                reported = began
                await self.report_problems()
            await asyncio.sleep(max(0.0, SEEN_EVERY_S - (self._clock() - began)))

    def tick(self, now: float) -> None:
        """Beats for workers that have heard nothing for a while, and ends the connections of silent workers."""
        at = datetime.now(UTC)
        for session in list(self.connected):
            if session.key_expires_at is not None and session.key_expires_at <= at:
                session.revoke(Unauthenticated("the API key has expired"))
            session.tick(now, beat_s=BEAT_S, silence_s=SILENCE_S, hello_s=HELLO_S)

    def _sessions_somewhere(self) -> None:
        """Workers have sessions: this process says that it takes sessions, or theirs would not lapse once their process is gone."""
        self._any_session = True
        self._needed.set()

    async def renew(self) -> None:
        """Renews the leases of all sessions, with one statement. An outage is waited out: nobody loses a session meanwhile."""
        mine = {id: session for id, session in self._by_id.items() if not session.is_over}
        try:
            async with asyncio.timeout(SEEN_TIMEOUT_S):
                seen = await self.sessions.seen(list(mine))
        except (Unavailable, TimeoutError) as error:
            log.warning("sessions_not_renewed", sessions=len(mine), error=str(error) or "no answer in time")
            return
        await self._renew_permits()
        self._any_session = seen.any_session
        for id, session in mine.items():
            if id not in seen.kept and self._by_id.get(id) is session:
                log.info("session_gone", session_id=str(id))  # it is at another process now, or was lost
                session.replace()

    async def _renew_permits(self) -> None:
        try:
            async with asyncio.timeout(SEEN_TIMEOUT_S):
                await self.gates.renew()
        except (Unavailable, TimeoutError) as error:
            log.warning("permits_not_renewed", error=str(error) or "no answer in time")

    async def report_problems(self) -> None:
        """Repeats what workers report about files that they cannot use."""
        for session in list(self._by_id.values()):
            if session.session is not None and session.problems and not session.is_over:
                try:
                    async with asyncio.timeout(SEEN_TIMEOUT_S):
                        await self.workers.registration.report(session.tenant_id, session.session.worker_id, session.problems)
                except (Unavailable, TimeoutError) as error:
                    log.debug("problems_not_reported", error=str(error) or "no answer in time")

    # --- keys -------------------------------------------------------------------------------------------------------------------

    def _key_changed(self, tenant_id: UUID) -> None:
        self._keys_changed.add(tenant_id)
        with contextlib.suppress(Unavailable):
            self._key_check.start()

    async def _check_keys(self) -> None:
        while self._keys_changed:
            tenant_id = self._keys_changed.pop()
            state: tenants.Tenant = (
                await persistently(lambda: self.commands.load(tenants.DECIDER, tenant_id, tenant_id))  # noqa: B023  # called at once
            ).state
            for session in [one for one in self.connected if one.tenant_id == tenant_id]:
                key = state.keys.get(session.key_id)
                if key is None:
                    session.revoke(Unauthenticated("the API key is not valid any more"))
                else:
                    session.key_expires_at = key.expires_at

    # --- the end ----------------------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """The process stops: tells all workers."""
        for session in list(self.connected):
            session.drain()

    async def close(self) -> None:
        """Ends all pulls and claims. The connections are over."""
        self.commands.hand_over_to(None)
        await self._key_check.close()
        await self.dispatcher.close()
        self.workers.invocations.ended = None
        await self.breakers.close()
        await self._claimed.close()
        await self.served.close()
        await self._logs.close()
        for unwatch in self._keys_watched.values():
            unwatch()
        self._keys_watched = {}
        try:
            async with asyncio.timeout(SEEN_TIMEOUT_S):
                await self.gates.close()
                await self.sessions.withdraw()
        except (Unavailable, TimeoutError) as error:
            log.info("not_withdrawn", error=str(error) or "no answer in time")
