"""A tenant that subscribes to the fan-out attacks the NATS of all others, with a real server and a client that says what it wants.

What is tried first is tried again in one account, where it does harm: so the attack is one.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig

from adapters.embedded.nats_rights import (
    INBOX,
    OPERATOR_USER,
    SERVER_USER,
    WORKER_USER,
    Subscriber,
    accounts,
    text_of,
)
from adapters.nats import names
from adapters.nats.connection import NatsRefused, probe
from adapters.nats.fanout import subscribers
from adapters.nats.security import NatsSecurity
from tests.integration.nats_kit import NatsProcess, connected, eventually, running_nats
from tests.integration.system_kit import nats_client_of

LOG = "1f-5"
ACME, OTHER = (UUID(f"0198c0de-0000-7000-8000-00000000000{digit}") for digit in "ab")
EVENTS, WORK, COPY = names.events_stream(LOG), names.work_stream(LOG), names.log_stream(LOG, 17)
STREAMS = (EVENTS, WORK, COPY)
ACME_CONSUMER, OTHER_CONSUMER = (names.subscriber(tenant) for tenant in (ACME, OTHER))
ASK = f"$JS.API.CONSUMER.MSG.NEXT.{EVENTS}.{ACME_CONSUMER}"
OTHERS_EVENT = f"tidelog.{LOG}.{OTHER}.run.started"
SECRET = b"of the other tenant"

EARS = (
    ">", "*", "*.>", "$SYS.>", "$JS.>", "$JS.API.>", "$JS.ACK.>", "$JS.EVENT.>", f"$JS.ACK.{EVENTS}.{OTHER_CONSUMER}.>",
    "tidelog.>", f"tidelog.{LOG}.>", f"tidelog.*.{ACME}.>", f"tidelog.{LOG}.{OTHER}.>", f"tidelog.{LOG}.*.run.started",
    OTHERS_EVENT, "tidelog-work.>", f"tidelog-work.{LOG}.>", "tidelog-log.>", f"tidelog-log.{LOG}.*", f"tidelog-positions.{LOG}",
    f"{INBOX}.>", "_INBOX.>", "_R_.>", "_GR_.>",
)  # fmt: skip
REQUESTS: dict[str, Any] = {
    "$JS.API.INFO": None,
    "$JS.API.ACCOUNT.INFO": None,
    "$JS.API.STREAM.NAMES": {},
    "$JS.API.STREAM.LIST": {},
    f"$JS.API.STREAM.INFO.{EVENTS}": {"subjects_filter": ">"},
    f"$JS.API.STREAM.MSG.GET.{EVENTS}": {"last_by_subj": OTHERS_EVENT},
    f"$JS.API.DIRECT.GET.{EVENTS}": {"last_by_subj": OTHERS_EVENT},
    f"$JS.API.DIRECT.GET.{EVENTS}.{OTHERS_EVENT}": None,
    f"$JS.API.STREAM.PURGE.{EVENTS}": {},
    f"$JS.API.STREAM.DELETE.{EVENTS}": None,
    f"$JS.API.STREAM.DELETE.{WORK}": None,
    f"$JS.API.STREAM.MSG.DELETE.{EVENTS}": {"seq": 1},
    f"$JS.API.STREAM.SNAPSHOT.{EVENTS}": {"deliver_subject": "_INBOX.snapshot"},
    "$JS.API.STREAM.CREATE.MINE": {"name": "MINE", "subjects": ["mine.>"], "sources": [{"name": EVENTS}]},
    f"$JS.API.CONSUMER.NAMES.{EVENTS}": {},
    f"$JS.API.CONSUMER.LIST.{EVENTS}": {},
    f"$JS.API.CONSUMER.INFO.{EVENTS}.{OTHER_CONSUMER}": None,
    f"$JS.API.CONSUMER.INFO.{EVENTS}.{ACME_CONSUMER}": None,
    f"$JS.API.CONSUMER.DELETE.{EVENTS}.{OTHER_CONSUMER}": None,
    f"$JS.API.CONSUMER.MSG.NEXT.{EVENTS}.{OTHER_CONSUMER}": {"batch": 9, "no_wait": True},
    f"$JS.API.CONSUMER.MSG.NEXT.{WORK}.pool": {"batch": 9, "no_wait": True},
    f"$JS.API.CONSUMER.CREATE.{EVENTS}": {"stream_name": EVENTS, "config": {"filter_subject": OTHERS_EVENT}},
    f"$JS.API.CONSUMER.CREATE.{EVENTS}.spy.{OTHERS_EVENT}": {
        "stream_name": EVENTS, "config": {"name": "spy", "filter_subject": OTHERS_EVENT, "deliver_subject": "_INBOX.spy"}},
    f"$JS.API.CONSUMER.CREATE.{EVENTS}.{ACME_CONSUMER}.tidelog.{LOG}.{ACME}.>": {
        "stream_name": EVENTS, "config": {"durable_name": ACME_CONSUMER, "filter_subject": f"tidelog.{LOG}.>"}},
    f"$JS.API.CONSUMER.DURABLE.CREATE.{EVENTS}.spy": {"stream_name": EVENTS, "config": {"durable_name": "spy"}},
    f"$JS.ACK.{EVENTS}.{OTHER_CONSUMER}.1.1.1.1.0": None,
    "$SYS.REQ.SERVER.PING": None,
    "$SYS.REQ.ACCOUNT.PING.CONNZ": None,
    OTHERS_EVENT: None,
    f"tidelog.{LOG}.{ACME}.run.started": None,
    f"tidelog-work.{LOG}.agent.{OTHER}.pool.x.1": None,
    f"tidelog-log.{LOG}.17": None,
    f"tidelog-positions.{LOG}": {},
    f"{INBOX}.x": None,
}  # fmt: skip
ANSWERS_TO = (
    f"$JS.API.STREAM.DELETE.{WORK}", f"$JS.API.STREAM.PURGE.{EVENTS}", f"$JS.API.CONSUMER.DELETE.{EVENTS}.{OTHER_CONSUMER}",
    OTHERS_EVENT, f"tidelog-work.{LOG}.agent.{OTHER}.pool.x.2", f"tidelog-log.{LOG}.17", f"tidelog-positions.{LOG}",
    f"{INBOX}.x", f"$JS.ACK.{EVENTS}.{OTHER_CONSUMER}.1.2.1.1.0", "_INBOX.of-the-other",
)  # fmt: skip
"""Subjects that JetStream is asked to answer at."""


@dataclass
class House:
    """A NATS with the streams of a log, the server's client, and the other tenant's."""

    nats: NatsProcess
    server: Client
    heard: list[str] = field(default_factory=list)
    """Subjects of messages that came to the server or to the other tenant and were not theirs."""

    def url(self, user: str) -> str:
        return self.nats.url.replace("nats://", f"nats://{user}:{user}-password@")

    async def state(self) -> dict[str, Any]:
        """What an attack may not change: the streams, their content, and what each consumer has given out."""
        jetstream, found = self.server.jetstream(), {}
        for name in STREAMS:
            info = await jetstream.stream_info(name)
            consumers = {one.name: (one.num_ack_pending, one.delivered) for one in await jetstream.consumers_info(name)}
            consumers = {consumer: (pending, seen and seen.consumer_seq) for consumer, (pending, seen) in consumers.items()}
            consumers.pop(ACME_CONSUMER, None)
            found[name] = (info.state.messages, info.state.first_seq, info.state.last_seq, info.config.subjects, consumers)
        return found

    async def hear(self, message: Msg) -> None:
        self.heard.append(message.subject)


def configuration(folder: Path, *, apart: bool) -> Path:
    """The accounts as Tidelog writes them. Not `apart`: the same users and permissions in one account."""
    passwords = {user: f"{user}-password" for user in (SERVER_USER, OPERATOR_USER, WORKER_USER)}
    tenants = [Subscriber(str(tenant), LOG, f"{names.subscriber(tenant)}-password") for tenant in (ACME, OTHER)]
    made = accounts(LOG, passwords, tenants)
    if not apart:
        users = [user for account in made.values() for user in account["users"]]
        made = {"TIDELOG": {"jetstream": "enabled", "users": users}}
    path = folder / "nats.conf"
    path.write_text(text_of({"accounts": made}))
    return path


@asynccontextmanager
async def house(folder: Path, *, apart: bool) -> AsyncIterator[House]:
    async with running_nats(folder, configuration(folder, apart=apart)) as nats:
        own = House(nats, Client())
        own.server = await nats_client_of(own.url(OPERATOR_USER))
        jetstream = own.server.jetstream()
        await jetstream.add_stream(name=EVENTS, subjects=[f"tidelog.{LOG}.*.*.*"])
        await jetstream.add_stream(name=WORK, subjects=[f"tidelog-work.{LOG}.>"])
        await jetstream.add_stream(name=COPY, subjects=[f"tidelog-log.{LOG}.17"])
        await jetstream.add_consumer(WORK, ConsumerConfig(durable_name="pool"))
        async with connected(own.url(OPERATOR_USER)) as connection:
            for tenant in (ACME, OTHER):
                await subscribers.make(connection, LOG, tenant)
        for number in range(20):
            await jetstream.publish(f"tidelog.{LOG}.{ACME}.run.started", f"own {number}".encode())
            await jetstream.publish(OTHERS_EVENT, SECRET)
        await jetstream.publish(f"tidelog-work.{LOG}.agent.{OTHER}.pool.x.1", SECRET)
        await jetstream.publish(f"tidelog-log.{LOG}.17", SECRET)
        other = await nats_client_of(own.url(OTHER_CONSUMER))
        given = await (await other.jetstream().pull_subscribe_bind(OTHER_CONSUMER, EVENTS)).fetch(3, timeout=5)
        assert [message.data for message in given] == [SECRET] * 3
        for subject in (f"{INBOX}.>", f"tidelog-positions.{LOG}"):
            await own.server.subscribe(subject, cb=own.hear)
        for subject in (f"tidelog.{LOG}.{OTHER}.>", "_INBOX.of-the-other"):
            await other.subscribe(subject, cb=own.hear)
        await asyncio.gather(own.server.flush(), other.flush())
        yield own
        await asyncio.gather(own.server.close(), other.close())


@pytest_asyncio.fixture
async def apart(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path, apart=True) as own:
        yield own


class Attacker:
    """A client, what the server has refused it, and what it has heard."""

    def __init__(self) -> None:
        self.client = Client()
        self.refused: list[str] = []
        self.heard: list[Msg] = []

    @classmethod
    async def at(cls, url: str) -> "Attacker":
        own = cls()

        async def refused(error: Exception) -> None:
            own.refused.append(str(error))

        own.client = await nats_client_of(url, error_cb=refused)
        return own

    async def hear(self, message: Msg) -> None:
        self.heard.append(message)

    async def settled(self, house: House) -> None:
        """All that was sent has been handled: what it caused stands in the streams or has been heard."""
        for _ in range(5):  # an answer may cause another one
            await self.client.flush()
            await house.server.flush()
            await house.state()


async def test_a_tenant_gets_its_own_events_in_order_and_acknowledges_them(apart: House) -> None:
    acme = await Attacker.at(apart.url(ACME_CONSUMER))
    await acme.client.subscribe(f"tidelog.{LOG}.{ACME}.>", cb=acme.hear)
    await acme.client.flush()
    taken = await acme.client.jetstream().pull_subscribe_bind(ACME_CONSUMER, EVENTS)
    messages = await taken.fetch(20, timeout=5)
    assert [message.data for message in messages] == [f"own {number}".encode() for number in range(20)]
    for message in messages:
        await message.ack_sync(timeout=5)
    info = await apart.server.jetstream().consumer_info(EVENTS, ACME_CONSUMER)
    assert (info.num_ack_pending, info.num_pending) == (0, 0)
    waits = asyncio.create_task(taken.fetch(1, timeout=20))
    await apart.server.jetstream().publish(f"tidelog.{LOG}.{ACME}.run.completed", b"later")
    assert [message.data for message in await waits] == [b"later"]
    await eventually(lambda: [message.data for message in acme.heard] == [b"later"], what="the plain subscription")
    assert acme.refused == []
    await acme.client.close()


async def test_a_tenant_hears_nothing_of_others(apart: House) -> None:
    acme = await Attacker.at(apart.url(ACME_CONSUMER))
    for subject in (*EARS, *(f"{subject} readers" for subject in EARS)):
        name, _, queue = subject.partition(" ")
        await acme.client.subscribe(name, queue=queue, cb=acme.hear)
    await acme.client.flush()
    await eventually(lambda: len(acme.refused) == 2 * (len(EARS) - 1), what="a refusal of each but its own inbox")
    other = await nats_client_of(apart.url(OTHER_CONSUMER))
    await (await other.jetstream().pull_subscribe_bind(OTHER_CONSUMER, EVENTS)).fetch(1, timeout=5)
    await apart.server.jetstream().publish(OTHERS_EVENT, SECRET)
    await apart.server.publish(f"tidelog-positions.{LOG}", SECRET, reply=f"{INBOX}.y")
    await acme.settled(apart)
    assert acme.heard == []
    await asyncio.gather(acme.client.close(), other.close())


async def test_a_tenant_may_ask_for_nothing_but_its_own_messages(apart: House) -> None:
    before = await apart.state()
    acme = await Attacker.at(apart.url(ACME_CONSUMER))
    await acme.client.subscribe("_INBOX.answers", cb=acme.hear)
    for subject, body in REQUESTS.items():
        await acme.client.publish(subject, b"" if body is None else json.dumps(body).encode(), reply="_INBOX.answers")
    await acme.settled(apart)
    await eventually(lambda: len(acme.refused) == len(REQUESTS), what=f"a refusal of each: {acme.refused}")
    assert (acme.heard, apart.heard, await apart.state()) == ([], [], before)
    await acme.client.close()


async def test_an_answer_goes_nowhere_but_to_the_tenant_that_asked(apart: House) -> None:
    before = await apart.state()
    await misdirect(apart, ACME_CONSUMER)
    assert (apart.heard, await apart.state()) == ([], before)


async def test_in_one_account_the_same_permissions_delete_streams_and_forge_events(tmp_path: Path) -> None:
    """Why tenants have accounts. The users, their permissions and the attack are the same."""
    async with house(tmp_path, apart=False) as together:
        await misdirect(together, ACME_CONSUMER)
        assert OTHERS_EVENT in together.heard and "_INBOX.of-the-other" in together.heard
        with pytest.raises(Exception, match="stream not found"):
            await together.server.jetstream().stream_info(WORK)


async def misdirect(house: House, user: str) -> None:
    """Asks and acknowledges in all forms, with answers to subjects of others."""
    acme = await Attacker.at(house.url(user))
    given = await (await acme.client.jetstream().pull_subscribe_bind(ACME_CONSUMER, EVENTS)).fetch(1, timeout=5)
    for target in ANSWERS_TO:
        for body in (b'{"batch":1,"no_wait":true}', b"", b"{", b'{"batch":1,"expires":1000000}'):
            await acme.client.publish(ASK, body, reply=target)
        for word in (b"+ACK", b"+NXT", b'+NXT {"batch":2}', b"-NAK", b"+TERM", b"+WPI", b""):
            await acme.client.publish(given[0].reply, word, reply=target)
        with_headers = {"Nats-Expected-Stream": WORK, "Nats-Rollup": "all"}
        await acme.client.publish(given[0].reply, b"+ACK", reply=target, headers=with_headers)
    try:
        await acme.settled(house)
    except Exception as error:  # noqa: BLE001  # the attack may have removed what is looked at
        assert "not found" in str(error)
    await acme.client.close()


async def test_a_worker_of_0_1_0_reaches_nothing_by_its_acknowledgements(apart: House) -> None:
    """Its one right is to acknowledge work, and an acknowledgement has an answer, too."""
    [job] = await (await apart.server.jetstream().pull_subscribe_bind("pool", WORK)).fetch(1, timeout=5)
    before = await apart.state()
    worker = await Attacker.at(apart.url(WORKER_USER))
    for target in ANSWERS_TO:
        await worker.client.publish(job.reply, b"+WPI", reply=target)
    await worker.settled(apart)
    assert (apart.heard, await apart.state()) == ([], before)
    assert all("with reply of" in text for text in worker.refused), "it may acknowledge"
    await worker.client.publish(job.reply, b"+ACK")
    await worker.client.flush()

    async def done() -> bool:
        return (await apart.server.jetstream().consumer_info(WORK, "pool")).num_ack_pending == 0

    await eventually(done, what="the acknowledgement of an old worker")
    await worker.client.close()


async def test_nobody_comes_in_without_a_password(apart: House) -> None:
    for url in (apart.nats.url, apart.url("nobody"), apart.url(ACME_CONSUMER).replace("-password", "")):
        with pytest.raises(NatsRefused, match=r"(?i)authorization"):
            await probe(url, security=NatsSecurity(), timeout=5)


async def test_the_server_may_use_its_own_log_alone(apart: House) -> None:
    server = await Attacker.at(apart.url(SERVER_USER))
    forbidden = (
        "tidelog.1f-6.x.run.started", "tidelog-work.1f-6.x", "tidelog-log.1f-6.17", "tidelog-positions.1f-6", "orders.new",
        f"$JS.API.STREAM.PURGE.{EVENTS}", f"$JS.API.STREAM.SNAPSHOT.{EVENTS}", f"$JS.API.STREAM.MSG.DELETE.{EVENTS}",
        f"$JS.API.CONSUMER.CREATE.{EVENTS}.x.tidelog.1f-6.>", "$JS.API.ACCOUNT.PURGE.TIDELOG", "$SYS.REQ.SERVER.PING",
        f"$JS.ACK.{EVENTS}.{OTHER_CONSUMER}.1.1.1.1.0", "_INBOX.x",
    )  # fmt: skip
    ears = (">", "tidelog.>", f"tidelog.{LOG}.>", f"tidelog-log.{LOG}.*", "tidelog-work.1f-6.>", "$SYS.>", "_INBOX.>")
    before = await apart.state()
    for subject in forbidden:
        await server.client.publish(subject, b"{}")
    for subject in ears:
        await server.client.subscribe(subject, cb=server.hear)
    await server.settled(apart)
    await eventually(lambda: len(server.refused) == len(forbidden) + len(ears), what=f"a refusal of each: {server.refused}")
    assert (server.heard, apart.heard, await apart.state()) == ([], [], before)
    await server.client.close()
