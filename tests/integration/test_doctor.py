"""`tidelog doctor` on made-up troubles, with real servers: each trouble is named, and its cure. One server has most of them."""

import asyncio
import json
import os
import textwrap
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from adapters.embedded import EmbeddedServices
from api.cli import doctor
from api.cli.diagnosis import diagnose
from api.cli.diagnosis.findings import Diagnosis, Finding
from tests.integration.system_kit import PlayedWorker, System, eventually, served, stopped
from tidelog.discovery import discover
from tidelog.worker import Worker

NOBODY = "postgresql://nobody@127.0.0.1:9/nothing?connect_timeout=2"


def the(diagnosis: Diagnosis, subject: str, status: str = "wrong") -> Finding:
    """The only finding of a subject with a status. It has a cure."""
    found = [finding for finding in diagnosis.findings if (finding.subject, finding.status) == (subject, status)]
    assert len(found) == 1 and found[0].mend, [finding for finding in diagnosis.findings if finding.status != "ok"]
    return found[0]


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TIDELOG_")]:
        monkeypatch.delenv(name)


@contextmanager
def full_disk(data: Path, backend: int) -> Iterator[None]:
    """The temporary files that a backend is about to make lead to the device that is always full."""
    folder = data / "base" / "pgsql_tmp"
    if not folder.exists():
        folder.mkdir()
        os.chown(folder, data.stat().st_uid, data.stat().st_gid)
    links = [folder / f"pgsql_tmp{backend}.{number}" for number in range(100)]
    for link in links:
        link.symlink_to("/dev/full")
    try:
        yield
    finally:
        for link in links:
            link.unlink(missing_ok=True)


async def backend_for_health(system: System) -> int:
    """The process of PostgreSQL that serves the connection for health."""
    await system.http.get("/health/ready")
    sql = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE '%%-health'"
    [(pid,)] = await system.sql(sql)
    return int(pid)


@asynccontextmanager
async def worker_with_a_broken_file(system: System, url: str, folder: Path) -> AsyncIterator[None]:
    """The worker of the SDK, on a folder with one good file and one that cannot be imported."""
    (folder / "broken.py").write_text("import nothing_of_this_name\n")
    good = """
        from tidelog import Agent

        class Good(Agent):
            async def execute(self, ctx):
                return 1
    """
    (folder / "good.py").write_text(textwrap.dedent(good))
    found = discover(folder)
    agents = [agent.cls for agent in found.agents.values()]
    worker, stop = Worker(url=url, api_key=system.key, agents=agents, problems=found.problems), asyncio.Event()
    task = asyncio.create_task(worker.run(stop))
    try:
        await eventually(lambda: asyncio.sleep(0, worker.registered.is_set()), "the registration")
        yield
    finally:
        stop.set()
        await task


async def ambiguous_call(system: System, worker: PlayedWorker) -> str:
    """A call whose worker has vanished, of a tool that must not be called twice."""
    await system.start("alpha")
    alpha = await worker.next("alpha")
    invocation_id = await alpha.call("k", "mail")
    await worker.next("mail", "tool")
    claim = {"worker_id": "another", "dispatch": 1, "claim_id": "another"}
    assert (await system.http.post(f"/v1/invocations/{invocation_id}/claim", json=claim)).status_code == 409
    return invocation_id


