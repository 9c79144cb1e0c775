"""Health, lags and metrics, with a Postgres and a NATS that go away and come back."""

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from application.engine.sagas.manager import PARTITIONS
from application.triggers.matcher import CHECKPOINT
from tests.integration.nats_kit import NatsProcess
from tests.integration.played_worker import PlayedWorker
from tests.integration.system_kit import System, eventually, issue_key, running, stopped
from tests.integration.wire_kit import wired

PROJECTIONS = {
    "tenants",
    "projects",
    "agents",
    "tools",
    "runs",
    "messages",
    "invocations",
    "timers",
    "work",
    "activity",
    "run_terms",
    "tool_versions",
    "audit",
    "breakers",
    "workflows",
    "schedules",
    "triggers",
    "usage",
    "approvals",
    "bulk_actions",
}
CONSUMERS = {*PROJECTIONS, *PARTITIONS, CHECKPOINT}


async def readiness(system: System) -> tuple[int, dict[str, Any]]:
    async with system.client(None) as anybody:
        response = await anybody.get("/health/ready")
    return response.status_code, response.json()


async def ready(system: System) -> dict[str, Any]:
    """The first report with all of its figures. A check that takes two seconds, as on a busy machine, fails for once."""

    async def answered() -> dict[str, Any]:
        status, report = await readiness(system)
        return report if status == 200 and "work" in report else {}

    return await eventually(answered, "readiness")


async def test_a_healthy_server(system: System) -> None:
    await system.settled()
    head = await system.copied()
    async with system.client(None) as anybody:
        live = await anybody.get("/health/live")
    assert live.status_code == 200 and live.json()["status"] == "ok" and live.json()["version"]
    report = await ready(system)
    assert (report["status"], report["head"], report["parked"]) == ("ok", head, {})
    assert report["dependencies"] == {"postgres": "ok", "nats": "ok", "durability": "ok", "disk": "ok"}
    assert report["durable"] is False, "the database of the tests says that it may be lost"
    assert report["consumers"] == {name: {"position": head, "lag": 0} for name in CONSUMERS}
    assert report["streams"] == {"relay": {"position": head, "lag": 0}}


async def test_hosts_and_processes_are_shown_with_a_key_only(system: System) -> None:
    async def members(caller: httpx2.AsyncClient) -> list[dict[str, Any]]:
        """Empty until the process has joined the others."""
        return list((await caller.get("/health/ready")).json().get("members", []))

    async def named() -> bool:  # a report waits a second for the look-up of a key
        found = await members(system.http)
        return bool(found) and all("place" in member for member in found)

    await eventually(named, "the places of the processes")
    for key in ("wrong", None):
        async with system.client(key) as stranger:
            found = await eventually(lambda stranger=stranger: members(stranger), "the processes")
            assert all("place" not in member for member in found)


async def test_a_lag_and_what_is_parked_are_shown(system: System) -> None:
    await system.settled()
    await stopped(system.tasks.pop("projections"))
    await system.http.post("/v1/projects", json={"name": "p"})
    values = "('runs', 3, gen_random_uuid(), gen_random_uuid(), 'run.started', 'broken')"
    await system.sql(f"INSERT INTO parked_event VALUES {values}")

    async def behind() -> bool:
        status, report = await readiness(system)
        lags = {name: consumer["lag"] for name, consumer in report["consumers"].items()}
        return (
            status == 200
            and lags == {**dict.fromkeys(PROJECTIONS, 1), **dict.fromkeys((*PARTITIONS, CHECKPOINT), 0)}
            and report["parked"] == {"runs": 1}
        )

    await eventually(behind)

    async def measured() -> dict[tuple[str, tuple[str, ...]], float]:
        found = await metrics(system)  # without figures of a database that did not answer in time
        return found if ("tidelog_consumer_lag_events", ("projects",)) in found else {}

    found = await eventually(measured, "the metrics of the log")
    assert found["tidelog_consumer_lag_events", ("projects",)] == 1 and found["tidelog_consumer_lag_events", (PARTITIONS[0],)] == 0
    assert found["tidelog_parked_events", ("runs",)] == 1
    assert found["tidelog_log_head_position", ()] == await system.container.feed.head()


async def test_a_relay_that_stands_still_is_seen(system: System) -> None:
    """No reader is stuck then, because readers ask the database. So only health shows the problem."""
    await system.settled()
    before = await system.copied()
    await stopped(system.tasks.pop("relay"))
    await system.http.post("/v1/projects", json={"name": "p"})
    head = await system.container.feed.head()
    report = await ready(system)
    assert report["head"] == head
    assert report["streams"] == {"relay": {"position": before, "lag": head - before}}

    async def measured() -> float | None:
        return (await metrics(system)).get(("tidelog_consumer_lag_events", ("relay",)))  # None: the database did not answer in time

    assert await eventually(measured, "the metric of the relay") == head - before


async def metrics(system: System) -> dict[tuple[str, tuple[str, ...]], float]:
    async with system.client(None) as anybody:
        response = await anybody.get("/metrics")
    assert response.status_code == 200 and response.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(response.text)
    return {(s.name, tuple(s.labels.values())): s.value for family in families for s in family.samples}


