"""Keys: requests with wrong keys do not slow down others, new keys work at once, and a revoked key ends, also for open streams."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import pytest

from api.http.conventions import keys, look_ups
from application.engine.reading.live import LiveFeed
from application.reads import KeysFound
from domain.errors import Unauthenticated, Unavailable
from domain.tenants import DEFAULT_TENANT_ID, IssueApiKey, RevokeApiKey
from projections.tenants import ApiKeyQueries
from tests.integration.parts_kit import live_feed
from tests.integration.system_kit import CountingDatabase, System, eventually, new_id, served, sha256, streaming
from tests.pace import ANSWER_S, within
from tidelog.keys import make_key


def wrong(i: int) -> dict[str, str]:
    return {"Authorization": f"Bearer {'wrong' if i % 2 else f'wrong-{i}'}"}


async def test_wrong_keys_share_one_query_at_a_time(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look_ups, "PATIENCE_S", 60)  # 1,500 requests in one process, on a busy machine
    database = CountingDatabase(system.container.command_database)
    container = replace(system.container, reads=replace(system.container.reads, keys=ApiKeyQueries(database)))
    async with system.client(None, container=container) as client:
        began = time.monotonic()
        answers = await asyncio.gather(*(client.get("/v1/agents", headers=wrong(i)) for i in range(1_500)))
        took = time.monotonic() - began
        assert {answer.status_code for answer in answers} == {401}
        assert 0 < database.taken <= 2 + took / look_ups.PACE_S
        # No state is left behind: the next request with a valid key is served.
        assert (await client.get("/v1/agents", headers={"X-API-Key": system.key})).status_code == 200


async def test_among_wrong_keys_good_ones_are_served_and_new_ones_work(system: System) -> None:
    stop = False

    async def stranger(i: int) -> None:
        async with system.client(None) as client:
            while not stop:
                assert (await client.get("/v1/agents", headers=wrong(i))).status_code == 401

    strangers = [asyncio.create_task(stranger(i)) for i in range(50)]
    try:
        for _ in range(3):
            _, key = await system.tenant("new")
            async with system.client(key) as client:
                assert (await client.get("/v1/agents")).status_code == 200
            assert (await system.http.get("/v1/agents")).status_code == 200
    finally:
        stop = True
        await asyncio.gather(*strangers)


async def revoke(system: System, tenant_id: UUID, key: str) -> None:
    """Revokes an owner's key, beside which another one is left."""
    [(key_id,)] = await system.sql("SELECT key_id FROM api_key WHERE sha256 = %s", sha256(key))
    other = IssueApiKey(tenant_id=tenant_id, key_id=new_id(), label="another", sha256=sha256(f"{new_id()}"))
    await system.command(other, tenant_id=tenant_id)
    await system.command(RevokeApiKey(tenant_id=tenant_id, key_id=key_id), tenant_id=tenant_id)
    await system.settled()


async def test_a_revoked_key_ends_though_it_is_used_all_the_time(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "KNOWN_S", 3_600.0)  # so that the use of the key ends the stream
    tenant_id, key = await system.tenant("gone")
    async with system.client(key) as client:
        assert (await client.get("/v1/agents")).status_code == 200
        await revoke(system, tenant_id, key)

        async def refused() -> bool:
            return (await client.get("/v1/agents")).status_code == 401

        await eventually(refused, "the end of the key")


@pytest.mark.parametrize("path", ["/v1/events", "/v1/runs/{run_id}/events"])
async def test_a_stream_ends_with_its_key(system: System, path: str) -> None:
    await system.worker().register("alpha")
    run_id = await system.start("alpha")
    async with (
        live_feed(system) as feed,  # which is silent for longer than the test waits
        served(replace(system.container, live=feed)) as url,
        streaming(url, system.key, path.format(run_id=run_id)) as stream,
    ):
        rest = asyncio.create_task(stream.rest())
        await revoke(system, DEFAULT_TENANT_ID, system.key)
        assert "end" not in [event.event for event in await rest], "the run goes on, only its reader is gone"


class Away:
    """Keys that cannot be looked up."""

    async def owners(self, sha256s: Sequence[str]) -> KeysFound:
        raise Unavailable("away")


