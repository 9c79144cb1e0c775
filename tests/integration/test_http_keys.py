"""Keys: requests with wrong keys do not slow down others, new keys work at once, and a revoked key ends, also for open streams."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import httpx2
import pytest

from api.http.app import create_app
from api.http.conventions import keys
from api.http.routes import events
from application.reads import KeyOwner
from domain.tenants import DEFAULT_TENANT_ID, RevokeApiKey
from projections.tenants import ApiKeyQueries
from tests.integration.parts_kit import live_feed
from tests.integration.system_kit import BASE, CountingDatabase, System, eventually, new_id, served, sha256, streaming


def wrong(i: int) -> dict[str, str]:
    return {"Authorization": f"Bearer {'wrong' if i % 2 else f'wrong-{i}'}"}


async def test_wrong_keys_share_one_query_at_a_time(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "PATIENCE_S", 60)  # 1,500 requests in one process, on a busy machine
    database = CountingDatabase(system.container.command_database)
    app = create_app(replace(system.container, reads=replace(system.container.reads, keys=ApiKeyQueries(database))))
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url=BASE, timeout=60) as client:
        began = time.monotonic()
        answers = await asyncio.gather(*(client.get("/v1/agents", headers=wrong(i)) for i in range(1_500)))
        took = time.monotonic() - began
        assert {answer.status_code for answer in answers} == {401}
        assert 0 < database.taken <= 2 + took / keys.PACE_S
        # No state is left behind: the next request with a valid key is served.
        assert (await client.get("/v1/agents", headers={"X-API-Key": system.key})).status_code == 200
    await app.close()


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
    [(key_id,)] = await system.sql("SELECT key_id FROM api_key WHERE sha256 = %s", sha256(key))
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
async def test_a_stream_ends_with_its_key(system: System, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(keys, "FRESH_S", 0.05)
    monkeypatch.setattr(events, "CHECK_S", 0.05)
    await system.worker().register("alpha")
    run_id = await system.start("alpha")
    async with (
        live_feed(system, silence_s=0.1) as feed,
        served(replace(system.container, live=feed)) as url,
        streaming(url, system.key, path.format(run_id=run_id)) as stream,
    ):
        rest = asyncio.create_task(stream.rest())
        await revoke(system, DEFAULT_TENANT_ID, system.key)
        assert "end" not in [event.event for event in await rest], "the run goes on, only its reader is gone"


async def test_a_stream_outlives_a_database_that_is_away(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that cannot be looked up is not reported as revoked."""

    class Away:
        async def owners(self, sha256s: Sequence[str]) -> dict[str, KeyOwner]:
            raise keys.Unavailable("away")

    known = keys.Keys(system.container)
    principal, digest = await known.principal({b"x-api-key": system.key.encode()})
    monkeypatch.setattr(keys, "FRESH_S", 0.0)
    known._reads = Away()
    assert await known.is_valid(digest)
    assert not await keys.Keys(system.container).is_valid(sha256(f"{new_id()}"))
    assert principal.actor.startswith("key:")
    await known.close()
