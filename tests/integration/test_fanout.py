"""The fan-out on real servers: its stream holds the log, each event once, in order, on a subject of its own."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import jsonschema
import nats as nats_client
import orjson
import pytest_asyncio
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig
from pydantic import SecretStr

from adapters.embedded import EmbeddedServices
from adapters.embedded.nats_rights import INBOX, SERVER_USER, Subscriber, accounts, text_of
from adapters.nats import JetStreamSubscription, NatsConnection, names
from adapters.nats.fanout import subscribers
from adapters.nats.fanout.copier import NOTE, FanOut, FanOutSettings, subject_of
from adapters.nats.jetstream import call, delete_stream, stored_message, stream_info, stream_names
from adapters.nats.names import events_stream
from api.assembly import assemble
from api.settings import Settings
from application.engine.ports.log import NewEvent, StreamAppend, one_command
from application.engine.reading.cloudevents import ENVELOPE, CloudEventEncoder
from domain.kernel import Metadata
from domain.registry import REGISTRY
from tests.integration.nats_kit import (
    LOG,
    Log,
    NatsProcess,
    connected,
    eventually,
    keeper,
    new_id,
    open_log,
    relay,
    running,
    running_nats,
    subscription,
)
from tests.integration.system_kit import fresh_database
from tests.pace import ANSWER_S

ACME, OTHER = new_id(), new_id()
STREAM, COPY = events_stream(LOG), "copyoflog"
TOPICS = ("run.started", "run.step_scheduled", "agent_run.requested")


@pytest_asyncio.fixture
async def log(database_url: str) -> AsyncIterator[Log]:
    async with open_log(database_url) as log:
        yield log


async def append(log: Log, count: int, *, size: int = 20) -> int:
    """Appends `count` events of two tenants and three topics in turn. Returns the head."""
    metadata = Metadata(actor="test", correlation_id=new_id(), causation_id="test", command_id=new_id()).model_dump_json()
    state = b'{"text":"' + b"x" * size + b'"}'

    async def one(tenant: UUID, events: int) -> None:
        stream = new_id()
        new = tuple(NewEvent(TOPICS[i % 3], 1, state) for i in range(events))
        await log.store.append(one_command(tenant, new_id(), (StreamAppend(stream, stream, 0, new),), metadata))

    await asyncio.gather(*(one((ACME, OTHER)[i % 2], min(3, count - 3 * i)) for i in range((count + 2) // 3)))
    return await log.feed.head()


ENCODER = CloudEventEncoder(REGISTRY.events)


def fan_out(connection: NatsConnection, log: Log, **settings: float) -> FanOut:
    histories = keeper(connection, log)
    one = FanOut(
        connection,
        subscription(connection, log),
        log.feed,
        ENCODER,
        histories=histories,
        log_id=LOG,
        settings=FanOutSettings(**settings),  # type: ignore[arg-type]
    )
    histories.witnesses.append(one.parting)
    return one


async def reached(one: FanOut, position: int) -> None:
    await eventually(lambda: one.position >= position, what=f"the fan-out at {position}")


@dataclass(frozen=True)
class Stored:
    subject: str
    headers: dict[str, str]
    event: dict[str, object]


async def content(connection: NatsConnection, stream: str) -> list[Stored]:
    info = await stream_info(connection, stream)
    assert info is not None
    found = []
    for sequence in range(max(1, info["state"]["first_seq"]), info["state"]["last_seq"] + 1):
        answer = await call(connection, f"STREAM.MSG.GET.{stream}", {"seq": sequence})
        message = await stored_message(connection, stream, sequence)
        assert message is not None
        found.append(Stored(answer["message"]["subject"], message.headers, orjson.loads(message.data)))
    return found


async def check_stream(connection: NatsConnection, log: Log, *, after: int = 0, log_id: str = LOG) -> list[Stored]:
    """Asserts that the stream holds the log after a position: each event once, in order, as its CloudEvent, on its subject."""
    stored, events = await content(connection, events_stream(log_id)), [e for e in await log.everything() if e.position > after]
    assert [message.event for message in stored] == [orjson.loads(ENCODER.encode(event)) for event in events]
    assert [message.subject for message in stored] == [subject_of(log_id, event.tenant_id, event.topic) for event in events]
    assert {message.headers["Content-Type"] for message in stored} == {"application/cloudevents+json"}
    return stored


async def what_waits(subscriber: JetStreamContext.PullSubscription) -> list[Msg]:
    """All messages that the consumer has not delivered yet."""
    count = (await subscriber.consumer_info()).num_pending
    return await subscriber.fetch(count, timeout=ANSWER_S) if count else []


async def test_each_event_on_its_subject_for_durable_subscribers(nats: NatsProcess, log: Log) -> None:
    head = await append(log, 60)
    async with connected(nats.url) as connection:
        async with running(relay(connection, log).run(), (one := fan_out(connection, log)).run()):
            await reached(one, head)
            outside = await nats_client.connect(nats.url)
            subscriber = await outside.jetstream(timeout=ANSWER_S).pull_subscribe(
                f"tidelog.{LOG}.{ACME}.run.*", durable="theirs", stream=STREAM
            )
            first = await subscriber.fetch(25, timeout=ANSWER_S)
            for message in first:
                await message.ack_sync(timeout=ANSWER_S)
            await outside.close()
        head = await append(log, 30)  # no fan-out runs, nobody listens
        async with running(relay(connection, log).run(), (two := fan_out(connection, log)).run()):
            await reached(two, head)
        for message in await check_stream(connection, log):
            jsonschema.validate(message.event, ENVELOPE, jsonschema.Draft202012Validator)
        outside = await nats_client.connect(nats.url)
        subscriber = await outside.jetstream(timeout=ANSWER_S).pull_subscribe(
            f"tidelog.{LOG}.{ACME}.run.*", durable="theirs", stream=STREAM
        )
        rest = await what_waits(subscriber)
        await outside.close()
    received = [json.loads(message.data)["id"] for message in [*first, *rest]]
    assert received == [e.name for e in await log.everything() if e.tenant_id == ACME and e.topic.startswith("run.")]


async def test_logs_fan_out_side_by_side(nats: NatsProcess, database_url: str, services: EmbeddedServices) -> None:
    """The other log is a copy with the same tenants and the same events."""
    async with open_log(database_url) as log:
        head = await append(log, 30)
    async with (
        fresh_database(services, copy_of=database_url) as copy_url,
        open_log(database_url) as log,
        open_log(copy_url) as copy,
        connected(nats.url) as connection,
    ):
        one = fan_out(connection, log)
        histories = keeper(connection, copy)
        reading = JetStreamSubscription(connection, copy.feed, histories=histories, log_id=COPY)
        two = FanOut(connection, reading, copy.feed, ENCODER, histories=histories, log_id=COPY)
        async with running(relay(connection, log).run(), one.run(), two.run()):
            await reached(one, head)
            await reached(two, head)
            last, other = await append(log, 12), await append(copy, 18)
            await reached(one, last)
            await reached(two, other)
        for whose, log_id in ((log, LOG), (copy, COPY)):
            await check_stream(connection, whose, log_id=log_id)


async def test_a_stream_with_the_subjects_of_an_earlier_release_goes_on(nats: NatsProcess, log: Log) -> None:
    """Consumers of the stream keep their place when they get the new subjects.

    The stream of another log that is not upgraded yet causes no conflict.
    """
    head = await append(log, 30)
    async with connected(nats.url) as connection:
        for name, subjects in ((STREAM, f"tidelog.{ACME}.*.*"), (events_stream(COPY), f"tidelog.{OTHER}.*.*")):
            await call(connection, f"STREAM.CREATE.{name}", {"name": name, "subjects": [subjects], "storage": "file"})
        for event in await log.everything():
            if event.tenant_id == ACME:
                headers = {"Nats-Msg-Id": f"{LOG}:{event.position}:{event.position}:{event.name}"}
                await connection.request(f"tidelog.{ACME}.{event.topic}", ENCODER.encode(event), headers=headers)
        outside = await nats_client.connect(nats.url)
        jetstream = outside.jetstream(timeout=ANSWER_S)
        config = ConsumerConfig(durable_name="theirs", filter_subject=f"tidelog.{ACME}.>", ack_policy=AckPolicy.EXPLICIT)
        await jetstream.add_consumer(STREAM, config)
        subscriber = await jetstream.pull_subscribe_bind("theirs", STREAM)
        before = await what_waits(subscriber)
        for message in before:
            await message.ack_sync(timeout=ANSWER_S)
        begun = json.loads(before[-1].data)["position"]
        async with running(relay(connection, log).run(), (one := fan_out(connection, log)).run()):
            await reached(one, head)
            await reached(one, await append(log, 30))
        await jetstream.add_consumer(STREAM, config.evolve(filter_subject=f"tidelog.{LOG}.{ACME}.>"))
        after = await what_waits(subscriber)
        await outside.close()
    expected = [event.position for event in await log.everything() if event.tenant_id == ACME and event.position > begun]
    assert [json.loads(message.data)["position"] for message in after] == expected and expected


async def test_two_at_once_and_a_killed_server(nats: NatsProcess, log: Log) -> None:
    async with connected(nats.url, "one") as connection, connected(nats.url, "two") as other:
        one, two = fan_out(connection, log), fan_out(other, log)
        async with running(relay(connection, log).run(), one.run(), two.run()):
            head = await append(log, 90)
            await eventually(lambda: max(one.position, two.position) >= head)
            await nats.kill()
            head = await append(log, 90)
            await nats.start()
            await eventually(lambda: max(one.position, two.position) >= head, timeout=20)
            head = await append(log, 30)
            await eventually(lambda: max(one.position, two.position) >= head)
        await check_stream(connection, log)


async def test_deleted_stream_is_made_again_with_the_tail(nats: NatsProcess, log: Log) -> None:
    async with connected(nats.url) as connection:
        one = fan_out(connection, log, tail=20)
        async with running(relay(connection, log).run(), one.run()):
            await reached(one, await append(log, 60))
            await delete_stream(connection, STREAM)
            head = await append(log, 3)

            async def again() -> bool:
                info = await stream_info(connection, STREAM)
                return info is not None and info["state"]["last_seq"] > 0 and one.position >= head

            await eventually(again)
        stored = await check_stream(connection, log, after=head - 20)
        assert len(stored) == 20


async def test_goes_on_without_a_repetition_when_all_has_aged_out(nats: NatsProcess, log: Log) -> None:
    async def note(connection: NatsConnection) -> str:
        info = await stream_info(connection, STREAM)
        return str((info or {"config": {}})["config"].get("metadata", {}).get(NOTE, ""))

    async with connected(nats.url) as connection, running(relay(connection, log).run()):
        head = await append(log, 12)
        async with running((one := fan_out(connection, log, max_age_s=4)).run()):
            await reached(one, head)

            async def noted() -> bool:
                return (await note(connection)).startswith(f"{head}:{head}:")

            await eventually(noted)

        async def empty() -> bool:
            info = await stream_info(connection, STREAM)
            return info is not None and info["state"]["messages"] == 0

        await eventually(empty)
        assert await one.copied() == head
        last = await append(log, 6)
        async with running((two := fan_out(connection, log, max_age_s=3600)).run()):
            await reached(two, last)
        stored = await check_stream(connection, log, after=head)
        assert len(stored) == 6
        info = await stream_info(connection, STREAM)
        assert info is not None and info["config"]["max_age"] == 3600 * 10**9


async def test_messages_of_others_are_passed_over_and_another_history_is_replaced(nats: NatsProcess, log: Log) -> None:
    async with connected(nats.url) as connection, running(relay(connection, log).run()):
        async with running((one := fan_out(connection, log)).run()):
            await reached(one, await append(log, 30))
            await connection.request(f"tidelog.{LOG}.some.body.else", b"not ours")
            await reached(one, await append(log, 30))
        stored = [(await stored_message(connection, STREAM, sequence)) for sequence in range(1, 62)]
        positions = [orjson.loads(m.data)["position"] for m in stored if m is not None and m.data != b"not ours"]
        assert positions == list(range(1, 61))
        async with log.pool.connection() as database, database.transaction():
            await database.execute("DELETE FROM event WHERE notification_id > 20")
            await database.execute("UPDATE log_head SET position = 20")
        await append(log, 50)
        for tenant in (ACME, OTHER):
            await subscribers.make(connection, LOG, tenant)
        foreign = {"name": "spare", "durable_name": "spare", "metadata": {"tidelog-tenant": "mine"}}
        await call(connection, f"CONSUMER.CREATE.{STREAM}.spare", {"stream_name": STREAM, "config": foreign})
        async with running((two := fan_out(connection, log)).run()):
            await reached(two, 70)  # the relay has not made the log's stream anew yet when the fan-out begins
        await check_stream(connection, log)
        assert set(await subscribers.consumers(connection, STREAM)) == {ACME, OTHER}, "tenants cannot make theirs again"


async def test_messages_name_their_history_and_the_stream_proves_where_it_ended(nats: NatsProcess, log: Log) -> None:
    """The log's own stream is not there as a witness. Earlier messages of the fan-out's stream keep their history's id."""
    async with connected(nats.url) as connection:
        head = await append(log, 60)
        async with running((one := fan_out(connection, log)).run()):
            await reached(one, head)
            first = (await log.histories.fresh()).histories.current.history_id
            assert {message.headers["Tidelog-History"] for message in await check_stream(connection, log)} == {first}
            await log.histories.restored("nothing was lost", head)
            second = (await log.histories.fresh()).histories.current.history_id
        head = await append(log, 6)
        async with running((two := fan_out(connection, log)).run()):
            await reached(two, head)
        labels = [message.headers["Tidelog-History"] for message in await check_stream(connection, log)]
        assert labels == [first] * 60 + [second] * 6
        async with log.pool.connection() as database, database.transaction():
            await database.execute("DELETE FROM event WHERE notification_id > 63")
            await database.execute("UPDATE log_head SET position = 63")
        head = await append(log, 30)
        async with running((three := fan_out(connection, log)).run()):
            await reached(three, head)
        third = (await log.histories.fresh()).histories.current
        assert (third.cause, third.last_common, third.replaces) == ("fanout", 63, second)
        assert {message.headers["Tidelog-History"] for message in await check_stream(connection, log)} == {third.history_id}


