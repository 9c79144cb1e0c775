"""Runs the real command `tidelog` as users do."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from tests.kit import forked
from tests.pace import ANSWER_S, Deadline

TIDELOG = Path(sys.executable).with_name("tidelog")


def environment(**variables: str) -> dict[str, str]:
    """The environment of the tests without settings of Tidelog, and with the given variables."""
    return {**{name: value for name, value in os.environ.items() if not name.startswith("TIDELOG_")}, **variables}


def command(*arguments: object, cwd: Path, stdin: int = subprocess.DEVNULL, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs `tidelog …` in a folder and waits for its end. `TIDELOG` is the file that starts it where it is not imported yet."""
    line, pipe = ("tidelog", *map(str, arguments)), subprocess.PIPE
    process = forked.start(line, cwd=cwd, env=environment(**variables), stdin=stdin, stdout=pipe, stderr=pipe)
    return process.finished(line, 60)


def exit_code(process: subprocess.Popen[Any], patience_s: float = 30) -> int:
    """Waits for the end of a process."""
    until(lambda: process.poll() is not None, patience_s)
    return int(process.returncode)


def until(condition: Callable[[], Any], patience_s: float = 20) -> Any:
    """Waits for the first truthy value of the condition. Returns the value."""
    deadline = Deadline(patience_s)
    while not (value := condition()):
        assert not deadline.over_here(), "it did not come about in time"
        time.sleep(0.05)
    return value


@dataclass
class Up:
    """A running `tidelog up`."""

    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def key(self) -> str:
        return (self.data_dir / "api-key").read_text().strip()

    def server(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.data_dir / "server.json").read_text())
        return found

    def pid(self, name: str) -> int | None:
        server = self.server()
        pid: int | None = {**server["processes"], **server["embedded"]}[name]["pid"]
        return pid

    def get(self, path: str, **params: Any) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx2.get(self.server()["url"] + path, params=params, headers=headers, timeout=ANSWER_S)

    def post(self, path: str, **body: Any) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx2.post(self.server()["url"] + path, json=body, headers=headers, timeout=ANSWER_S)
