"""A hosted session over the ports in memory, and a worker that speaks to it without a connection."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from uuid import UUID, uuid4

from application.engine.commands.request import Caller
from application.engine.leases import SessionPresence
from application.workers.hosting.host import SessionHost
from application.workers.hosting.logs import LogIntake
from application.workers.hosting.messages import (
    Answer,
    Define,
    Definitions,
    Done,
    Ending,
    FreeSlots,
    Hello,
    InHand,
    Refused,
    Report,
    SlotCounts,
    Stop,
    Update,
    Welcome,
    WorkForAgent,
    WorkForTool,
)
from application.workers.hosting.session import HostedSession, Offers, Visitor
from application.workers.registering import Offer
from domain.agents import RegisterAgent, agent_id_of
from domain.errors import InvalidCommand, TidelogError
from domain.tenants import CreateTenant, IssueApiKey
from domain.tools import RegisterTool, tool_id_of
from tests.kit.engine import Engine
from tests.kit.waiting import TENANT, request_of, until

T = TypeVar("T")
R = TypeVar("R", bound=Report)
KEY = UUID("018f0000-0000-7000-8000-00000000eeee")


class HeldClock:
    """Seconds that only a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Ear:
    """Implements the port `Peer`: keeps what the server says."""

    def __init__(self, clock: HeldClock) -> None:
        self.heard: list[Answer] = []
        self.urgent: list[Answer] = []
        self.ending: tuple[Ending, TidelogError | None] | None = None
        self.sent_at = clock()
        self.is_crowded = False

    def put(self, answer: Answer, *, urgent: bool = False, alone: bool = False) -> None:
        if self.ending is None:
            self.heard.append(answer)
            if urgent:
                self.urgent.append(answer)

    def end(self, ending: Ending, error: TidelogError | None = None) -> None:
        self.ending = self.ending or (ending, error)


class SpeakingWorker:
    """A worker at one hosted session."""

    def __init__(self, session: HostedSession, ear: Ear) -> None:
        self.session = session
        self.ear = ear
        self.ids = 0
        self.incarnation = uuid4()
        self.welcome: Welcome

    def say(self, said: Any, size: int = 100) -> None:
        self.session.take(said, size)

    async def hello(
        self, agents: Iterable[str] = (), tools: Iterable[str] = (), *, back: "SpeakingWorker | None" = None,
        work: Iterable[InHand] = (), serves: Iterable[str] = (),
    ) -> Welcome:  # fmt: skip
        """`back`: the connection before, whose session the worker wants to keep."""
        if back is not None:
            self.incarnation = back.incarnation
        self.say(
            Hello(
                t="hello", versions=(1,), worker="w", incarnation=self.incarnation, agents=tuple(agents), tools=tuple(tools),
                session=back.welcome.session_id if back else None, secret=back.welcome.secret if back else None, work=tuple(work),
                serves=tuple(serves),
            )
        )  # fmt: skip
        self.welcome = await self.hears(Welcome)
        return self.welcome

    def credit(self, agent: int = 0, tool: int = 0, n: int | None = None) -> None:
        self.say(FreeSlots(t="credit", n=self.session.number if n is None else n, agent=agent, tool=tool))

    async def hears(self, kind: type[T], count: int = 1) -> T:
        """Waits for the next message of a kind, and takes it out of what was heard."""
        found: list[T] = await until(lambda: [one for one in self.ear.heard if isinstance(one, kind)], f"a {kind.__name__}")
        self.ear.heard.remove(found[0])  # type: ignore[arg-type]
        return found[0]

    def about(self, work: WorkForAgent | WorkForTool, kind: type[R], **fields: Any) -> R:
        self.ids += 1
        return kind(
            t=kind.__name__.lower(), id=self.ids, work=work.work_id, attempt=work.claimed.attempt, token=work.token, **fields
        )  # type: ignore[call-arg]  # each report has its type in `t`

    async def answer(self, id: int) -> Done | Refused:
        def there() -> list[Done | Refused]:
            return [one for one in self.ear.heard if isinstance(one, Done | Refused) and one.id == id]

        found = await until(there, f"the answer to {id}")
        self.ear.heard.remove(found[0])
        return found[0]

    async def done(self, work: WorkForAgent | WorkForTool, kind: type[R], **fields: Any) -> Done:
        report = self.about(work, kind, **fields)
        self.say(report)
        answer = await self.answer(report.id)
        assert isinstance(answer, Done), answer
        return answer


def read(given: Definitions) -> Offers:
    """Definitions are names here; "-" is a definition that cannot be read."""
    agents = [
        Offer(name, "1", RegisterAgent(agent_id=agent_id_of(TENANT, name), name=name)) if name != "-" else _unreadable()
        for name in given.agents
    ]
    tools = [
        Offer(name, "1", RegisterTool(tool_id=tool_id_of(TENANT, name), name=name, parameters={"type": "object"}, idempotent=True))
        for name in given.tools
    ]
    return Offers(agents, tools, [])


def _unreadable() -> Offer:
    return Offer(None, None, None, InvalidCommand("cannot be read"))


class Hosting:
    """One process that hosts sessions."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.clock = HeldClock()
        self.presence = SessionPresence()
        self.host = SessionHost(
            engine.workers,
            engine.commands,
            engine.work_queue,
            engine.live,
            engine.sessions,
            self.presence,
            LogIntake(engine.commands, engine.workers.sessions.tokens, engine.work_logs),
            engine.feed,
            engine.data_tools,
            engine.outcomes,
            engine.permits,
            engine.permits,
            clock=self.clock,
            now=engine.clock.now,
        )
        self.opened: list[HostedSession] = []

    def connect(self, key_id: UUID = KEY, read: Callable[[Definitions], Offers] = read) -> SpeakingWorker:
        ear = Ear(self.clock)
        visitor = Visitor(Caller(TENANT, "key:test"), key_id, lambda: request_of(TENANT), read)
        session = self.host.open(visitor, ear)
        self.opened.append(session)
        return SpeakingWorker(session, ear)

    async def lose(self, worker: SpeakingWorker) -> None:
        """The connection of a worker is lost."""
        await worker.session.close()


async def issue_keys(engine: Engine, *key_ids: UUID) -> None:
    """Makes the tenant, with API keys."""
    await engine.give(CreateTenant(tenant_id=TENANT, name="t"))
    for key_id in key_ids:
        await engine.give(IssueApiKey(tenant_id=TENANT, key_id=key_id, label="", sha256=f"{key_id.int:064x}"))


@asynccontextmanager
async def with_key(engine: Engine) -> AsyncIterator[Engine]:
    """The engine, set up and running, with the key `KEY` for workers."""
    await engine.set_up()
    await issue_keys(engine, KEY)
    async with engine.running():
        yield engine


@asynccontextmanager
async def hosting(engine: Engine) -> AsyncIterator[Hosting]:
    """Ends all sessions and pulls at the end of the block. The host's loop does not run: tests call `tick` and `renew`."""
    found = Hosting(engine)
    try:
        yield found
    finally:
        for session in found.opened:
            await session.close()
        await found.host.close()


__all__ = ["KEY", "Define", "Hosting", "SlotCounts", "SpeakingWorker", "Stop", "Update", "hosting"]
