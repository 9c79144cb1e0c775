"""The parts of `tidelog up`: children that are restarted, the lock and files of a data folder, the configuration."""

import asyncio
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from api.settings import load_settings
from api.supervisor import service, state
from api.supervisor.config import SupervisorConfig, worker_environment
from api.supervisor.errors import AlreadyRunning, CannotStart, SupervisorError
from api.supervisor.processes import EXIT_CANNOT_START, Backoff, Program, SupervisedProcess
from api.supervisor.service import roles_of_processes
from api.supervisor.state import RunningServer
from tests.pace import in_time, until, within
from tidelog.keys import id_of, sha256_of

Start = Callable[[str], "Child"]


class Child:
    """A supervised Python that runs the given source."""

    def __init__(self, source: str) -> None:
        self._changed = asyncio.Event()
        program = Program((sys.executable, "-S", "-E", "-c", source), {})
        self.process = SupervisedProcess("child", lambda: program, stop_patience_s=0.5, changed=self._changed.set)
        self.task = asyncio.create_task(self.process.run())

    async def pid(self, *, restarts: int = 0) -> int:
        """Returns the pid of the child after so many restarts, or after more, if the event loop came late."""
        async with within(10):
            while (told := self.process.describe())["pid"] is None or told["restarts"] < restarts:
                self._changed.clear()
                await self._changed.wait()
        assert isinstance(told["pid"], int)
        return told["pid"]


@pytest_asyncio.fixture
async def start() -> AsyncIterator[Start]:
    started: list[Child] = []

    def start(source: str) -> Child:
        started.append(Child(source))
        return started[-1]

    yield start
    for child in started:
        await child.process.stop()
        await asyncio.gather(child.task, return_exceptions=True)


LEAVES_A_CHILD = """
import os, signal, sys, time
if not os.fork():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with open({path!r}, "w") as file:
        file.write(str(os.getpid()) + "\\n")
time.sleep(60)
"""


@pytest.mark.parametrize("how", ["its parent is killed", "its parent is stopped"])
async def test_what_a_child_has_started_ends_with_the_child(start: Start, tmp_path: Path, how: str) -> None:
    path = tmp_path / "pid"
    child = start(LEAVES_A_CHILD.format(path=str(path)))
    pid = await child.pid()

    async def has_begun() -> bool:
        return path.exists() and path.read_text().endswith("\n")

    await until(has_begun, 10)
    left = int(path.read_text())
    if how == "its parent is killed":
        os.kill(pid, signal.SIGKILL)
    else:
        await child.process.stop()

    async def has_ended() -> bool:
        return not _runs(left)

    await until(has_ended, 10)


def _runs(pid: int) -> bool:
    """Whether a process runs. One that has ended may wait for its parent as a zombie."""
    try:
        os.kill(pid, 0)
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text() if Path("/proc/self/stat").exists() else True
    except (ProcessLookupError, FileNotFoundError):
        return False


async def test_a_killed_child_is_started_again(start: Start) -> None:
    child = start("import time; time.sleep(60)")
    first = await child.pid()
    os.kill(first, signal.SIGKILL)
    assert await child.pid(restarts=1) != first


async def test_a_start_that_the_system_refuses_is_tried_again() -> None:
    programs = iter(
        [OSError("no space left on device"), Program((sys.executable, "-S", "-E", "-c", "import time; time.sleep(60)"), {})]
    )

    def program() -> Program:
        given = next(programs)
        if isinstance(given, OSError):
            raise given
        return given

    process = SupervisedProcess("child", program, stop_patience_s=0.5, changed=lambda: None)
    running = asyncio.create_task(process.run())
    try:
        async with within(10):
            while process.describe()["pid"] is None:
                assert not running.done(), running
                await asyncio.sleep(0.01)
    finally:
        await process.stop()
        await running


async def test_a_child_that_cannot_start_ends_the_supervision(start: Start) -> None:
    child = start(f"raise SystemExit({EXIT_CANNOT_START})")
    with pytest.raises(CannotStart, match="child"):
        await in_time(child.task, 10)


async def test_once_the_server_was_ready_no_end_is_final(start: Start) -> None:
    child = start(f"import time; time.sleep(0.1); raise SystemExit({EXIT_CANNOT_START})")
    child.process.settled = True
    await child.pid(restarts=2)
    assert not child.task.done()


async def test_stop_asks_first_and_kills_then(start: Start, tmp_path: Path) -> None:
    deaf = tmp_path / "deaf"
    os.mkfifo(deaf)
    ignoring = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    child = start(f"{ignoring}; open({str(deaf)!r}, 'w').close(); time.sleep(60)")
    pid = await child.pid()
    await in_time(asyncio.to_thread(deaf.read_bytes), 10)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await child.process.stop()
    assert loop.time() - began >= 0.5
    await in_time(child.task, 5)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_backoff_doubles_up_to_its_bound() -> None:
    backoff = Backoff()
    pauses = []
    for _ in range(9):
        backoff.started()
        pauses.append(backoff.ended())
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10, 10]
    assert backoff.short_lives == 9


