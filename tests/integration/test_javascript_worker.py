"""A worker in JavaScript, written from the page about sessions alone. Where Node or `ws` cannot be had, the test is skipped."""

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.architecture.sources import ROOT
from tests.integration.system_kit import System, served
from tests.pace import in_time

HERE = Path(__file__).parent / "node"
INSTALLED = ROOT / ".venv" / "node-worker"
INSTALL_S, PATIENCE_S = 60, 20.0


def packages() -> Path:
    """The folder of the packages of the lock file, installed once. Skips the test where they cannot be had."""
    lock = (HERE / "package-lock.json").read_text()
    kept = INSTALLED / "package-lock.json"
    if not kept.is_file() or kept.read_text() != lock:
        npm = shutil.which("npm")
        if npm is None or shutil.which("node") is None:
            pytest.skip("Node and npm are not here")
        INSTALLED.parent.mkdir(exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=INSTALLED.parent))
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, fresh)
        command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline", "--silent", "--prefix", str(fresh)]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_S)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            shutil.rmtree(fresh)
            pytest.skip("the package ws cannot be had from the npm registry")
        shutil.rmtree(INSTALLED, ignore_errors=True)
        fresh.rename(INSTALLED)
    return INSTALLED / "node_modules"


class NodeWorker:
    """The process, and what it has told."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.told: list[dict[str, Any]] = []

    async def tells(self, happened: str, **fields: Any) -> dict[str, Any]:
        """Waits for a line of this kind with these fields. Lines before it are kept in `told`."""

        async def find() -> dict[str, Any]:
            assert self.process.stdout is not None
            while line := await self.process.stdout.readline():
                found: dict[str, Any] = json.loads(line)
                self.told.append(found)
                if found["happened"] == happened and all(found.get(name) == value for name, value in fields.items()):
                    return found
            raise AssertionError(f"the worker has ended; it told {self.told}")

        return await in_time(find(), PATIENCE_S)


@asynccontextmanager
async def node_worker(url: str, key: str) -> AsyncIterator[NodeWorker]:
    environment = {**os.environ, "NODE_PATH": str(packages()), "TIDELOG_URL": url, "TIDELOG_API_KEY": key}
    process = await asyncio.create_subprocess_exec(
        "node", str(HERE / "worker.js"), env=environment, stdout=asyncio.subprocess.PIPE, limit=2**20
    )
    try:
        yield NodeWorker(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_worker_that_is_written_from_the_page_works_and_comes_back(shared: System) -> None:
    packages()
    async with served(shared.container) as url, node_worker(url, shared.key) as worker:
        first = await worker.tells("welcome", again=False)
        assert [(one["name"], one["accepted"]) for one in first["agents"]] == [("js-agent", True)]
        assert [(one["name"], one["accepted"]) for one in first["tools"]] == [("js.upper", True), ("js.half", False)]
        run_id = await shared.start("js-agent", input="hello")
        await worker.tells("welcome", again=True)
        run = await shared.ended(run_id)
        assert (run["status"], run["result"] if "result" in run else run["steps"][0]["result"]) == ("completed", "HELLO")
        failed = await shared.ended(await shared.start("js-agent", input="fail"))
        assert failed["status"] == "failed" and failed["steps"][0]["error"]["message"] == "as asked"
        worker.process.terminate()
        assert await in_time(worker.process.wait(), PATIENCE_S) == 0
        await worker.tells("closed", code=1000)
        events = [one["happened"] for one in worker.told]
        assert events.count("welcome") == 2 and not {"refused", "error", "stop"} & set(events), worker.told
