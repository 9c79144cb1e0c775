"""All readers of a process on one consumer of a real NATS: through outages, with slow readers, with read models and sagas."""

import asyncio
import random
from collections.abc import Sequence

import pytest

from adapters.embedded import EmbeddedServices
from adapters.nats import NatsConnection
from adapters.nats.jetstream import delete_stream
from adapters.nats.log.stream import LogStream
from application.engine import gathering
from application.engine.reading import shared
from application.engine.reading.shared import SharedSubscription
from domain.kernel import RecordedEvent
from domain.projects import ProjectCreated
from projections.engine.runner import ProjectionRunner
from projections.kernel import Connection, Projection
from tests.integration.nats_kit import (
    LOG,
    Log,
    NatsProcess,
    Reader,
    connected,
    consumers,
    eventually,
    relay,
    running,
    subscription,
)
from tests.integration.saga_kit import ledger_on
from tests.kit.budget import TOTALS
from tests.pace import ANSWER_S


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that a test reaches quickly."""
    monkeypatch.setattr(shared, "QUEUE_EVENTS", 100)
    monkeypatch.setattr(shared, "AHEAD_EVENTS", 20)
    monkeypatch.setattr(shared, "NEAR_EVENTS", 20)
    monkeypatch.setattr(gathering, "MOST_EVENTS", 20)


def shared_by(connection: NatsConnection, log: Log) -> SharedSubscription:
    own = subscription(connection, log)
    return SharedSubscription(own, own._histories, first_alone_s=0.1)


async def test_readers_of_a_process_have_one_consumer_through_kills_of_nats_and_a_new_stream(nats: NatsProcess, log: Log) -> None:
    async with connected(nats.url) as connection:
        one, source = relay(connection, log), shared_by(connection, log)
        readers = [Reader(source, name=name) for name in ("projections", "sagas", "live")]

        async def together() -> bool:
            return await consumers(connection) == 1

        async with running(one.run(), *(reader.run() for reader in readers)):
            await log.append(20)
            await asyncio.gather(*(reader.reach(20) for reader in readers))
            await eventually(together)
            await nats.kill()
            await log.append(20)
            await asyncio.gather(*(reader.reach(40) for reader in readers))
            await nats.start()
            await connection.ready(ANSWER_S)
            await eventually(together)
            await log.append(20)
            await asyncio.gather(*(reader.reach(60) for reader in readers))
            await eventually(lambda: one.position == 60)
            state = await LogStream(connection, LOG).current()
            assert state is not None
            await delete_stream(connection, state.name)
            await log.append(20)
            await asyncio.gather(*(reader.reach(80) for reader in readers))
            await eventually(together)
        for reader in readers:
            await reader.check(log)
        assert len({id(event) for reader in readers for event in reader.events[-20:]}) == 20, "decoded once for all"


@pytest.mark.parametrize("seed", [1, 2])
async def test_slow_readers_leave_and_come_back_while_nats_is_killed(nats: NatsProcess, log: Log, small: None, seed: int) -> None:
    chance = random.Random(seed)
    async with connected(nats.url) as connection:
        one, source = relay(connection, log), shared_by(connection, log)
        quick, slow, late = Reader(source), Reader(source, pause=0.03), Reader(source, after=10, pause=0.005)

        async def apart() -> bool:
            return await consumers(connection) > 1

        async with running(one.run(), quick.run(), slow.run()):
            await log.append(50)
            await quick.reach(50)
            async with running(late.run()):
                appending = asyncio.create_task(log.append(2_000, together=chance.choice([1, 5])))
                await quick.reach(chance.randrange(500, 900))
                await nats.kill()
                await asyncio.sleep(chance.uniform(0.0, 0.1))
                await nats.start()
                await appending
                await asyncio.gather(*(reader.reach(2_050, timeout=20) for reader in (quick, slow, late)))
                await connection.ready(ANSWER_S)
                looks = list[int]()  # a reader that joins the others ends its own consumer, maybe before theirs is there again
                for number in range(2_051, 2_200):
                    looks.append(await consumers(connection))
                    if looks[-3:] == [1, 1, 1]:
                        break
                    await log.append(1)
                    await asyncio.gather(*(reader.reach(number) for reader in (quick, slow, late)))
                assert looks[-3:] == [1, 1, 1], looks
        for reader in (quick, slow, late):
            await reader.check(log)


async def test_a_read_model_that_stands_still_holds_up_no_saga(database_url: str, services: EmbeddedServices, small: None) -> None:
    """Read model and sagas share a consumer. The read model's handler hangs, while hundreds of events come that sagas react to."""
    hangs, goes_on, seen = asyncio.Event(), asyncio.Event(), list[int]()

    async def apply(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
        hangs.set()
        await goes_on.wait()
        seen.extend(event.position for event in batch)

    projection = Projection("hanging", frozenset({ProjectCreated.TOPIC, "context.value_set"}), (), apply)
    async with ledger_on(database_url, services.nats_url) as ledger:
        source = ledger.system.subscription
        assert isinstance(source, SharedSubscription)
        runner = ProjectionRunner([projection], ledger.system.container.database, source)
        async with running(ledger.manager().run(), runner.run()):
            projects = [await ledger.project()]
            await hangs.wait()
            for _ in range(6):
                projects += await asyncio.gather(*(ledger.project() for _ in range(15)))
                head = await ledger.settled()
            assert seen == [] and head == 3 * len(projects)
            goes_on.set()
            await eventually(lambda: runner.position == head)
            assert [await ledger.reserved(project_id) for project_id in projects] == [TOTALS] * len(projects)
            assert seen == list(range(1, head + 1)), "each event once, in order"
