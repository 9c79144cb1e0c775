"""A process is stopped while its database is away: every request under way gets an answer with which a client can go on."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import httpx2
import psycopg

from adapters.embedded import EmbeddedServices
from tests.integration.sdk_kit import KEY, Server
from tests.integration.session_kit import offer
from tests.integration.system_kit import empty_work_queue, eventually, fresh_database
from tests.integration.wire_kit import wired


async def sql(url: str, query: str) -> list[tuple[Any, ...]]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        return await (await connection.execute(query.encode())).fetchall()


async def test_every_request_under_way_is_answered(services: EmbeddedServices, tmp_path: Path) -> None:
    """With a silent database a server needs all its time-outs. The server with refused connections stops beside it."""
    await empty_work_queue(services.nats_url)
    async with asyncio.TaskGroup() as stops:
        for how in ("refuses", "falls silent"):
            folder = tmp_path / how
            folder.mkdir()
            stops.create_task(answers_and_stops(services, folder, how), name=how)


async def answers_and_stops(services: EmbeddedServices, folder: Path, how: str) -> None:
    async with fresh_database(services) as database_url, wired(database_url) as (wire, url):
        server = Server(url, services.nats_url, folder)
        await server.start()
        try:
            limits = httpx2.Limits(max_connections=None)
            headers = {"Authorization": f"Bearer {KEY}"}
            sent: list[str] = []

            async def note(event: str, _: dict[str, Any]) -> None:
                sent.extend([event] if event == "http11.send_request_body.complete" else [])

            async def traced(request: httpx2.Request) -> None:
                request.extensions["trace"] = note

            async with httpx2.AsyncClient(
                base_url=server.url, headers=headers, timeout=60, limits=limits, event_hooks={"request": [traced]}
            ) as http:
                await offer(server.url, KEY, ["alpha"])
                first = await http.post("/v1/runs", json={"agent": "alpha"})

                def post(**more: str) -> "asyncio.Task[httpx2.Response]":
                    return asyncio.create_task(http.post("/v1/runs", json={"agent": "alpha"}, headers=more))

                waiting = [post(Prefer="wait=60") for _ in range(5)]
                waiting += [post(Prefer="wait=60", **{"Idempotency-Key": f"k{number}"}) for number in range(5)]

                async def recorded() -> bool:
                    rows = await sql(database_url, "SELECT count(*) FROM event WHERE topic = 'run.started'")
                    return bool(rows == [(1 + len(waiting),)])

                await eventually(recorded)
                later = await http.post("/v1/projects", json={"name": "later"})
                assert later.status_code == 201, "the server has the answers to all appends before this one, too"
                if how == "refuses":
                    await wire.cut()
                else:
                    wire.mute()
                sent.clear()
                unknown = [post() for _ in range(5)] + [post(**{"Idempotency-Key": f"u{number}"}) for number in range(5)]
                run_id = first.json()["run_id"]
                paths = ["/v1/runs", f"/v1/runs/{run_id}", f"/v1/runs/{run_id}/events", "/v1/projects"]
                unknown += [asyncio.create_task(http.get(path)) for path in paths]
                unknown.append(asyncio.create_task(http.get("/v1/runs", headers={"Tidelog-Position": "999999"})))
                unknown.append(asyncio.create_task(http.post(f"/v1/runs/{run_id}/cancel")))

                async def under_way() -> bool:
                    return len(sent) == len(unknown)

                await eventually(under_way, "the requests on their way")
                for _ in range(2):  # the server takes connections in order, and reads what has come before it answers
                    assert (await http.get("/health/live")).status_code == 200
                server.signal(signal.SIGTERM)
                for answer in await asyncio.gather(*waiting):
                    assert answer.status_code == 201 and answer.json()["position"] > 0, answer.text
                for answer in await asyncio.gather(*unknown):
                    assert answer.status_code == 503, answer.text
                    assert answer.headers["content-type"] == "application/problem+json"
                    assert answer.json()["retryable"] and answer.headers["retry-after"]
                    assert answer.headers["connection"] == "close"
            assert await server.ended() == 0
            log = server.new_log()
            assert "Exception in ASGI application" not in log and "Traceback" not in log, log
        finally:
            await server.stop()
            if how == "falls silent":
                await wire.unmute()