def test_backoff_begins_anew_after_a_longer_life(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("api.supervisor.processes.time.monotonic", lambda: now)
    backoff = Backoff()
    assert [backoff.ended(), backoff.ended()] == [0.2, 0.4]
    backoff.started()
    now += 6
    assert backoff.ended() == 0.2
    assert backoff.short_lives == 0


# --- the folder -------------------------------------------------------------------------------------------------------


def test_a_folder_has_one_server(tmp_path: Path) -> None:
    server = RunningServer("http://127.0.0.1:1", os.getpid(), "2026-01-31T12:00:00.000Z")
    with state.holding(tmp_path):
        assert state.running(tmp_path) is None, "it is held, but not ready"
        state.publish(tmp_path, server)
        assert state.running(tmp_path) == server
        with pytest.raises(AlreadyRunning, match=rf"{server.url} \(process {server.pid}\)"), state.holding(tmp_path):
            pass
        assert state.running(tmp_path) == server, "the one that was refused changed nothing"
    assert not state.held(tmp_path)
    assert not (tmp_path / "server.json").exists()


def test_what_a_killed_server_left_is_not_believed(tmp_path: Path) -> None:
    state.publish(tmp_path, RunningServer("http://127.0.0.1:1", os.getpid(), ""))
    (tmp_path / "up.lock").touch()
    assert state.running(tmp_path) is None


@pytest.mark.parametrize("content", ["", "[]", '{"url": 1', '{"pid": 1}', '{"url": "u", "pid": 1, "started_at": "", "new": 1}'])
def test_a_damaged_or_newer_server_file_is_no_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "server.json").write_text(content)
    found = state.read(tmp_path)
    assert found is None or found.url == "u"


def test_the_keys_of_a_folder_are_made_once_and_private(tmp_path: Path) -> None:
    for create, read, path, kind in (
        (state.create_key, state.read_key, state.key_path(tmp_path), "tl_key_"),
        (state.create_worker_key, state.read_worker_key, state.worker_key_path(tmp_path), "tl_worker_"),
    ):
        assert read(tmp_path) is None
        key = create(tmp_path)
        assert key.startswith(kind) and id_of(key) is not None
        path.chmod(0o644)
        assert create(tmp_path) == key == read(tmp_path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["api-key", "worker-key"]


def test_a_key_of_an_earlier_release_stays(tmp_path: Path) -> None:
    old = "tl_" + "k" * 43
    state.key_path(tmp_path).write_text(old + "\n")
    assert state.create_key(tmp_path) == old
    assert service._to_issue(old) == sha256_of(old), "it has no id of its own"
    new = state.create_worker_key(tmp_path)
    assert service._to_issue(new) == f"{id_of(new)}:{sha256_of(new)}"


@pytest.mark.parametrize("content", [b"", b"tl_short", b"tl_" + b"a" * 42 + b"!", b"\xff" * 46])
def test_a_damaged_key_is_refused(tmp_path: Path, content: bytes) -> None:
    state.key_path(tmp_path).write_bytes(content)
    with pytest.raises(SupervisorError, match="remove it"):
        state.create_key(tmp_path)


# --- the configuration ------------------------------------------------------------------------------------------------


def test_configuration_survives_the_way_to_the_supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings(data_dir=Path("data"), agents=(Path("agents"),), database_url="postgresql://u:p@h/d", port=0)
    config = SupervisorConfig.of(settings, isolate=True)
    assert SupervisorConfig.from_json(config.to_json()) == config
    assert config.data_dir == str(tmp_path / "data")
    assert config.agents == (str(tmp_path / "agents"),)
    assert config.database_url == "postgresql://u:p@h/d"
    assert SupervisorConfig.of(settings, with_worker=False).agents == ()


def test_workers_do_not_inherit_the_secrets_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "NATS_URL", "BOOTSTRAP_KEY_SHA256", "LOG_LEVEL"):
        monkeypatch.setenv(f"TIDELOG_{name}", "x")
    inherited = worker_environment()
    assert {name for name in inherited if name.startswith("TIDELOG_") and inherited[name] == "x"} == {"TIDELOG_LOG_LEVEL"}


@pytest.mark.parametrize(
    ("chosen", "isolate", "expected"),
    [
        ("api,relay,projector,saga", False, ["api,relay", "relay,projector,saga"]),
        ("api,relay,projector,saga", True, ["api,relay", "relay", "projector", "saga"]),
        ("relay,projector,saga", False, ["relay,projector,saga"]),
        ("relay,projector,saga", True, ["relay", "projector", "saga"]),
        ("api,relay", False, ["api,relay"]),
        ("api", False, ["api"]),
        ("relay", False, ["relay"]),
        ("api,saga", False, ["api", "saga"]),
    ],
)
def test_the_relay_is_beside_the_api_and_another_process_stands_in(chosen: str, isolate: bool, expected: list[str]) -> None:
    processes = roles_of_processes(chosen.split(","), isolate=isolate)
    assert [",".join(roles) for roles in processes] == expected
