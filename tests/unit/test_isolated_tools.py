"""Calls in processes of their own: results, failures, bounds, and that nothing is left of them. With namespaces and without."""

import asyncio
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.kit import isolated
from tests.kit.played_service import played_service
from tests.pace import ANSWER_S, Deadline
from tidelog import tool
from tidelog.errors import DefinitionError
from tidelog.failures import ErrorReport, tool_failure
from tidelog.isolation import declared
from tidelog.isolation.call import _wait
from tidelog.isolation.declared import Isolation, lacking
from tidelog.isolation.kernel import Kernel, kernel_here, libc
from tidelog.isolation.pool import OUTPUT_BYTES
from tidelog.isolation.tool import IsolatedTool, Isolating, _count
from tidelog.tools import Tool, ToolContext
from tidelog.used import Told
from tidelog.work_log import WORK_LOG, WorkLog

PR_GET_DUMPABLE = 3
BARE = Kernel(reason="the test leaves it out")
HERE = kernel_here()


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=[HERE, BARE], ids=["kernel", "bare"])
async def isolating(request: pytest.FixtureRequest) -> AsyncIterator[Isolating]:
    isolating = Isolating(request.param)
    yield isolating
    isolating.close()


async def call(isolating: Isolating, of: Tool[..., Any], **arguments: Any) -> Any:
    return await isolating.isolated(of).invoke(arguments, ToolContext(Path("/tmp"), "the-key", 2))


async def failure(isolating: Isolating, of: Tool[..., Any], **arguments: Any) -> ErrorReport:
    with pytest.raises(Exception) as raised:
        await call(isolating, of, **arguments)
    return tool_failure(raised.value)


async def until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = Deadline(seconds)
    while not condition():
        assert not await deadline.over(), f"not within {seconds} s"
        await asyncio.sleep(0.02)


def is_free(lock: Path) -> bool:
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


async def test_results_and_arguments(isolating: Isolating) -> None:
    assert await call(isolating, isolated.add, a=2, b=3) == 5
    assert await asyncio.gather(*(call(isolating, isolated.add, a=n) for n in range(5))) == [1, 2, 3, 4, 5]
    refused = await failure(isolating, isolated.add, a="x")
    assert (refused.kind, refused.type) == ("invalid", "InvalidArgumentsError") and "a: Input should be" in refused.message


@pytest.mark.parametrize("came", [True, False])
def test_the_end_of_a_call_is_told_however_late_its_keeper_looks(came: bool) -> None:
    tool = subprocess.Popen([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])
    os.waitid(os.P_PID, tool.pid, os.WEXITED | os.WNOWAIT)
    (inner, inner_there), (worker, control) = socket.socketpair(), socket.socketpair()
    if came:
        socket.send_fds(inner_there, [b"5.0"], [control.fileno()])
    for each in (inner_there, control):
        each.close()
    line, ended = _wait(inner, -1, tool.pid)
    tool.returncode = -9  # the keeper has waited for it
    assert os.WTERMSIG(ended["status"]) == signal.SIGKILL
    assert (line is not None) is came
    if line is not None:
        line.sendall(b"told")
        line.close()
    assert worker.recv(9) == (b"told" if came else b"")
    worker.close()
    inner.close()


