"""Tidelog as users run it, for the benchmarks of runs: `tidelog up`, and workers beside it, on one PostgreSQL and NATS."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adapters.embedded import EmbeddedServices
from adapters.nats.log.relay import FORMAT_KNOWN_S
from benchmarks.run_load import Target
from benchmarks.servers import environment, free_port

KEY = "tl_benchmark"
AGENTS = Path(__file__).parent / "agents"
READY_S = 60.0
CONNECTIONS = "20000"
"""Connections of one key. The default of 2,000 would refuse a burst of 10,000 clients, each with a connection of its own."""
AGENTS_AT_ONCE = "1000"
"""Agents that the worker carries out side by side: as many as the burst has, so that this bound does not set its time."""
TOOLS_AT_ONCE = "64"


def answer(port: int, path: str) -> tuple[int, bytes]:
    """The status and body of an answer; 0 without an answer. No proxy is asked."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2.0)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {KEY}"})
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def until_answers(port: int, path: str, process: "subprocess.Popen[str]", *, holds: str = "") -> None:
    """Waits for an answer with status 200 that holds the text."""
    deadline = time.monotonic() + READY_S
    while True:
        status, body = answer(port, path)
        if status == 200 and holds.encode() in body:
            return
        if process.poll() is not None:
            raise RuntimeError(f"{process.args} ended with status {process.returncode}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} on port {port} does not say {holds!r} after {READY_S:g} s")
        time.sleep(0.02)


def until_listens(port: int, process: "subprocess.Popen[str]") -> None:
    """Waits until a program that speaks no HTTP/1 takes connections."""
    deadline = time.monotonic() + READY_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=2.0).close()
        except OSError:
            if process.poll() is not None:
                raise RuntimeError(f"{process.args} ended with status {process.returncode}") from None
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


@contextmanager
def child(
    command: list[str], env: dict[str, str], *, input: str | None = None, silent: bool = False
) -> "Iterator[subprocess.Popen[str]]":
    """Runs a program during the block. `input`: one line for it. `silent`: nobody sees what it logs."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL if silent else None,
        text=True,
    )
    if input is not None:
        assert process.stdin is not None
        with process.stdin:
            process.stdin.write(input + "\n")
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Tidelog:
    """An installation: processes of it that share the embedded servers."""

    def __init__(self, services: EmbeddedServices, folder: Path) -> None:
        self._environment = environment(
            services, TIDELOG_API_KEY=KEY, TIDELOG_LOG_LEVEL="error", TIDELOG_MAX_CONNECTIONS_PER_KEY=CONNECTIONS
        )
        self._folder = folder
        self._number = 0

    @contextmanager
    def up(self, *options: str, **settings: str) -> Iterator[str]:
        """Runs `tidelog up` without a worker during the block. Yields its URL. `settings`: variables of its environment."""
        self._number += 1
        port, data = free_port(), str(self._folder / f"server-{self._number}")
        command = [sys.executable, "-m", "api.cli.main", "up", "--port", str(port), "--data-dir", data, "--no-worker", "--json"]
        with child([*command, *options], {**self._environment, **settings}) as process:
            until_answers(port, "/health/ready", process)
            # From then on the relay knows that all processes read the newest format of the log's messages. Before, sagas and queue
            # may do all work that was done in the append once more, in vain.
            time.sleep(FORMAT_KNOWN_S)
            yield f"http://127.0.0.1:{port}"

    @contextmanager
    def worker(
        self,
        url: str,
        suffix: str = "",
        agents: Path = AGENTS,
        among: str = "",
        known: str = "three-steps",
        silent: bool = False,
        options: Sequence[str] = (),
    ) -> Iterator[int]:
        """Runs `tidelog worker` during the block, for agents whose names end with the suffix. Yields its process id.

        The block begins when the server lists the agent `known`. `among`: the query of that list, which has one page. `silent`: for
        agents that fail on purpose.
        """
        command = [sys.executable, "-m", "api.cli.main", "worker", "--agents", str(agents)]
        command += ["--concurrency", AGENTS_AT_ONCE, "--tool-concurrency", TOOLS_AT_ONCE, *options]
        own = {"TIDELOG_URL": url, "BENCHMARK_AGENTS": suffix}
        with child(command, {**self._environment, **own}, silent=silent) as process:
            until_answers(int(url.rpartition(":")[2]), f"/v1/agents{among}", process, holds=f'"{known}{suffix}"')
            yield process.pid

    @contextmanager
    def builtin_worker(self, url: str, *options: str) -> Iterator[int]:
        """Runs `tidelog worker --builtin`, which may call this machine. Yields its process id."""
        command = [sys.executable, "-m", "api.cli.main", "worker", "--builtin", "--allow-network", "127.0.0.1", *options]
        with child([*command, "--tool-concurrency", TOOLS_AT_ONCE], {**self._environment, "TIDELOG_URL": url}) as process:
            until_answers(int(url.rpartition(":")[2]), "/v1/tools", process, holds='"time.now"')
            yield process.pid


def target(url: str, key: str = KEY) -> Target:
    """Runs that are started and awaited by one request."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "Prefer": "wait=60"}
    return Target(f"{url}/v1/runs", headers, f"{url}/v1/runs/{{}}")


def run(agent: str, **input: Any) -> dict[str, Any]:
    """The body of the request that starts a run."""
    return {"agent": agent, "input": input}