async def test_a_key_that_cannot_be_looked_up_is_valid_for_a_while_and_then_nobody_knows(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the live feed nor the database confirms it: it is not reported as revoked, and not taken for valid for ever."""
    monkeypatch.setattr(keys, "FRESH_S", 0.0)
    known = keys.Keys(replace(system.container, live=NotCurrent(system.container.live)))
    headers = {b"x-api-key": system.key.encode()}
    principal, _ = await known.principal(headers)
    assert principal.actor.startswith("key:")
    monkeypatch.setattr(known, "_reads", Away())
    assert await known.principal(headers) == (principal, sha256(system.key))
    monkeypatch.setattr(keys, "KNOWN_S", 0.0)
    with pytest.raises(Unavailable):
        await known.principal(headers)
    await known.close()


async def test_valid_keys_do_not_wait_for_one_another_and_all_wait_after_a_wrong_one(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look_ups, "PACE_S", 3_600.0)
    theirs = [(await system.tenant(f"tenant {number}"))[1] for number in range(4)]
    known = keys.Keys(system.container)
    for key in theirs[:3]:
        async with within(ANSWER_S):
            await known.principal({b"x-api-key": key.encode()})
    with pytest.raises(Unauthenticated):
        await known.principal({b"x-api-key": b"wrong"})
    waiting = asyncio.create_task(known.principal({b"x-api-key": theirs[3].encode()}))
    await eventually(lambda: asyncio.sleep(0, sha256(theirs[3]) in known._look_ups._asked), "the question about the last key")
    async with within(ANSWER_S):  # keys in use are answered meanwhile
        for key in theirs[:3] * 50:
            await known.principal({b"x-api-key": key.encode()})
    assert not waiting.done()
    waiting.cancel()
    await known.close()


async def test_a_key_that_the_live_feed_confirms_is_valid_without_the_database(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = keys.Keys(system.container)
    headers = {b"x-api-key": system.key.encode()}
    monkeypatch.setattr(keys, "FRESH_S", 0.0)

    async def confirmed() -> bool:
        await known.principal(headers)
        return known._known[sha256(system.key)].confirmed and system.container.live.is_current

    await eventually(confirmed, "the confirmation by the feed")
    monkeypatch.setattr(known, "_reads", Away())
    monkeypatch.setattr(keys, "KNOWN_S", 0.0)
    assert (await known.principal(headers))[0].tenant_id == DEFAULT_TENANT_ID
    await known.close()


async def test_a_feed_that_is_behind_is_not_relied_on(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys in use are looked up meanwhile, so a key ends though the feed tells nothing."""
    monkeypatch.setattr(keys, "FRESH_S", 0.0)
    tenant_id, key = await system.tenant("gone")
    known = keys.Keys(replace(system.container, live=Silent(system.container.live)))
    headers = {b"x-api-key": key.encode()}
    await known.principal(headers)
    await revoke(system, tenant_id, key)

    async def refused() -> bool:
        try:
            await known.principal(headers)
        except Unauthenticated:
            return True
        return False

    await eventually(refused, "the end of the key")
    await known.close()


class NotCurrent:
    """A live feed whose events come late."""

    is_current = False

    def __init__(self, live: LiveFeed) -> None:
        self.reading, self.position, self.call = live.reading, live.position, live.call


class Silent(NotCurrent):
    """A live feed that tells nothing."""

    def __init__(self, live: LiveFeed) -> None:
        super().__init__(live)
        self.call = lambda *_: lambda: None


async def test_a_mistyped_key_is_told_without_a_query(system: System) -> None:
    text = make_key(new_id()).text
    database = CountingDatabase(system.container.command_database)
    container = replace(system.container, reads=replace(system.container.reads, keys=ApiKeyQueries(database)))
    async with system.client(None, container=container) as client:
        for slip in (text[:-1] + ("0" if text[-1] != "0" else "1"), text[:-1], text + "x", text[:40] + text[41:]):
            for headers in ({"X-API-Key": slip}, {"Authorization": f"Bearer {slip}"}):
                answer = await client.get("/v1/agents", headers=headers)
                assert answer.status_code == 401 and "is mistyped" in answer.json()["detail"]
        assert database.taken == 0
        answer = await client.get("/v1/agents", headers={"X-API-Key": text})
        assert answer.status_code == 401 and "is not valid" in answer.json()["detail"]
        assert database.taken


async def test_an_unused_key_is_forgotten_and_nothing_is_read_for_its_sake(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("TIDY_S", 0.02), ("UNUSED_S", 0.0), ("NOTED_S", 0.0)):
        monkeypatch.setattr(keys, name, seconds)
    tenant_id, key = await system.tenant("seldom")
    known, live = keys.Keys(system.container), system.container.live
    headers = {b"x-api-key": key.encode()}
    _, digest = await known.principal(headers)
    ended: list[bool] = []
    release = known.hold(digest, lambda: ended.append(True))
    await asyncio.sleep(0.1)
    assert live.watched(tenant_id) == 1, "somebody holds the key"
    release()

    async def forgotten() -> bool:
        return not live.watched(tenant_id)

    await eventually(forgotten, "the end of the watch")
    assert not known._known and not known._watched and not known._holders and known._tidying is None and not ended
    assert (await known.principal(headers))[0].tenant_id == tenant_id, "it is looked up again"
    await known.close()
    assert not live.watched(tenant_id)


async def test_a_key_with_a_role_of_a_later_release_is_no_key_and_harms_no_other(system: System) -> None:
    _, key = await system.tenant("later")
    await system.sql("UPDATE api_key SET role = 'emperor' WHERE sha256 = %s", sha256(key))
    known = keys.Keys(system.container)
    found = await asyncio.gather(
        *(known.principal({b"x-api-key": one.encode()}) for one in (key, system.key)), return_exceptions=True
    )
    assert isinstance(found[0], Unauthenticated) and not isinstance(found[1], BaseException)
    await known.close()
