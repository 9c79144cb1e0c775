"""`tidelog up` of root: the worker's own account reads the agents, writes into the workspace, and reads no file of the server."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from adapters.embedded.state import SPARE_ROOT
from api.supervisor import worker_account
from tests.e2e.cli_kit import environment, exit_code, until
from tests.pace import ANSWER_S
from tests.temporary import short_folder

REPOSITORY = Path(__file__).resolve().parents[2]
AGENT = textwrap.dedent(
    """
    import os
    from pathlib import Path
    from tidelog import Agent, ToolContext, tool

    def readable(path):
        try:
            return bool(Path(path).read_bytes())
        except OSError:
            return False

    @tool("test.peek", idempotent=True)
    def peek(ctx: ToolContext, paths: list[str]) -> dict:
        "Tries to read what it may not."
        (ctx.workspace / "mine.txt").write_text("written")
        (Path.home() / "cache").touch()
        others = [pid for pid in os.listdir("/proc") if pid.isdigit() and int(pid) != os.getpid()]
        return {
            "uid": os.getuid(),
            "groups": os.getgroups(),
            "read": [path for path in paths if readable(path)],
            "processes": [pid for pid in others if b"TIDELOG_DATABASE_URL" in environ(pid)],
            "workspace": str(ctx.workspace),
        }

    def environ(pid):
        try:
            return Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return b""

    class Spy(Agent):
        name = "spy"

        async def execute(self, ctx):
            return await ctx.tool("test.peek", paths=ctx.input)
    """
)


@pytest.fixture
def folder() -> Iterator[Path]:
    path = short_folder()
    yield path
    shutil.rmtree(path)


def python_for_all() -> str | None:
    """A Python of this version that every account can run: that of the tests may stand under the home of root."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (sys.executable, shutil.which(name, path="/usr/bin:/usr/local/bin")):
        try:
            if path and subprocess.run([path, "-c", "import ssl"], user=65534, group=65534, check=False).returncode == 0:
                return path
        except OSError:
            continue
    return None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop to another account")
def test_agents_read_no_password_of_the_server(folder: Path) -> None:
    python = python_for_all()
    if python is None:
        pytest.skip("no Python of this version that another account can run")
    (folder / "agents").mkdir()
    (folder / "agents" / "spying.py").write_text(AGENT)
    packages = [path for path in sys.path if path.endswith("site-packages")]
    search = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "sdk" / "src"), *packages])
    server = subprocess.Popen(
        [python, "-P", "-m", "api.cli.main", "up", "--json", "--port", "0", "--agents", "agents", "--data-dir", "data"],
        cwd=folder, env=environment(PYTHONPATH=search), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
        told = json.loads((folder / "data" / "server.json").read_text())
        home = Path(told["embedded"]["home"])
        secret = [home / "secrets.json", home / "nats.conf", home / "logs" / "nats.log", folder / "data" / "api-key"]
        assert all(path.exists() for path in secret)
        key = (folder / "data" / "api-key").read_text().strip()
        answer = run(url, key, [str(folder / "agents" / "spying.py"), *map(str, secret)])
        assert answer["uid"] not in (0, os.stat(home / "nats.conf").st_uid) and answer["groups"] in ([], [answer["uid"]])
        assert answer["read"] == [str(folder / "agents" / "spying.py")]
        assert answer["processes"] == []
        assert (Path(answer["workspace"]) / "mine.txt").read_text() == "written"
        assert told["worker_account"] == "tidelog-worker" and told["workspace"] == answer["workspace"]
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            exit_code(server)
        finally:
            server.kill()
            server.communicate()
        for own in SPARE_ROOT.glob(f"worker-*-{worker_account.folder_key(str(folder / 'data'))}"):
            shutil.rmtree(own)


def run(url: str, key: str, paths: list[str]) -> dict[str, Any]:
    with httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=ANSWER_S) as client:
        until(lambda: any(agent["name"] == "spy" for agent in client.get("/v1/agents").json()["data"]))
        run_id = client.post("/v1/runs", json={"agent": "spy", "input": paths}).raise_for_status().json()["run_id"]

        def ended() -> Any:
            answer = client.get(f"/v1/runs/{run_id}")
            return answer.json() if answer.status_code == 200 and answer.json()["status"] != "running" else None

        run = until(ended)
    assert run["status"] == "completed", run
    return dict(run["result"])