def configuration(folder: Path) -> Path:
    """A server with the accounts of the log and of a tenant, which takes only small messages."""
    passwords = {SERVER_USER: "s"}
    path = folder / "nats.conf"
    path.write_text(text_of({"max_payload": 20_000, "accounts": accounts(LOG, passwords, [Subscriber(str(ACME), LOG, "a")])}))
    return path


async def test_a_subscriber_gets_its_tenants_events_and_the_path_of_what_is_too_large(tmp_path: Path, log: Log) -> None:
    """Everything with the rights that the server has. tests/security/test_nats_rights.py has what a subscriber may not do."""
    async with running_nats(tmp_path, configuration(tmp_path)) as server:
        address = server.url.removeprefix("nats://")
        connection = NatsConnection(f"nats://{SERVER_USER}:s@{address}", name="test", inbox_prefix=INBOX)
        await connection.start()
        await connection.ready(ANSWER_S)
        one = fan_out(connection, log)
        async with running(relay(connection, log).run(), one.run()):
            await append(log, 6)
            head = await append(log, 3, size=30_000)
            await reached(one, head)
            await subscribers.make(connection, LOG, ACME)
        name = names.subscriber(ACME)
        acme = await nats_client.connect(f"nats://{name}:a@{address}")
        subscriber = await acme.jetstream().pull_subscribe_bind(name, STREAM)
        events = [json.loads(message.data) for message in await subscriber.fetch(6, timeout=ANSWER_S)]
        await acme.close()
        await connection.close()
        assert "iolation" not in (tmp_path / "log").read_text()
    assert {event["tenantid"] for event in events} == {str(ACME)} and len(events) == 6
    large = [event for event in events if "data" not in event]
    assert [event["dataref"] for event in large] == [f"/v1/events/{event['position']}" for event in large] and len(large) == 3
    for event in events:
        jsonschema.validate(event, ENVELOPE, jsonschema.Draft202012Validator)


