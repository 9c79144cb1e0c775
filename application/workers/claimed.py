"""Which work sessions have claimed, as the log says: for workers that come back.

The read model of open work knows the claims up to its position. It may stand still for seconds: the process that was killed may
have been the one that copied the log. So the claims after its position are read from the log, and one look is exact.

A claim may still be recorded after the look. PostgreSQL carries out what a killed process has sent, and a living process that has
lost the worker's connection may be about to claim. Such claims are heard of when this process reads them in the log.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from uuid import UUID

from application.engine.background import OnDemand
from application.engine.ports.log import EventFeed
from application.engine.ports.sessions import HeldWork, WorkerSession, WorkerSessions
from application.engine.reading.live import LiveFeed
from domain.agent_runs import AgentRunClaimed
from domain.errors import Unavailable
from domain.event_registry import EventRegistry
from domain.invocations import AttemptStarted, InvocationReconcileStarted
from domain.kernel import RecordedEvent

IN_FLIGHT_S = 60.0
"""Seconds for which claims are listened for. No append is under way for longer."""
BEGUN_S = 5.0
"""Seconds that the reading of the log may take to begin."""
PAGE = 500
_KINDS = {AgentRunClaimed.TOPIC: "agent", AttemptStarted.TOPIC: "tool", InvocationReconcileStarted.TOPIC: "reconcile"}

Told = Callable[[HeldWork], None]
"""Takes a claim of a session. It must not wait."""


class ClaimedWork:
    """The claims of the sessions of one process. Sessions that ask at the same time share the questions to the database."""

    def __init__(self, sessions: WorkerSessions, feed: EventFeed, live: LiveFeed, registry: EventRegistry) -> None:
        self._sessions = sessions
        self._feed = feed
        self._live = live
        self._registry = registry
        self._asked: list[tuple[WorkerSession, asyncio.Future[list[HeldWork]]]] = []
        self._looking = OnDemand(self._look, "claims-of-sessions")
        self._told: dict[UUID, Told] = {}
        self._end_listening: Callable[[], None] | None = None

    async def of(self, session: WorkerSession) -> list[HeldWork]:
        """The work that the log gives a session at this moment. Some of it may be over. Raises Unavailable."""
        if not await self._live.begun(BEGUN_S):
            raise Unavailable("the log is not read yet")
        answer: asyncio.Future[list[HeldWork]] = asyncio.get_running_loop().create_future()
        self._asked.append((session, answer))
        self._looking.start()
        return await answer

    def follow(self, session_id: UUID, told: Told) -> Callable[[], None]:
        """Calls `told` for each claim of a session that this process reads in the log from now on, for `IN_FLIGHT_S`.

        Returns the function that ends this before.
        """
        self._told[session_id] = told
        if self._end_listening is None:
            self._end_listening = self._live.overhear(self._hear)
        ended = partial(self._unfollow, session_id, told)
        timer = asyncio.get_running_loop().call_later(IN_FLIGHT_S, ended)

        def end() -> None:
            timer.cancel()
            ended()

        return end

    async def close(self) -> None:
        await self._looking.close()

    def _unfollow(self, session_id: UUID, told: Told) -> None:
        if self._told.get(session_id) is told:
            del self._told[session_id]
        if not self._told and self._end_listening is not None:
            self._end_listening()
            self._end_listening = None

    def _hear(self, events: Sequence[RecordedEvent]) -> None:
        for work in self._claims(events):
            if (told := self._told.get(work.session_id)) is not None:
                told(work)

    async def _look(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, []
            try:
                found = await self._find([session for session, _ in asked])
            except Exception as error:  # noqa: BLE001  # those who asked get the error
                for _, answer in asked:
                    if not answer.done():
                        answer.set_exception(error.with_traceback(None))
            else:
                for session, answer in asked:
                    if not answer.done():
                        answer.set_result(found[session.session_id])

    async def _find(self, sessions: Sequence[WorkerSession]) -> dict[UUID, list[HeldWork]]:
        known = await self._sessions.held_by([session.session_id for session in sessions])
        found: dict[UUID, dict[UUID, HeldWork]] = {session.session_id: {} for session in sessions}
        for work in known.work:
            found[work.session_id][work.work_id] = work
        for tenant_id in {session.tenant_id for session in sessions}:
            for work in await self._after(tenant_id, known.position, found.keys()):
                found[work.session_id][work.work_id] = work
        return {session_id: list(work.values()) for session_id, work in found.items()}

    async def _after(self, tenant_id: UUID, position: int, session_ids: Collection[UUID]) -> list[HeldWork]:
        """The claims of sessions of a tenant after a position."""
        found: list[HeldWork] = []
        while True:
            page = await self._feed.read_tenant(tenant_id, after=position, limit=PAGE, topics=list(_KINDS))
            found += [work for work in self._claims(page) if work.session_id in session_ids]
            if len(page) < PAGE:
                return found
            position = page[-1].position

    def _claims(self, events: Iterable[RecordedEvent]) -> Iterable[HeldWork]:
        for event in events:
            if (kind := _KINDS.get(event.topic)) is not None:
                claim = self._registry.decode(event.topic, event.schema_version, event.state)
                assert isinstance(claim, AgentRunClaimed | AttemptStarted | InvocationReconcileStarted)
                if claim.session_id is not None:
                    yield HeldWork(event.tenant_id, kind, event.stream_id, event.root_id, claim.attempt, claim.session_id)
