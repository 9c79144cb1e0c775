"""Users of the embedded NATS: what a release without accounts had is kept, and subscribers come and go beside those that stay."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from adapters.embedded import EmbeddedServices, StateDirectoryUnusable
from adapters.embedded.access import running_nats_url
from adapters.embedded.nats_accounts import AccountsFile, Change, RunningNats
from adapters.embedded.nats_rights import (
    INBOX,
    OPERATOR_USER,
    SERVER_ACCOUNT,
    SERVER_USER,
    Subscriber,
    passwords_in,
    subscribers_in,
)
from adapters.nats import NatsSecurity
from adapters.nats.connection import NatsRefused, probe
from adapters.nats.fanout import subscribers
from adapters.nats.jetstream import call, stream_info
from adapters.nats.names import events_stream
from tests.integration.nats_kit import connected, eventually
from tests.integration.system_kit import nats_client_of
from tests.pace import ANSWER_S
from tests.temporary import short_folder

LOG = "1f-5"
TENANTS = [f"0198c0de-0000-7000-8000-00000000000{digit}" for digit in "abc"]


@pytest.fixture
def folder() -> Iterator[Path]:
    path = short_folder()
    yield path
    shutil.rmtree(path)


@pytest_asyncio.fixture
async def services(folder: Path) -> AsyncIterator[EmbeddedServices]:
    running = EmbeddedServices(folder / "state", durable=False, want_postgres=False)
    await running.start()
    yield running
    await running.stop()


def operator_url(services: EmbeddedServices) -> str:
    url = running_nats_url(services.describe())
    assert url is not None
    return url


def url_of(services: EmbeddedServices, one: Subscriber) -> str:
    return f"nats://{one.name}:{one.password}@{RunningNats(services.describe()).place}"


def added(*new: Subscriber) -> Change:
    return lambda found: found.update({one.tenant_id: one for one in new})


def removed(one: Subscriber) -> Change:
    def drop(found: dict[str, Subscriber]) -> None:
        del found[one.tenant_id]

    return drop


async def until_let_in(services: EmbeddedServices, one: Subscriber) -> None:
    """Reloads as the command does."""

    async def works() -> bool:
        RunningNats(services.describe()).reload()
        await asyncio.sleep(0.05)  # who connects while the server reloads is cut
        return await subscribers.lets_in(url_of(services, one), NatsSecurity(), LOG, UUID(one.tenant_id), timeout=2)

    await eventually(works, what=f"{one.name} at its consumer", timeout=ANSWER_S)


async def prepare(services: EmbeddedServices, *tenants: str) -> None:
    """Makes the stream of a fan-out with a consumer of each tenant."""
    async with connected(operator_url(services)) as connection:
        name = events_stream(LOG)
        await call(connection, f"STREAM.CREATE.{name}", {"name": name, "subjects": [f"tidelog.{LOG}.*.*.*"]})
        for tenant in tenants:
            await subscribers.make(connection, LOG, UUID(tenant))


async def test_streams_of_a_release_without_accounts_are_kept(folder: Path) -> None:
    services = EmbeddedServices(folder / "state", durable=False, want_postgres=False)
    await services.start()
    await prepare(services, TENANTS[0])
    store = services.home / "nats" / "jetstream"
    await services.stop()
    (store / SERVER_ACCOUNT).rename(store / "$G")  # where a server without accounts has them
    await services.start()
    try:
        async with connected(operator_url(services)) as connection:
            assert await stream_info(connection, events_stream(LOG)) is not None
            assert await subscribers.consumers(connection, events_stream(LOG)) == [UUID(TENANTS[0])]
    finally:
        await services.stop()


async def test_subscribers_come_and_go_and_nobody_else_notices(services: EmbeddedServices) -> None:
    await prepare(services, *TENANTS)
    first, second, third = (Subscriber(tenant, LOG, f"password-{tenant}") for tenant in TENANTS)
    running, cut = RunningNats(services.describe()), []
    running.change(added(first))
    await until_let_in(services, first)

    async def disconnected() -> None:
        cut.append(True)

    server = await nats_client_of(services.nats_url, disconnected_cb=disconnected, inbox_prefix=INBOX)
    subscriber = await nats_client_of(url_of(services, first), disconnected_cb=disconnected)
    heard = await subscriber.subscribe(f"tidelog.{LOG}.{first.tenant_id}.>")
    await subscriber.flush()
    running.change(added(second, third))
    await until_let_in(services, second)
    gone = asyncio.Event()

    async def closed() -> None:
        gone.set()

    other = await nats_client_of(url_of(services, second), allow_reconnect=False, closed_cb=closed)
    running.change(removed(second))
    running.reload()
    await asyncio.wait_for(gone.wait(), ANSWER_S)
    with pytest.raises(NatsRefused):
        await probe(url_of(services, second), security=NatsSecurity(), timeout=ANSWER_S)
    await other.close()

    await server.publish(f"tidelog.{LOG}.{first.tenant_id}.run.started", b"still heard")
    assert (await heard.next_msg(timeout=ANSWER_S)).data == b"still heard"
    assert cut == []
    await asyncio.gather(server.close(), subscriber.close())

    await services.restart("nats")
    for one in (first, third):
        assert await subscribers.lets_in(url_of(services, one), NatsSecurity(), LOG, UUID(one.tenant_id), timeout=ANSWER_S)


async def test_changes_at_the_same_time_are_all_kept(services: EmbeddedServices) -> None:
    running = RunningNats(services.describe())
    many = [Subscriber(str(uuid4()), LOG, "password") for _ in range(20)]
    await asyncio.gather(*(asyncio.to_thread(running.change, added(one)) for one in many), services.restart("nats"))
    path = services.home / "nats.conf"
    assert {one.tenant_id for one in subscribers_in(json.loads(path.read_text()))} == {one.tenant_id for one in many}
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_file_that_is_damaged_costs_the_subscribers_and_not_the_server(folder: Path) -> None:
    services = EmbeddedServices(folder / "state", durable=False, want_postgres=False)
    await services.start()
    RunningNats(services.describe()).change(added(Subscriber(TENANTS[0], LOG, "password")))
    path = services.home / "nats.conf"
    for content in (path.read_text()[:-40], "[]", '{"accounts": {"tenant-x": 7, "y": null}}', ""):
        await services.stop()
        path.write_text(content)
        await services.start()
        assert subscribers_in(json.loads(path.read_text())) == []
    await services.stop()


def test_a_file_of_accounts_keeps_its_passwords_and_is_never_another_file(tmp_path: Path) -> None:
    path = tmp_path / "tidelog.conf"
    file, one = AccountsFile(path), Subscriber(TENANTS[0], LOG, "password")
    file.change(LOG, added(one))
    first = json.loads(path.read_text())
    file.change("1f-6", lambda found: None)
    second = json.loads(path.read_text())
    assert path.stat().st_mode & 0o777 == 0o600
    assert passwords_in(first) == passwords_in(second) and passwords_in(first).keys() == {SERVER_USER, OPERATOR_USER}
    assert subscribers_in(second) == [one], "a subscriber stays at its log until it is given another"
    assert "tidelog-work.1f-6.>" in json.dumps(second) and "tidelog-work.1f-5.>" not in json.dumps(second)
    file.change("1f-6", removed(one))
    assert subscribers_in(json.loads(path.read_text())) == []
    for content in ("{", "jetstream: enabled", "[]", '{"accounts": {}}', '{"port": 4222}', '{"accounts": {"TIDELOG": 3}}'):
        path.write_text(content)
        with pytest.raises(StateDirectoryUnusable):
            file.change(LOG, added(one))
        assert path.read_text() == content
    with pytest.raises(StateDirectoryUnusable):
        AccountsFile(tmp_path / "nowhere" / "tidelog.conf").change(LOG, added(one))