async def test_the_work_is_counted_and_the_sums_are_those_of_the_log(system: System, worker: PlayedWorker) -> None:
    run_id = await system.start("alpha")
    alpha = await worker.next("alpha")
    await alpha.call("k", "add", a=1)
    call = await worker.next("add", "tool")
    await call.fail("transient", retry_after_s=0)
    again = await worker.next("add", "tool")
    await again.complete(3)
    await alpha.complete()
    await system.start("beta")
    await system.ended(run_id)
    await system.settled()

    async def counted() -> dict[tuple[str, tuple[str, ...]], float]:
        found = await metrics(system)  # a report may be a second old
        return found if found.get(("tidelog_agent_runs_in_flight", ("beta", "waiting"))) == 1 else {}

    found = await eventually(counted, "the metrics of the work")
    assert found["tidelog_runs_started_total", ()] == 2 and found["tidelog_runs_in_flight", ()] == 1
    assert found["tidelog_runs_ended_total", ("completed",)] == 1
    assert found["tidelog_agent_runs_ended_total", ("alpha", "completed")] == 1
    assert found["tidelog_tool_calls_ended_total", ("succeeded", "add")] == 1
    assert found["tidelog_tool_call_retries_total", ("add",)] == 1
    assert found["tidelog_tool_call_duration_seconds_count", ("add",)] == 1
    assert 0 < found["tidelog_agent_run_duration_seconds_sum", ("alpha",)] < 600
    assert found["tidelog_queue_oldest_seconds", ("agent", "beta")] > 0
    assert found["tidelog_queue_oldest_seconds", ("agent", "alpha")] == 0
    await system.http.post("/v1/projections/activity/verify", json={})

    async def verified() -> str | None:
        check = (await system.http.get("/v1/projections/activity")).json()["check"]
        return check["status"] if check["status"] in ("equal", "different", "failed") else None

    assert await eventually(verified, "the comparison with the log") == "equal"


async def test_requests_are_counted_by_route(system: System) -> None:
    name = "tidelog_http_requests_total"
    before = await metrics(system)
    for path in ("/v1/runs", "/v1/runs?limit=1", f"/v1/runs/{'0' * 32}", "/nowhere", "/v1/nowhere"):
        await system.http.get(path)
    after = await metrics(system)

    def counted(*labels: str) -> float:
        return after.get((name, labels), 0) - before.get((name, labels), 0)

    assert counted("GET", "/v1/runs", "200") == 2
    assert counted("GET", "/v1/runs/{run_id}", "404") == 1
    assert counted("GET", "other", "404") == 2
    assert after["tidelog_http_request_seconds_count", ("/v1/runs",)] >= 2


async def test_the_writer_of_the_log_is_measured(database_url: str, nats_url: str) -> None:
    async with wired(database_url) as (wire, url), running(url, nats_url) as system:
        await issue_key(system)
        before = await metrics(system)
        await asyncio.gather(*(system.http.post("/v1/projects", json={"name": f"p{number}"}) for number in range(20)))
        after = await metrics(system)
        counted = {name: value - before[name, ()] for (name, labels), value in after.items() if not labels and (name, ()) in before}
        assert counted["tidelog_append_written_total"] >= 20
        assert counted["tidelog_append_write_seconds_count"] >= 1
        assert 0 < counted["tidelog_append_write_seconds_sum"] < 60
        assert after["tidelog_append_waiting", ()] == 0

        await wire.cut()
        posts = [asyncio.create_task(system.http.post("/v1/projects", json={"name": f"q{number}"})) for number in range(40)]

        async def waiting() -> bool:  # asked here: the answer over HTTP waits for the database, and an append waits ten seconds
            return (REGISTRY.get_sample_value("tidelog_append_waiting") or 0) > 0

        await eventually(waiting)
        await wire.mend()
        assert {(await post).status_code for post in posts} == {201}
        assert (await metrics(system))["tidelog_append_waiting", ()] == 0


async def test_every_metric_of_ours_is_documented(system: System) -> None:
    page = (Path(__file__).parents[2] / "docs/reference/metrics.md").read_text()
    documented = set(re.findall(r"^\| `(tidelog_\w+)", page, re.M))
    async with system.client(None) as anybody:
        text = (await anybody.get("/metrics")).text
    assert documented == {name for name in re.findall(r"^# TYPE (tidelog_\w+) ", text, re.M) if not name.endswith("_created")}


async def test_without_postgres(database_url: str, nats_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.http.conventions.look_ups.PATIENCE_S", 1.0)
    async with wired(database_url) as (wire, url), running(url, nats_url) as system:
        await issue_key(system)
        await ready(system)
        await wire.cut()

        async def gone() -> bool:
            status, report = await readiness(system)
            return status == 503 and report["dependencies"]["postgres"] != "ok" and report["dependencies"]["nats"] == "ok"

        async with system.client("never seen") as anybody:
            read, _, live, found = await asyncio.gather(
                anybody.get("/v1/runs"), eventually(gone), anybody.get("/health/live"), metrics(system)
            )
        assert live.status_code == 200
        assert (read.status_code, read.json()["code"], read.json()["retryable"]) == (503, "unavailable", True)
        assert read.headers["retry-after"] == "1"
        assert not [name for name in found if name[0] == "tidelog_consumer_lag_events"], "old figures"


async def test_without_nats_commands_and_reads_go_on(database_url: str, tmp_path: Path) -> None:
    nats = NatsProcess(tmp_path)
    await nats.start()
    try:
        async with running(database_url, nats.url) as system:
            await issue_key(system)
            await nats.kill()

            async def gone() -> bool:
                status, report = await readiness(system)
                return status == 503 and report["dependencies"]["nats"] != "ok" and report["dependencies"]["postgres"] == "ok"

            await eventually(gone)
            created = await system.http.post("/v1/projects", json={"name": "p"})
            assert created.status_code == 201
            position = {"Tidelog-Position": created.headers["tidelog-position"]}
            names = [project["name"] for project in (await system.http.get("/v1/projects", headers=position)).json()["data"]]
            assert names == ["default", "p"], "the projector reads the database meanwhile"
            await nats.start()

            async def back() -> bool:
                return (await readiness(system))[0] == 200

            await eventually(back)
    finally:
        await nats.kill()
