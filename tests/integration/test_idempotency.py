"""`Idempotency-Key`: one execution and one answer for a key, through repeats, races, failures and outages."""

import asyncio
from typing import Any
from uuid import UUID

import httpx2
import pytest

from adapters.embedded import EmbeddedServices
from tests.integration.system_kit import System, eventually, fresh_database, issue_key, new_id, running
from tests.integration.wire_kit import wired


async def start(http: httpx2.AsyncClient, key: str, /, **body: Any) -> httpx2.Response:
    return await http.post("/v1/runs", json=body, headers={"Idempotency-Key": key})


async def runs_of(system: System) -> int:
    return sum(event.topic == "run.started" for event in await system.events())


@pytest.fixture(autouse=True)
async def registered(system: System) -> None:
    await system.worker().register("alpha")


async def test_a_repeat_gets_the_first_answer(system: System) -> None:
    first = await start(system.http, "k", agent="alpha")
    again = await start(system.http, '"k"', agent="alpha")  # the draft has a quoted string, most clients send a bare string
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json() and "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    for header in ("location", "etag", "tidelog-position"):
        assert again.headers[header] == first.headers[header]
    assert await runs_of(system) == 1


async def test_a_key_with_another_body_is_refused(system: System) -> None:
    await start(system.http, "k", agent="alpha")
    other = await start(system.http, "k", agent="alpha", input=1)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
    assert await runs_of(system) == 1


async def test_requests_at_the_same_moment_are_one(system: System) -> None:
    answers = await asyncio.gather(*(start(system.http, "k", agent="alpha") for _ in range(8)))
    statuses = {answer.status_code for answer in answers}
    assert 201 in statuses and statuses <= {201, 409}
    running_ones = [answer for answer in answers if answer.status_code == 409]
    assert all(a.json()["code"] == "idempotency-key-in-use" and a.json()["retryable"] for a in running_ones)
    assert len({answer.json()["run_id"] for answer in answers if answer.status_code == 201}) == 1
    assert await runs_of(system) == 1


async def test_while_the_first_is_running(system: System) -> None:
    """`Prefer: wait` holds the first request open until the run ends."""
    headers = {"Idempotency-Key": "k", "Prefer": "wait=30"}
    first = asyncio.create_task(system.http.post("/v1/runs", json={"agent": "alpha"}, headers=headers))

    async def begun() -> Any:
        return await system.sql("SELECT 1 FROM idempotency_key")

    await eventually(begun)
    second = await start(system.http, "k", agent="alpha")
    assert (second.status_code, second.json()["code"]) == (409, "idempotency-key-in-use")
    other = await start(system.http, "k", agent="alpha", input=2)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
    [started] = await eventually(lambda: _started(system))
    await (await system.worker().step(str(started), "alpha")).complete("done")
    answer = await first
    assert answer.json()["run"]["status"] == "completed" and answer.json()["run"]["result"] == "done"
    again = await start(system.http, "k", agent="alpha")
    assert again.json() == answer.json()


async def _started(system: System) -> list[UUID]:
    return [event.stream_id for event in await system.events() if event.topic == "run.started"]


async def test_a_keys_scope_is_tenant_key_and_route(system: System) -> None:
    _, other_key = await system.tenant("other")
    ids = [(await start(system.http, "k", agent="alpha")).json()["run_id"]]
    async with system.client(other_key) as other:
        await system.worker(http=other).register("alpha")
        answer = await start(other, "k", agent="alpha")
        assert answer.status_code == 201 and "idempotency-replayed" not in answer.headers
        ids.append(answer.json()["run_id"])
    assert len(set(ids)) == 2
    project = await system.http.post("/v1/projects", json={"name": "p"}, headers={"Idempotency-Key": "k"})
    assert project.status_code == 201 and "idempotency-replayed" not in project.headers
    cancelled = await system.http.post(f"/v1/runs/{ids[0]}/cancel", headers={"Idempotency-Key": "k"})
    assert cancelled.status_code == 202 and "idempotency-replayed" not in cancelled.headers
    again = await system.http.post(f"/v1/runs/{ids[0]}/cancel", headers={"Idempotency-Key": "k"})
    assert again.json() == cancelled.json() and again.headers["idempotency-replayed"] == "true"


