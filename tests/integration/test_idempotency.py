"""`Idempotency-Key`: one execution and one answer for a key, through repeats, races, failures and outages."""

import asyncio
import secrets
from typing import Any
from uuid import UUID

import httpx2
import psycopg
import pytest

from adapters.embedded import EmbeddedServices
from domain.tenants import DEFAULT_TENANT_ID, IssueApiKey
from tests.integration.parts_kit import waiting_appends
from tests.integration.system_kit import System, eventually, fresh_database, issue_key, new_id, running, sha256
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
    await (await system.worker().step(first.json()["run_id"], "alpha")).complete("done")
    await system.ended(first.json()["run_id"])
    late = await start(system.http, "k", agent="alpha")
    assert late.json() == first.json() and late.headers["etag"] == first.headers["etag"], "whatever has become of the run"
    assert await runs_of(system) == 1


async def test_a_key_with_another_body_is_refused(system: System) -> None:
    first = await start(system.http, "k", agent="alpha", input={"a": 1, "b": 2})
    for other in ({"agent": "alpha"}, {"agent": "alpha", "input": {"a": True, "b": 2}}, {"agent": "alpha", "metadata": {"n": 1}}):
        refused = await start(system.http, "k", **other)
        assert (refused.status_code, refused.json()["code"]) == (422, "idempotency-key-reused")
    same = await start(system.http, "k", metadata={}, input={"b": 2, "a": 1}, agent="alpha")
    assert same.json() == first.json(), "the order of fields and a field with its default say nothing"
    assert await runs_of(system) == 1

    path, reason = f"/v1/runs/{first.json()['run_id']}/cancel", {"reason": "enough"}
    project = {"name": "p", "metadata": {"team": "a"}}
    for route, said, different in (("/v1/projects", project, {"name": "q"}), (path, reason, {"reason": "another"})):
        told = await system.http.post(route, json=said, headers={"Idempotency-Key": "k"})
        refused = await system.http.post(route, json={**said, **different}, headers={"Idempotency-Key": "k"})
        assert (refused.status_code, refused.json()["code"]) == (422, "idempotency-key-reused"), refused.text
        again = await system.http.post(route, json=said, headers={"Idempotency-Key": "k"})
        assert again.json() == told.json() and again.headers["idempotency-replayed"] == "true"


async def test_requests_at_the_same_moment_are_one(system: System, database_url: str, nats_url: str) -> None:
    """To one process and to two: each of them gets the first answer."""
    async with running(database_url, nats_url, roles=(), loops=(), key=system.key) as other:
        asked = [start(http, "k", agent="alpha") for http in (system.http, other.http) for _ in range(8)]
        answers = await asyncio.gather(*asked)
    assert {answer.status_code for answer in answers} == {201}
    assert all(answer.json() == answers[0].json() for answer in answers)
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    assert await runs_of(system) == 1


async def test_while_the_first_one_waits_for_the_run(system: System) -> None:
    """`Prefer: wait` holds the first request open until the run ends. A repeat has the answer at once, or waits as well."""
    headers = {"Idempotency-Key": "k", "Prefer": "wait=30"}
    first = asyncio.create_task(system.http.post("/v1/runs", json={"agent": "alpha"}, headers=headers))
    [started] = await eventually(lambda: _started(system))
    second = await start(system.http, "k", agent="alpha")
    assert (second.status_code, second.json()["run_id"]) == (201, str(started))
    other = await start(system.http, "k", agent="alpha", input=2)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
    third = asyncio.create_task(system.http.post("/v1/runs", json={"agent": "alpha"}, headers=headers))
    await (await system.worker().step(str(started), "alpha")).complete("done")
    answer, waited = await first, await third
    assert answer.json()["run"]["status"] == "completed" and answer.json()["run"]["result"] == "done"
    assert waited.json() == answer.json() and waited.headers["idempotency-replayed"] == "true"
    again = await start(system.http, "k", agent="alpha")
    assert again.json() == {name: value for name, value in answer.json().items() if name != "run"}


async def _started(system: System) -> list[UUID]:
    return [event.stream_id for event in await system.events() if event.topic == "run.started"]


async def test_a_keys_scope_is_tenant_principal_key_and_route(system: System) -> None:
    _, other_key = await system.tenant("other")
    ids = [(await start(system.http, "k", agent="alpha")).json()["run_id"]]
    async with system.client(other_key) as other:
        await system.worker(http=other).register("alpha")
        answer = await start(other, "k", agent="alpha")
        assert answer.status_code == 201 and "idempotency-replayed" not in answer.headers
        ids.append(answer.json()["run_id"])
    colleague = secrets.token_hex(16)
    await system.command(IssueApiKey(tenant_id=DEFAULT_TENANT_ID, key_id=new_id(), label="colleague", sha256=sha256(colleague)))
    await system.settled()
    async with system.client(colleague) as other:
        answer = await start(other, "k", agent="alpha", input="another one")
        assert answer.status_code == 201 and "idempotency-replayed" not in answer.headers
        ids.append(answer.json()["run_id"])
    assert len(set(ids)) == 3
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


async def test_a_key_of_a_request_that_changed_nothing_is_free(system: System) -> None:
    """The run is cancelled already: nothing is recorded, and the answer follows from the run."""
    run_id = await system.start("alpha")
    path = f"/v1/runs/{run_id}/cancel"
    assert (await system.http.post(path, json={"reason": "enough"})).status_code == 202
    head = await system.settled()
    first, again = [await system.http.post(path, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    assert first.status_code == again.status_code == 202 and again.json() == first.json()
    assert await system.container.feed.head() == head


async def test_an_answer_that_was_lost_is_found_in_the_log(services: EmbeddedServices) -> None:
    """The connection breaks between the commit and its answer, and the repeat goes to another process, which starts afterwards."""
    async with fresh_database(services) as database_url:
        async with wired(database_url) as (wire, url), running(url, services.nats_url) as system:
            await issue_key(system)
            await system.worker().register("alpha")
            system.database_url = database_url
            await system.settled()
            async with await psycopg.AsyncConnection.connect(database_url) as blocker:
                await blocker.execute("SELECT FROM log_head FOR UPDATE")
                lost = asyncio.create_task(start(system.http, "k", agent="alpha"))
                await eventually(lambda: waiting_appends(database_url), "the append")
                wire.mute()
                await blocker.rollback()
            [run_id] = [UUID(str(row[0])) for row in await eventually(lambda: system.sql(RUNS))]
            lost.cancel()
            await wire.unmute()
        async with running(database_url, services.nats_url, roles=(), loops=(), key=system.key) as later:
            again = await start(later.http, "k", agent="alpha")
            assert (again.status_code, again.json()["run_id"]) == (201, str(run_id)), again.text
            assert again.headers["idempotency-replayed"] == "true" and again.headers["etag"] == '"v2"'
            other = await start(later.http, "k", agent="alpha", input=1)
            assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
            assert await later.sql(RUNS) == [(run_id,)]


RUNS = "SELECT originator_id FROM event WHERE topic = 'run.started'"


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
        assert {answer.status_code for answer in answers} <= {201, 503}
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
    await system.worker("newer").register({"name": "alpha", "version": "2"})
    late = await system.http.post("/v1/runs", json=bodies[0])
    assert late.status_code == 201 and late.json() == first.json()
    assert await runs_of(system) == 1
