"""The contract of the port `PositionCalls`, in memory and on NATS."""

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest
import pytest_asyncio
import structlog

from adapters.nats import NatsPositionCalls
from application.engine.background import end
from application.engine.ports.positions import Asked, PositionCalls
from tests.integration.nats_kit import LOG, NatsProcess, connected, eventually
from tests.kit.memory import MemoryPositionCalls
from tests.pace import ANSWER_S


@pytest.fixture
def memory_sides() -> list[PositionCalls]:
    board = MemoryPositionCalls()
    return [board, MemoryPositionCalls(board), MemoryPositionCalls(board)]


@pytest_asyncio.fixture
async def nats_sides(nats: NatsProcess) -> AsyncIterator[list[PositionCalls]]:
    async with connected(nats.url) as one, connected(nats.url) as two, connected(nats.url) as three:
        yield [NatsPositionCalls(connection, LOG) for connection in (one, two, three)]


@pytest.fixture(params=["memory", "nats"])
def sides(request: pytest.FixtureRequest) -> list[PositionCalls]:
    found: list[PositionCalls] = request.getfixturevalue(f"{request.param}_sides")
    return found


class Owner:
    """Answers each question with the position that is waited for."""

    def __init__(self, calls: PositionCalls) -> None:
        self.calls = calls
        self.heard: list[Mapping[str, Asked]] = []
        self.task = asyncio.create_task(calls.answer(self._hear))

    async def _hear(self, process: str, wanted: Mapping[str, Asked]) -> None:
        self.heard.append(wanted)
        await self.calls.tell(process, {name: one.highest for name, one in wanted.items()})


class Process:
    def __init__(self, calls: PositionCalls) -> None:
        self.calls = calls
        self.told: list[Mapping[str, int]] = []

    async def _hear(self, reached: Mapping[str, int]) -> None:
        self.told.append(reached)

    async def ask(self, **wanted: tuple[int, int]) -> None:
        await self.calls.ask({name: Asked(*one) for name, one in wanted.items()}, self._hear)

    async def until_told(self, **reached: int) -> None:
        """Asks until there is an answer: the first question may come before the owner listens."""

        async def there() -> bool:
            await self.ask(**{name: (position, position) for name, position in reached.items()})
            return reached in self.told

        await eventually(there)


async def test_owners_hear_each_question_and_only_who_asked_is_told(sides: list[PositionCalls]) -> None:
    owner, one, other = Owner(sides[0]), Process(sides[1]), Process(sides[2])
    try:
        await one.until_told(runs=0)
        await other.until_told(agents=0)
        await one.ask(runs=(7, 9), agents=(3, 3))
        await eventually(lambda: {"runs": 9, "agents": 3} in one.told)
        assert {"runs": (7, 9), "agents": (3, 3)} in owner.heard
        assert all(reached == {"agents": 0} for reached in other.told)
    finally:
        await end(owner.task)


async def test_who_owns_a_consumer_may_ask_too(sides: list[PositionCalls]) -> None:
    owner, itself = Owner(sides[0]), Process(sides[0])
    try:
        await itself.until_told(runs=5)
    finally:
        await end(owner.task)


async def test_who_stopped_hears_nothing(sides: list[PositionCalls]) -> None:
    stopped, going_on, process = Owner(sides[0]), Owner(sides[1]), Process(sides[2])
    try:
        await process.until_told(runs=1)
        await eventually(lambda: stopped.heard and going_on.heard)
        await end(stopped.task)
        heard = len(stopped.heard)
        await process.until_told(runs=2)
        assert len(stopped.heard) == heard
    finally:
        await end(going_on.task)


async def test_calls_come_back_after_an_outage(nats: NatsProcess) -> None:
    async with connected(nats.url) as one, connected(nats.url) as two:
        owner, process = Owner(NatsPositionCalls(one, LOG)), Process(NatsPositionCalls(two, LOG))
        try:
            await process.until_told(runs=1)
            await nats.kill()
            await nats.start()
            await one.ready(ANSWER_S)
            await two.ready(ANSWER_S)
            await process.until_told(runs=2)
        finally:
            await end(owner.task)


async def test_a_message_of_somebody_else_harms_nobody(nats: NatsProcess) -> None:
    async with connected(nats.url) as one, connected(nats.url) as two:
        owner, process = Owner(NatsPositionCalls(one, LOG)), Process(NatsPositionCalls(two, LOG))
        try:
            await process.until_told(runs=1)
            for nonsense in (b"", b"[]", b'{"runs": 1}', b'{"runs": ["x", 1]}'):
                await two.client.publish(f"tidelog-positions.{LOG}", nonsense, reply=process.calls._inbox)  # type: ignore[attr-defined]
                await two.client.publish(process.calls._inbox, nonsense)  # type: ignore[attr-defined]
            await process.until_told(runs=2)
        finally:
            await end(owner.task)


async def test_a_question_that_reaches_nobody_is_told_as_such(nats: NatsProcess) -> None:
    """NATS says that nobody listens, as it does while no owner runs. The process is told no position, and is warned of nothing."""
    async with connected(nats.url) as connection:
        process = Process(NatsPositionCalls(connection, LOG))
        with structlog.testing.capture_logs() as logged:
            await process.ask(runs=(1, 1))
            await process.calls.tell(process.calls._inbox, {"runs": 7})  # type: ignore[attr-defined]
            await eventually(lambda: {"runs": 7} in process.told)  # the word of the server came before: messages keep their order
        assert (process.told, logged) == ([{}, {"runs": 7}], [])
