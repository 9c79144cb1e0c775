"""The command line without a running server: a command starts a server for itself. Also the demo, from an empty folder to the
report."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cli_kit import TIDELOG, command, environment, exit_code, until
from tests.pace import ANSWER_S, slowness_lately

TRUE_OF_THE_MACHINE = {"worker_runs_as_root", "event_loop_blocked", "not_ready_yet"}
"""Warnings that the machine of the tests may give rise to: its accounts, and its other work."""
TRUE_OF_A_BUSY_MACHINE = {"waiting_for_projector", "beat_failed", "sessions_not_renewed", "nats_does_not_answer"}
"""Warnings of a process that waited for some seconds for another one, which may have had no processor."""
BUSY = 2.0
IDLE = '''
from tidelog import Agent, Context


class Idle(Agent):
    """Does nothing."""

    async def execute(self, ctx: Context) -> None:
        pass
'''


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="tidelog-cli-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def repository(folder: Path) -> Path:
    repository = folder / "small"
    repository.mkdir()
    (repository / "main.py").write_text('"""A program."""\n\nprint("hello")  # TODO: say more\n')
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "Begin"]):
        identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, *arguments], cwd=repository, check=True, timeout=ANSWER_S)
    return repository


def test_the_demo_leaves_a_report(folder: Path, repository: Path) -> None:
    done = command("demo", "--data-dir", folder / "demo", cwd=repository)  # the repository of the working directory
    assert done.returncode == 0, done.stderr
    assert "started: historian, surveyor, inspector, then editor" in done.stdout
    [report] = (folder / "demo" / "reports").glob("*.md")
    assert f"Report   {report}" in done.stdout
    assert report.read_text().startswith("# Review of small")
    assert f"replay {report.stem}" in done.stdout
    assert not (folder / "demo" / "server.json").exists()
    assert subprocess.run(["git", "status", "--short"], cwd=repository, capture_output=True, timeout=ANSWER_S).stdout == b""

    # Afterwards no server runs, and every command still works on the same log.
    listed = command("runs", "list", "--json", "--data-dir", "demo", cwd=folder)
    [run] = json.loads(listed.stdout)
    assert listed.stderr == "No server runs on demo: one is started for this command.\n"
    assert (run["run_id"], run["status"], run["degraded"]) == (report.stem, "completed", False)
    tail = command("events", "tail", "--run", report.stem, "--json", "--data-dir", "demo", cwd=folder)
    assert len(tail.stdout.splitlines()) == run["event_count"]
    assert not (folder / "demo" / "server.json").exists()


def test_the_demo_wants_a_repository(folder: Path) -> None:
    (folder / "plain").mkdir()
    for path in ("plain", "missing"):
        done = command("demo", "--repo", path, "--data-dir", "unused", cwd=folder, GIT_CEILING_DIRECTORIES=str(folder))
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert done.stderr.startswith("error: ")
    assert not (folder / "unused").exists()


def test_a_bare_repository_is_called_so(folder: Path) -> None:
    subprocess.run(["git", "init", "-q", "--bare", "bare.git"], cwd=folder, check=True, timeout=ANSWER_S)
    done = command("demo", "--repo", "bare.git", "--data-dir", "unused", cwd=folder)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {folder}/bare.git is a bare repository, which has no files to review: ")


def test_ctrl_c_stops_everything_that_was_started(folder: Path, repository: Path) -> None:
    data_dir = folder / "demo"
    with (folder / "keep.out").open("wb") as out:
        process = subprocess.Popen(
            [TIDELOG, "demo", "--keep", "--repo", repository, "--data-dir", data_dir],
            cwd=folder, env=environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        until(lambda: "The server runs on" in (folder / "keep.out").read_text() or process.poll() is not None, 60)
        assert process.poll() is None, (folder / "keep.out").read_text()
        server = json.loads((data_dir / "server.json").read_text())
        process.send_signal(signal.SIGINT)
        assert exit_code(process) == 0
    finally:
        process.kill()
        process.wait(timeout=ANSWER_S)
    assert "Traceback" not in (folder / "keep.out").read_text()
    for child in (*server["processes"].values(), server["embedded"]["postgres"], server["embedded"]["nats"], server):
        with pytest.raises(ProcessLookupError):
            os.kill(child["pid"], 0)


def test_no_server_survives_the_supervisor(folder: Path) -> None:
    """This holds also for a killed command, which cannot stop its servers."""
    data_dir = folder / "demo"
    process = subprocess.Popen(
        [TIDELOG, "up", "--port", "0", "--data-dir", data_dir], cwd=folder, env=environment(), stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until(lambda: (data_dir / "server.json").exists() or process.poll() is not None, 60)
        server = json.loads((data_dir / "server.json").read_text())
    finally:
        process.kill()
        process.wait(timeout=ANSWER_S)
    pids = [child["pid"] for child in (*server["processes"].values(), server["embedded"]["postgres"], server["embedded"]["nats"])]
    until(lambda: not any(Path(f"/proc/{pid}").exists() and not is_zombie(pid) for pid in pids))
    # The files that the command left behind are not mistaken for a running server.
    assert json.loads(command("doctor", "--json", "--data-dir", data_dir, cwd=folder).stdout)["server"] is None


def test_a_normal_start_and_stop_warn_of_nothing(folder: Path) -> None:
    (folder / "agents").mkdir()
    (folder / "agents" / "idle.py").write_text(IDLE)
    with (folder / "up.err").open("wb") as err:
        process = subprocess.Popen(
            [TIDELOG, "up", "--port", "0", "--data-dir", folder / "fresh", "--agents", "agents"],
            cwd=folder, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=err,
        )  # fmt: skip
    try:
        until(lambda: "worker_registered" in (folder / "up.err").read_text() or process.poll() is not None, 60)
        until(lambda: (folder / "fresh" / "server.json").exists() or process.poll() is not None, 60)
        process.send_signal(signal.SIGINT)
        assert exit_code(process) == 0
    finally:
        process.kill()
        process.wait(timeout=ANSWER_S)
    lines = [json.loads(line) for line in (folder / "up.err").read_text().splitlines()]
    expected = TRUE_OF_THE_MACHINE | (TRUE_OF_A_BUSY_MACHINE if asyncio.run(slowness_lately()) > BUSY else set())
    assert [line for line in lines if line["level"] != "info" and line["event"] not in expected] == []
    assert {line["role"] for line in lines} >= {"supervisor", "api+relay", "projector+relay+saga", "worker"}
    assert all(list(line)[:4] == ["timestamp", "level", "logger", "event"] for line in lines)


def is_zombie(pid: int) -> bool:
    """Whether the process has ended, perhaps not yet reaped by the system's first process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_the_doctor_works_without_a_server_and_names_what_is_wrong(folder: Path) -> None:
    done = command("doctor", "--data-dir", "nothing", cwd=folder)
    assert done.returncode == 0, done.stdout
    assert "none runs on nothing" in done.stdout
    assert not (folder / "nothing").exists(), "it changes nothing"
    wrong = command("doctor", "--data-dir", "nothing", cwd=folder, TIDELOG_NATS_URL="nats://127.0.0.1:9")
    assert wrong.returncode == 1
    assert "TIDELOG_NATS_URL: NATS is not connected" in wrong.stdout and "'127.0.0.1', 9" in wrong.stdout
    misspelt = command("doctor", cwd=folder, TIDELOG_PORT="x")
    assert misspelt.returncode == 1
    assert "TIDELOG_PORT: " in misspelt.stdout
