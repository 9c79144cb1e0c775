"""`tidelog doctor` on made-up troubles, with real servers: each trouble is named, and its cure. One server has most of them."""

import asyncio
import json
import os
import textwrap
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from adapters.embedded import EmbeddedServices
from api.cli import doctor
from api.cli.diagnosis import diagnose
from api.cli.diagnosis.findings import Diagnosis, Finding
from api.supervisor.state import create_key
from tests.integration.played_worker import PlayedWorker
from tests.integration.system_kit import System, eventually, served, stopped
from tests.kit import forked
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
    worker, stop = Worker(url=url, api_key=system.key, agents=agents), asyncio.Event()
    worker.show_problems(found.problems)
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
    await (await worker.next("mail", "tool")).lose()
    await worker.withdraw("gamma")
    return invocation_id


async def made_up_troubles(system: System) -> int:
    """Work that has waited for long, a parked event, an event less, and nobody who does the engine's work.

    Returns the position without an event.
    """
    await stopped(system.tasks.pop("sharing"))
    await system.sql("UPDATE activity SET since = since - interval '20 minutes' WHERE label = 'gamma'")
    await system.sql("UPDATE open_work SET dispatched_at = dispatched_at - interval '20 minutes' WHERE pool = 'gamma'")
    [(root_id,)] = await system.sql("SELECT root_id FROM event WHERE topic = 'run.started' LIMIT 1")
    parked = "('runs', 3, %s, gen_random_uuid(), 'run.started', 'KeyError: broken handler')"
    await system.sql(f"INSERT INTO parked_event VALUES {parked}", root_id)
    [(lost,)] = await system.sql("DELETE FROM event WHERE topic = 'project.created' RETURNING notification_id")
    return int(lost)


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
    monkeypatch.setattr("tidelog.worker.runtime.REPORT_EVERY_S", 0.1)
    invocation_id = await ambiguous_call(system, worker)
    await system.start("gamma")
    async with served(system.container) as url, worker_with_a_broken_file(system, url, tmp_path):
        await system.sql("DELETE FROM worker_problem")
        await eventually(system.container.problems.count, "the next report of the worker")
        await system.settled()
        lost = await made_up_troubles(system)
        backend = await backend_for_health(system)
        with full_disk(services.home / "postgres" / "data", backend):
            with pytest.raises(SystemExit):
                await doctor._doctor(tmp_path / "none", url, True)
            _, _, printed = capsys.readouterr().out.rpartition("\n{\n")  # after the log of the server
            assert not json.loads("{" + printed)["healthy"]
            diagnosis = await diagnose(tmp_path / "none", url)
            full = await eventually(lambda: ready(system, 503), "a full disk")
        assert "No space left on device" in full["dependencies"]["disk"] and full["dependencies"]["postgres"] == "ok"

    assert diagnosis.health is not None and diagnosis.health["status"] == "unavailable"
    calls = the(diagnosis, "calls")
    assert "1 ambiguous tool calls wait for a person, the oldest for" in calls.detail and f"mail {invocation_id}" in calls.detail
    assert f"tidelog invocations resolve {invocation_id}" in calls.mend
    missing = the(diagnosis, "no worker")
    assert missing.detail.startswith("1 pieces of work for agent gamma wait, the oldest for 20 min")
    assert "no worker with a session offers it" in missing.detail
    assert missing.mend.startswith("start a worker that has agent gamma: tidelog worker --agents")
    idle = [finding.detail for finding in diagnosis.findings if (finding.subject, finding.status) == ("agents", "note")]
    assert idle and "gamma" in idle[0] and "good" not in idle[0], "information, and no fault"
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
    assert the(diagnosis, "members").detail.startswith("nobody does: ")
    assert "fsync" in the(diagnosis, "durability", "warning").mend

    await eventually(lambda: _without_problems(system), "the end of the worker's session")
    report = await eventually(lambda: ready(system, 200), "room on the disk")
    assert report["status"] == "degraded", "a process stays in service although calls wait for a person"
    assert [trouble["code"] for trouble in report["degraded"]] == ["ambiguous-calls", "no-worker", "parked"]


async def _without_problems(system: System) -> bool:
    """A report is reused for a second, so the end of the worker's session may come after the first report with room on the disk."""
    report = await ready(system, 200)
    return report is not None and report["import_problems"] == 0


async def ready(system: System, status: int) -> dict[str, Any] | None:
    """The readiness report, if it comes with the status. A report is reused for a second."""
    answer = await system.http.get("/health/ready")
    return answer.json() if answer.status_code == status else None


async def test_a_worker_that_has_nothing_to_run_reports_why(system: System, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    async with served(system.container) as url:
        environment = {**os.environ, "TIDELOG_API_KEY": system.key}
        arguments = ("-m", "tidelog.worker", "--agents", str(tmp_path), "--url", url)
        process = await forked.python(*arguments, env=environment, stderr=PIPE)
        await process.communicate()
        assert process.returncode == 2
        answer = await system.http.get("/v1/workers/problems")

        async def counted() -> dict[str, Any] | None:
            report: dict[str, Any] = (await system.http.get("/health/ready")).json()
            return report if "import_problems" in report else None  # left out where a look takes two seconds

        health = await eventually(counted)
    [problem] = answer.json()["data"]
    assert (problem["path"], problem["kind"]) == (str(tmp_path / "broken.py"), "import-failed")
    assert (health["status"], health["degraded"][0]["code"], health["import_problems"]) == ("degraded", "import-problems", 1)


async def test_the_doctor_names_what_keeps_a_server_from_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    create_key(tmp_path)
    (tmp_path / "api-key").chmod(0o644)
    async with await asyncio.start_server(silent, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        monkeypatch.setenv("TIDELOG_PORT", str(port))
        monkeypatch.setenv("TIDELOG_PROT", "8")
        monkeypatch.setenv("TIDELOG_WHATEVER", "8")
        monkeypatch.setenv("TIDELOG_DATABASE_URL", NOBODY)
        diagnosis = await diagnose(tmp_path, None)
    misspelt = the(diagnosis, "settings", "warning")
    assert misspelt.detail.startswith("TIDELOG_PROT is no setting") and misspelt.mend == "write TIDELOG_PORT, or unset it"
    assert [f.detail for f in diagnosis.findings if f.status == "note" and "TIDELOG_WHATEVER" in f.detail]
    holder = the(diagnosis, "port", "warning")
    assert holder.detail.startswith(f"{port} is in use by process {os.getpid()}: ") and "--port" in holder.mend
    assert "TIDELOG_DATABASE_URL" in the(diagnosis, "database").detail
    assert the(diagnosis, "API key").mend == f"chmod 600 {tmp_path / 'api-key'}"
