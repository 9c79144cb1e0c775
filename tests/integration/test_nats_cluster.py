"""A cluster of three NATS servers that replicate every stream: one server goes away, and all work goes on."""

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import pytest_asyncio
from pydantic import SecretStr

from adapters.nats import (
    FanOut,
    FanOutSettings,
    JetStreamError,
    JetStreamWorkQueue,
    LogStream,
    NatsConnection,
    Relay,
    StreamSettings,
)
from adapters.nats.jetstream import call, delete_stream, stream_info, stream_names
from adapters.nats.names import owner_of
from api.assembly import assemble, messaging
from api.settings import Settings
from application.engine.ports.queue import WorkItem
from application.engine.reading.cloudevents import CloudEventEncoder
from application.engine.retry import persistently
from domain.errors import Unavailable
from tests.integration.nats_kit import (
    LOG,
    TENANT,
    Log,
    NatsProcess,
    Reader,
    connected,
    consumer_of,
    eventually,
    keeper,
    new_id,
    open_log,
    relay,
    running,
    running_nats,
    subscription,
)
from tests.pace import in_time
from tests.ports import free_port

T = TypeVar("T")

REPLICAS = 3
START_S = 30.0


class Cluster:
    def __init__(self, servers: dict[str, NatsProcess]) -> None:
        self.servers = servers

    @property
    def url(self) -> str:
        return ",".join(server.url for server in self.servers.values())


@pytest_asyncio.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    places = {f"n{number}": f"127.0.0.1:{free_port()}" for number in range(REPLICAS)}
    routes = [f"nats://{place}" for place in places.values()]
    async with contextlib.AsyncExitStack() as stack:
        servers = {}
        for name, place in places.items():
            folder = tmp_path / name
            folder.mkdir()
            configuration = folder / "nats.conf"
            configuration.write_text(
                json.dumps({"server_name": name, "cluster": {"name": "three", "listen": place, "routes": routes}})
            )
            servers[name] = await stack.enter_async_context(running_nats(folder, configuration))
        yield Cluster(servers)


@pytest_asyncio.fixture
async def log(database_url: str) -> AsyncIterator[Log]:
    async with open_log(database_url) as log:
        yield log


async def all_there(connection: NatsConnection) -> None:
    """Makes and removes a stream on all servers: the JetStream of a cluster answers long before it can place three copies."""
    probe = {"name": "probe", "subjects": ["probe"], "num_replicas": REPLICAS}

    async def placed() -> bool:
        try:
            await call(connection, "STREAM.CREATE.probe", probe)
        except Unavailable:
            return False
        return True

    await eventually(placed, START_S)
    await patiently(delete_stream, connection, "probe")


async def patiently(call: Callable[..., Awaitable[T]], *arguments: Any, **options: Any) -> T:
    """The call as its callers make it, again while the cluster is not ready: not all servers know a new stream at once."""
    return await in_time(persistently(partial(call, *arguments, **options)), START_S)


async def info_of(connection: NatsConnection, stream: str) -> dict[str, Any]:
    info = await patiently(stream_info, connection, stream)
    assert info is not None
    return info


def fanout(connection: NatsConnection, log: Log) -> FanOut:
    encoder = CloudEventEncoder(frozenset({"thing.happened"}))
    settings = FanOutSettings(replicas=REPLICAS)
    histories = keeper(connection, log)
    reader = subscription(connection, log)
    return FanOut(connection, reader, log.feed, encoder, histories=histories, log_id=LOG, settings=settings)


async def test_every_stream_survives_the_loss_of_a_server(cluster: Cluster, log: Log) -> None:
    """The leader of the log's stream is killed. No stream is made anew."""
    settings = StreamSettings(replicas=REPLICAS)
    async with connected(cluster.url, wait=START_S) as connection:
        await all_there(connection)
        one = Relay(connection, log.feed, log.signal, histories=keeper(connection, log), log_id=LOG, settings=settings)
        two = fanout(connection, log)
        queue = JetStreamWorkQueue(connection, log_id=LOG, replicas=REPLICAS)
        item = WorkItem(TENANT, "agent", "critic", new_id(), 1, new_id())
        reader = Reader(subscription(connection, log))
        async with running(one.run(), two.run(), reader.run()):
            await log.append(20)
            await eventually(lambda: _at(20, one, two), START_S)
            await patiently(queue.publish, [item])
            await patiently(consumer_of, queue, TENANT, "agent", "critic", max_pending=5)
            state = await LogStream(connection, LOG).current()
            assert state is not None
            streams = [state.name, queue.stream, two.stream]
            before = {name: await info_of(connection, name) for name in streams}
            assert [info["config"]["num_replicas"] for info in before.values()] == [REPLICAS] * 3
            assert all(len(info["cluster"]["replicas"]) == REPLICAS - 1 for info in before.values())
            await cluster.servers[before[state.name]["cluster"]["leader"]].kill()
            await log.append(20)
            await reader.reach(40)
            await eventually(lambda: _at(40, one, two), START_S)
            await eventually(lambda: _holds(connection, queue.stream, 1), START_S)
            for name in streams:
                assert (await info_of(connection, name))["created"] == before[name]["created"], f"{name} was made anew"
        await reader.check(log)