async def test_what_a_call_sees_and_says(isolating: Isolating, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDELOG_API_KEY", "the key of the worker")
    monkeypatch.setenv("NAMED_FOR_THE_TOOL", "given")
    lines: list[dict[str, str]] = []
    token = WORK_LOG.set(WorkLog(lambda line: lines.append(json.loads(line))))
    try:
        seen = await call(isolating, isolated.look)
    finally:
        WORK_LOG.reset(token)
    assert seen["environment"]["NAMED_FOR_THE_TOOL"] == "given" and "PATH" in seen["environment"]
    assert not any(name.startswith(("TIDELOG", "PYTEST")) for name in seen["environment"])
    assert (seen["key"], seen["workspace"]) == ("the-key", "/tmp")
    told = {(line["level"], line["text"]) for line in lines}
    assert told == {("warning", "looked attempt=2"), ("info", "printed"), ("warning", "told"), ("info", "logged")}
    # The loop of the call and the listing itself have some; none is one of the worker.
    assert seen["files"][:4] == [0, 1, 2, 3] and len(seen["files"]) < 10


async def test_a_call_reads_neither_environment_nor_memory_of_the_worker(isolating: Isolating) -> None:
    for name in ("environ", "mem", "maps"):
        refused = await failure(isolating, isolated.read, path=f"/proc/{os.getpid()}/{name}")
        assert refused.type in ("PermissionError", "FileNotFoundError", "ProcessLookupError"), refused.message
    if sys.platform == "linux":  # for root, who runs the tests in places, the lack of capabilities alone would do
        assert libc().prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0


@pytest.mark.parametrize(
    ("how", "kind", "type", "told"),
    [
        ("segfault", "transient", "ProcessCrashedError", "SIGSEGV"),
        ("abort", "transient", "ProcessCrashedError", "SIGABRT"),
        ("kill", "transient", "ProcessCrashedError", "SIGKILL"),
        ("exit", "permanent", "ProcessExitError", "exit code 3"),
        ("sys.exit", "permanent", "ProcessExitError", "SystemExit(3)"),
        ("permanent", "permanent", "PermanentError", "never"),
        ("transient", "transient", "TransientError", "later"),
        ("large", "permanent", "ValueTooLargeError", "200 KiB"),
        ("forged", "permanent", "PermanentError", "no JSON"),
        ("endless", "permanent", "ProcessExitError", "without a result"),
    ],
)
async def test_each_end_is_a_failure_of_its_kind(isolating: Isolating, how: str, kind: str, type: str, told: str) -> None:
    report = await failure(isolating, isolated.end, how=how)
    assert (report.kind, report.type) == (kind, type) and told in report.message
    if how == "transient":
        assert report.retry_after_s == 7 and report.file is not None and report.file.endswith("isolated.py")
    assert await call(isolating, isolated.end, how="well") == "as it should"


async def test_processor_memory_and_files_have_bounds(isolating: Isolating, tmp_path: Path) -> None:
    spun = await failure(isolating, isolated.spin)
    assert (spun.kind, spun.type) == ("permanent", "CpuLimitError")
    hoarded = await failure(isolating, isolated.hoard)
    assert (hoarded.kind, hoarded.type) == ("permanent", "MemoryLimitError")
    assert await call(isolating, isolated.open_files, path=str(tmp_path / "large")) == ["Too many open files", "File too large"]


async def test_a_call_without_a_network_reaches_nothing(isolating: Isolating) -> None:
    async with played_service() as service:
        alone = await call(isolating, isolated.offline, port=service.port)
        assert await call(isolating, isolated.online, port=service.port) == "connected"
    problems = [problem.message for problem in isolating.problems if "offline" in problem.message]
    if HERE.network and not problems:
        assert alone == "OSError"
    else:
        assert alone == "connected" and "it has a network all the same" in problems[0]


async def test_nothing_is_left_of_a_call(isolating: Isolating, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert await call(isolating, isolated.leave, path=str(lock)) == "held"
    assert is_free(lock), "the process that the tool has left behind is gone when the call is over"


async def test_a_cancelled_call_is_killed(isolating: Isolating, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    task = asyncio.create_task(call(isolating, isolated.wait, path=str(lock)))
    await until(lambda: Path(f"{lock}.held").exists(), ANSWER_S)
    assert not is_free(lock)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await until(lambda: is_free(lock), 1)


async def test_output_is_bounded(isolating: Isolating) -> None:
    lines: list[str] = []
    token = WORK_LOG.set(WorkLog(lambda line: lines.append(json.loads(line)["text"])))
    try:
        assert await call(isolating, isolated.chatter, lines=50_000) == 50_000
    finally:
        WORK_LOG.reset(token)
    assert lines[0] == "line 0 of many" and any("is dropped" in line for line in lines[-2:])
    assert sum(map(len, lines)) <= OUTPUT_BYTES + 200


async def test_a_template_that_ended_is_started_anew_and_calls_leave_no_files_open(isolating: Isolating) -> None:
    add = isolating.isolated(isolated.add)
    assert isinstance(add, IsolatedTool)
    context = ToolContext(Path(), "k", 1)
    assert await add.invoke({"a": 1}, context) == 2
    first, files = add.template.pid, len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        await add.invoke({"a": 1}, context)
    assert len(os.listdir("/proc/self/fd")) == files and add.template.pid == first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: Path(f"/proc/{first}/stat").read_text().split()[2] == "Z", ANSWER_S)
    assert await add.invoke({"a": 1}, context) == 2 and add.template.pid != first


WORKER = """
import asyncio, sys
from pathlib import Path
from tests.kit import isolated
from tidelog.isolation.kernel import Kernel, kernel_here
from tidelog.isolation.tool import Isolating
from tidelog.tools import ToolContext

async def main():
    kernel = kernel_here() if sys.argv[2] == "kernel" else Kernel()
    await Isolating(kernel).isolated(isolated.wait).invoke({"path": sys.argv[1]}, ToolContext(Path(), "k", 1))

asyncio.run(main())
"""


@pytest.mark.parametrize("kernel", ["kernel", "bare"])
async def test_the_death_of_the_worker_is_the_death_of_its_calls(kernel: str, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", WORKER, str(lock), kernel, env=environment)
    try:
        await until(lambda: Path(f"{lock}.held").exists(), ANSWER_S)
        assert not is_free(lock)
    finally:
        worker.kill()
        await worker.wait()
    await until(lambda: is_free(lock), ANSWER_S)


# --- declarations -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"isolation": "sandbox"}, "isolation must be 'process'"),
        ({"isolation": "process", "memory": 3}, "there is no memory"),
        ({"isolation": "process", "memory_mb": 1}, "memory_mb must be 16 to"),
        ({"isolation": "process", "files": True}, "files must be 16 to"),
        ({"isolation": "process", "cpu_s": 0}, "cpu_s must be over 0"),
        ({"isolation": "process", "network": "no"}, "True or False"),
        ({"isolation": "process", "environment": "NAME"}, "a tuple of names"),
        ({"network": False}, "network is for isolation='process' only"),
    ],
)
def test_a_declaration_that_cannot_be_meant_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(DefinitionError, match=told):
        tool("t", **options)(lambda: None).describe()


def test_what_is_required_and_cannot_be_had_refuses_the_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    @tool("t", isolation="process", network=False, required=True)
    def demanding() -> None: ...

    monkeypatch.setattr(declared, "kernel_here", lambda: BARE)
    with pytest.raises(DefinitionError, match="requires what this machine cannot do: it has a network all the same"):
        demanding.describe()
    monkeypatch.setattr(declared, "kernel_here", lambda: Kernel(True, True, True, ""))
    assert demanding.describe().name == "t"
    assert lacking(Isolation(network=True), Kernel(True, True, False, "x")) == ""


def test_a_tool_that_no_other_process_could_find_is_refused() -> None:
    @tool("t", isolation="process")
    def inner() -> None: ...

    with pytest.raises(DefinitionError, match="at the top of a module"):
        Isolating(HERE).isolated(inner)


def test_what_a_process_says_to_have_used_is_not_believed_where_it_is_no_usage() -> None:
    told: list[bytes] = []
    used = Told(told.append)
    used.add(Decimal("0.0000004"), 3)
    used.add(0.5, None)
    with pytest.raises(ValueError, match="tokens are not negative"):
        used.add(None, -1)
    context = ToolContext(Path("/tmp"), "the-key", 1)
    nonsense = (
        b"", b"{", b"[]", b"7", b'{"money": "NaN"}', b'{"money": []}', b'{"tokens": -1}', b'{"tokens": "x"}', b'{"tokens": 1e999}',
    )  # fmt: skip
    for text in (*told, *nonsense):
        _count(context, text)
    assert context._used.said() == used.said() == {"money": "0.500001", "tokens": 3}