async def test_the_relay_role_fans_out_when_told_to(nats: NatsProcess, log: Log) -> None:
    def settings(**more: object) -> Settings:
        return Settings(database_url=SecretStr(log.url), nats_url=SecretStr(nats.url), **more)  # type: ignore[arg-type]

    head = await append(log, 9)
    async with assemble(settings(), {"relay"}) as assembly, running(*assembly.loops.values()):
        assert not {"fanout", "fanout-standby"} & set(assembly.loops)
    async with connected(nats.url) as connection:
        wanted = settings(fanout=True, fanout_max_age_s=90, fanout_max_bytes=20_000_000)
        async with assemble(wanted, {"api", "relay"}) as assembly, running(*assembly.loops.values()):
            assert "fanout-standby" in assembly.loops, "another process does it, if there is one without the role api"
            assert assembly.container is not None

            async def all_there() -> bool:
                names = await stream_names(connection, "tidelog.>")
                info = await stream_info(connection, names[0]) if names else None
                return info is not None and info["state"]["last_seq"] == head

            await eventually(all_there)
            container = assembly.container

            async def both() -> bool:
                return await container.streams() == {"relay": head, "fanout": head}

            await eventually(both)  # the fan-out may read the database before the relay has a stream
        [name] = await stream_names(connection, "tidelog.>")
        info = await stream_info(connection, name)
    assert info is not None and name.startswith("TIDELOG_EVENTS_")
    assert (info["config"]["max_age"], info["config"]["max_bytes"]) == (90 * 10**9, 20_000_000)


def test_a_topic_is_always_two_safe_tokens() -> None:
    tenant = UUID(int=1)
    assert subject_of(LOG, tenant, "run.started") == f"tidelog.{LOG}.{tenant}.run.started"
    for strange in ("", "run", "run.", ".>", "a.b.c", "a.*", "a b.c\r\n", "ü.x"):
        assert [len(token) > 0 for token in subject_of(LOG, tenant, strange).split(".")] == [True] * 5
        assert not set(subject_of(LOG, tenant, strange)) & set("*> \r\n"), strange