async def test_the_doctor_names_what_a_server_cannot_do_and_the_cure(
    system: System,
    worker: PlayedWorker,
    services: EmbeddedServices,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("adapters.postgres.room.ASK_EVERY_S", 0.0)
    monkeypatch.setenv("TIDELOG_API_KEY", system.key)
    invocation_id = await ambiguous_call(system, worker)
    await system.start("gamma")
    await system.settled()
    await system.sql("UPDATE activity SET since = since - interval '20 minutes' WHERE label = 'gamma'")
    [(root_id,)] = await system.sql("SELECT root_id FROM event WHERE topic = 'run.started' LIMIT 1")
    parked = "('runs', 3, %s, gen_random_uuid(), 'run.started', 'KeyError: broken handler')"
    await system.sql(f"INSERT INTO parked_event VALUES {parked}", root_id)
    await system.copied()
    await stopped(system.tasks.pop("relay"))
    await system.http.post("/v1/projects", json={"name": "not copied"})
    await system.settled()
    [(lost,)] = await system.sql("DELETE FROM event WHERE topic = 'api_key.issued' RETURNING notification_id")
    backend = await backend_for_health(system)

    async with served(system.container) as url, worker_with_a_broken_file(system, url, tmp_path):
        with full_disk(services.home / "postgres" / "data", backend):
            with pytest.raises(SystemExit):
                await doctor._doctor(tmp_path / "none", url, True)
            assert not json.loads(capsys.readouterr().out)["healthy"]
            diagnosis = await diagnose(tmp_path / "none", url)
            answer = await system.http.get("/health/ready")
        assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
        assert "No space left on device" in answer.json()["dependencies"]["disk"]
        assert answer.json()["dependencies"]["postgres"] == "ok"

    assert diagnosis.health is not None and diagnosis.health["status"] == "unavailable"
    calls = the(diagnosis, "calls")
    assert "1 ambiguous tool calls wait for a person, the oldest for" in calls.detail and f"mail {invocation_id}" in calls.detail
    assert f"tidelog invocations resolve {invocation_id}" in calls.mend
    queue = the(diagnosis, "queue")
    assert queue.detail.startswith("1 pieces of work for agent gamma wait, the oldest for 20 min")
    assert "tidelog worker" in queue.mend
    file = the(diagnosis, "worker file")
    assert str(tmp_path / "broken.py") in file.detail and "No module named 'nothing_of_this_name'" in file.detail
    assert "restart that worker" in file.mend
    runs = the(diagnosis, "runs")
    assert "1 events are put aside" in runs.detail and "at position 3: KeyError: broken handler" in runs.detail
    assert "tidelog projections retry runs" in runs.mend
    log = the(diagnosis, "log")
    assert log.detail.startswith("1 events are missing among positions 1 to ") and log.detail.endswith(f": {lost}")
    assert "restore a backup" in log.mend
    disk = the(diagnosis, "disk")
    assert "the disk of PostgreSQL is full" in disk.detail and "make room" in disk.mend
    assert "events behind and does not move" in the(diagnosis, "relay").detail
    assert "fsync" in the(diagnosis, "durability", "warning").mend

    report = await eventually(lambda: with_room(system), "room on the disk")
    assert [trouble["code"] for trouble in report["degraded"]] == ["ambiguous-calls", "work-waits", "parked"]


async def with_room(system: System) -> dict[str, Any] | None:
    """A process stays in service although calls wait for a person."""
    answer = await system.http.get("/health/ready")
    return answer.json() if (answer.status_code, answer.json()["status"]) == (200, "degraded") else None


async def test_the_doctor_names_what_keeps_a_server_from_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    (tmp_path / "api-key").write_text("k" * 32)
    (tmp_path / "api-key").chmod(0o644)
    async with await asyncio.start_server(silent, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        monkeypatch.setenv("TIDELOG_PORT", str(port))
        monkeypatch.setenv("TIDELOG_PROT", "8")
        monkeypatch.setenv("TIDELOG_WHATEVER", "8")
        monkeypatch.setenv("TIDELOG_DATABASE_URL", NOBODY)
        diagnosis = await diagnose(tmp_path, None)
    settings = [finding for finding in diagnosis.findings if (finding.subject, finding.status) == ("settings", "warning")]
    assert [(finding.detail.split()[0], finding.mend.split(";")[0]) for finding in settings] == [
        ("TIDELOG_PROT", "write TIDELOG_PORT, or unset it"),
        ("TIDELOG_WHATEVER", "unset it"),
    ]
    holder = the(diagnosis, "port", "warning")
    assert holder.detail.startswith(f"{port} is in use: process {os.getpid()} (") and "--port" in holder.mend
    assert "TIDELOG_DATABASE_URL" in the(diagnosis, "database").detail
    assert the(diagnosis, "API key").mend == f"chmod 600 {tmp_path / 'api-key'}"