@pytest.mark.parametrize(
    ("body", "status"), [({"agent": "nobody"}, 404), ({"agent": "alpha", "input": "x" * 300_000}, 413), ({"agent": 7}, 422)]
)
async def test_after_a_refusal_the_key_is_free(system: System, body: dict[str, Any], status: int) -> None:
    assert (await start(system.http, "k", **body)).status_code == status
    answer = await start(system.http, "k", agent="alpha")
    assert answer.status_code == 201 and "idempotency-replayed" not in answer.headers


async def test_a_refused_condition_leaves_the_key_free(system: System) -> None:
    run_id = await system.start("alpha")
    for version, status in (("v1", 412), ("v2", 202)):
        headers = {"Idempotency-Key": "k", "If-Match": f'"{version}"'}
        assert (await system.http.post(f"/v1/runs/{run_id}/cancel", headers=headers)).status_code == status


async def test_an_answer_that_was_lost_is_found_in_the_log(system: System) -> None:
    """The process died between the append and the storing of its answer: the repeat is the same command."""
    first = await start(system.http, "k", agent="alpha")
    await system.sql("UPDATE idempotency_key SET status = NULL, answer = NULL, begun_at = now() - interval '31 seconds'")
    again = await start(system.http, "k", agent="alpha")
    assert again.status_code == 201 and again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert await runs_of(system) == 1


async def test_after_a_day_a_key_is_new(system: System) -> None:
    first = await start(system.http, "k", agent="alpha")
    await system.sql("UPDATE idempotency_key SET begun_at = now() - interval '25 hours'")
    other = await start(system.http, "k", agent="alpha", input="another day")
    assert other.status_code == 201 and other.json()["run_id"] != first.json()["run_id"]
    run = await system.run(other.json()["run_id"])
    assert run["input"] == "another day"


async def test_an_outage_in_between_costs_nothing_but_time(services: EmbeddedServices) -> None:
    async with (
        fresh_database(services) as database_url,
        wired(database_url) as (wire, url),
        running(url, services.nats_url) as system,
    ):
        await issue_key(system)
        await system.worker().register("alpha")
        assert (await start(system.http, "first", agent="alpha")).status_code == 201
        await wire.cut()
        asked = asyncio.create_task(start(system.http, "k", agent="alpha"))
        await asyncio.wait({asked}, timeout=0.3)
        await wire.mend()
        answers = [await asked]

        async def accepted() -> bool:
            answers.append(await start(system.http, "k", agent="alpha"))
            return answers[-1].status_code == 201

        await eventually(accepted)
        assert {answer.status_code for answer in answers} <= {201, 503, 409}
        assert len({a.json()["run_id"] for a in answers if a.status_code == 201}) == 1
        assert sum(e.topic == "run.started" for e in await system.events()) == 2


async def test_a_run_id_of_the_clients_own_makes_a_start_repeatable(system: System) -> None:
    run_id = str(new_id())
    bodies: list[dict[str, Any]] = [{"agent": "alpha", "input": 1, "run_id": run_id}] * 2
    first, again = [await system.http.post("/v1/runs", json=body) for body in bodies]
    assert first.status_code == again.status_code == 201 and first.json() == again.json()
    assert again.headers["idempotency-replayed"] == "true"
    for other in ({"agent": "alpha", "input": 2}, {"plan": {"kind": "sequential", "agents": ["alpha", "alpha"]}, "input": 1}):
        answer = await system.http.post("/v1/runs", json={**other, "run_id": run_id})
        assert (answer.status_code, answer.json()["code"]) == (409, "already-exists")
    # A new version of the agent came out in between: the request is still the same.
    offer = {"worker_id": "w", "agents": [{"name": "alpha", "version": "2"}]}
    assert (await system.http.post("/v1/workers", json=offer)).status_code == 200
    late = await system.http.post("/v1/runs", json=bodies[0])
    assert late.status_code == 201 and late.json() == first.json()
    assert await runs_of(system) == 1