async def test_settings_reach_all_streams(cluster: Cluster, database_url: str) -> None:
    urls = {"database_url": SecretStr(database_url), "nats_url": SecretStr(cluster.url)}
    kept = {"relay_max_age_s": 3_600, "relay_max_bytes": 20_000_000, "fanout_max_age_s": 90, "fanout_max_bytes": 30_000_000}
    async with connected(cluster.url, wait=START_S) as connection:
        await all_there(connection)
        given = Settings(**urls, **kept, fanout=True, nats_replicas=REPLICAS)  # type: ignore[arg-type]
        async with assemble(given, {"api", "relay"}) as assembly, running(*assembly.loops.values()):
            assert assembly.container is not None
            await (await messaging.nats(assembly.parts)).ready(START_S)
            await patiently(consumer_of, assembly.container.work_queue, TENANT, "agent", "critic", max_pending=5)

            async def three() -> bool:
                return len(await patiently(stream_names, connection, ">")) == 3

            await eventually(three, START_S)
        found = {}
        for name in await patiently(stream_names, connection, ">"):
            config = (await info_of(connection, name))["config"]
            owner = owner_of(name)
            assert owner is not None
            found[owner.kind] = (config["num_replicas"], config["max_age"] // 10**9, config["max_bytes"])
    assert found == {"log": (3, 3_600, 20_000_000), "work queue": (3, 0, -1), "fan-out": (3, 90, 30_000_000)}


async def test_a_queue_of_one_copy_gets_the_others(cluster: Cluster, log: Log) -> None:
    """A work queue that was made with other settings gets the present settings and keeps its waiting items.

    The log's stream gets its settings, too.
    """
    async with connected(cluster.url, wait=START_S) as connection:
        await all_there(connection)
        alone = JetStreamWorkQueue(connection, log_id=LOG)
        await patiently(alone.publish, [WorkItem(TENANT, "agent", "critic", new_id(), 1, new_id())])
        await patiently(consumer_of, alone, TENANT, "agent", "critic", max_pending=5)
        single = relay(connection, log)
        async with running(single.run()):
            await log.append(5)
            await eventually(lambda: _at(5, single), START_S)
        more = JetStreamWorkQueue(connection, log_id=LOG, replicas=REPLICAS)
        assert (await info_of(connection, more.stream))["config"]["num_replicas"] == 1
        await patiently(consumer_of, more, TENANT, "agent", "critic", max_pending=5)
        settings = StreamSettings(replicas=REPLICAS)
        copied = Relay(connection, log.feed, log.signal, histories=keeper(connection, log), log_id=LOG, settings=settings)
        async with running(copied.run()):
            await log.append(5)
            await eventually(lambda: _at(10, copied), START_S)
        state = await LogStream(connection, LOG).current()
        assert state is not None
        for name, messages in ((more.stream, 1), (state.name, None)):
            info = await info_of(connection, name)
            assert info["config"]["num_replicas"] == REPLICAS
            assert messages is None or info["state"]["messages"] == messages


async def test_one_server_keeps_the_queue_that_it_has(nats: NatsProcess) -> None:
    """More copies than servers: the change is refused, reported, and tried again with the next registration.

    Workers go on with the existing queue.
    """
    async with connected(nats.url) as connection:
        before = await consumer_of(JetStreamWorkQueue(connection, log_id=LOG), TENANT, "agent", "critic", max_pending=5)
        more = JetStreamWorkQueue(connection, log_id=LOG, replicas=REPLICAS)
        assert await consumer_of(more, TENANT, "agent", "critic", max_pending=5) == before
        assert (await info_of(connection, more.stream))["config"]["num_replicas"] == 1
        with pytest.raises(JetStreamError, match="replicas > 1 not supported in non-clustered mode"):
            await consumer_of(
                JetStreamWorkQueue(connection, log_id="another", replicas=REPLICAS), TENANT, "agent", "a", max_pending=5
            )


async def _at(position: int, *copiers: Relay | FanOut) -> bool:
    return all(copier.position == position for copier in copiers)


async def _holds(connection: NatsConnection, stream: str, messages: int) -> bool:
    try:
        info = await stream_info(connection, stream)
    except Unavailable:
        return False
    return info is not None and info["state"]["messages"] == messages
