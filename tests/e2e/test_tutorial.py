"""The tutorials as a reader follows them: files are written, commands are run, and their output agrees with the page.

Blocks of docs/tutorial.md and docs/tutorial-tools.md:
    ```python file=NAME        is written to NAME
    ```python append=NAME      is written to the end of NAME
    ```console                 lines with `$ ` are run in one shell; the other lines are the output
    ```console background      the same for a command that stays: Ctrl-C stops it when the next such command starts
The output is compared loosely: `…` matches any text, blanks match any blanks, and there may be further lines in between.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cli_kit import exit_code
from tests.pace import ANSWER_S, Deadline, finished
from tests.ports import free_port

DOCS = Path(__file__).parents[2] / "docs"
PORT_OF_THE_PAGE = "8700"
START_TIMEOUT_S = 60
COMMAND_TIMEOUT_S = 90


@dataclass(frozen=True)
class Block:
    kind: str
    argument: str
    text: str


def blocks(page: str) -> list[Block]:
    found = re.findall(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    return [Block(*parts) for parts in found]


def commands(text: str) -> list[tuple[str, str]]:
    """Command and expected output."""
    parts = re.split(r"^\$ (.*)\n", text, flags=re.MULTILINE)
    assert parts[0] == "", "a console block begins with a command"
    return list(zip(parts[1::2], parts[2::2], strict=True))


def plain(text: str) -> str:
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split())


def missing(expected: str, printed: str) -> str | None:
    """The first piece of the expected text that is missing in the rest of the output. None if no piece is missing."""
    rest = plain(printed)
    for line in expected.splitlines():
        for piece in line.split("…"):
            wanted = plain(piece)
            place = rest.find(wanted)
            if place < 0:
                return wanted
            rest = rest[place + len(wanted) :]
    return None


@dataclass
class Reader:
    """A reader who follows the page in a folder of their own."""

    folder: Path
    port: int
    background: subprocess.Popen[str] | None = None
    done: list[str] = field(default_factory=list)
    held: bool = False

    def follow(self, block: Block) -> None:
        match block:
            case Block("python", argument) if argument.startswith("file="):
                path = self.folder / argument.removeprefix("file=")
                path.parent.mkdir(exist_ok=True)
                path.write_text(block.text)
            case Block("python", argument) if argument.startswith("append="):
                with (self.folder / argument.removeprefix("append=")).open("r+") as file:
                    assert file.read(), "there is something to append to"
                    file.write(f"\n\n{block.text}")
            case Block("console", "background"):
                [(command, expected)] = commands(block.text)
                assert self.stop() == 0
                self.start(command, expected)
            case Block("console", ""):
                for command, expected in commands(block.text):
                    self.run(command, expected)
            case Block("sh", ""):
                pass  # the fixture made these preparations in its own way
            case _:
                raise AssertionError(f"a block that this test does not know: {block.kind} {block.argument}")

    def environment(self) -> dict[str, str]:
        """The environment without the user's settings; `tidelog` and `python` are those of the tests."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("TIDELOG_")}
        path = os.pathsep.join([str(Path(sys.executable).parent), own.get("PATH", os.defpath)])
        return {**own, "PATH": path, "TIDELOG_PORT": str(self.port)}

    def run(self, command: str, expected: str) -> None:
        """Runs a command. The next command sees the variables that this command sets."""
        variables = self.folder / ".variables"
        variables.touch()
        script = f"set -ea; . ./.variables; {self._on_port(command)}\nexport -p > .variables"
        holding = threading.Thread(target=self.hold_work, daemon=True)
        if "start counter" in command:
            holding.start()
        done = finished(["bash", "-c", script], COMMAND_TIMEOUT_S, cwd=self.folder, env=self.environment())
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        lacking = missing(self._on_port(expected), done.stdout)
        assert lacking is None, f"{command}\ndid not print (here): {lacking}\nbut:\n{done.stdout}\n{done.stderr}"
        if holding.ident is not None:
            holding.join()
            assert self.held, "no work"
        self.done.append(command)

    def start(self, command: str, expected: str) -> None:
        output = self.folder / "background.log"
        with output.open("w") as file:
            self.background = subprocess.Popen(
                shlex.split(command), cwd=self.folder, env=self.environment(), stdout=file, stderr=subprocess.STDOUT, text=True
            )
        deadline = Deadline(START_TIMEOUT_S)
        while (lacking := missing(self._on_port(expected), output.read_text())) is not None:
            assert self.background.poll() is None, f"{command} ended:\n{output.read_text()}"
            assert not deadline.over_here(), f"{command} did not print: {lacking}\nbut:\n{output.read_text()}"
            time.sleep(0.1)
        self.wait_for_worker()
        self.done.append(command)

    def wait_for_worker(self) -> None:
        """A reader needs some time to open a second terminal. The worker registers in this time."""
        deadline = Deadline(START_TIMEOUT_S)
        while "worker_registered" not in (self.folder / "background.log").read_text():
            assert not deadline.over_here(), "no worker"
            time.sleep(0.1)

    def hold_work(self) -> None:
        """Lets the worker stand still when its second step has begun. On a slow machine the run would be over before the kill."""
        deadline = Deadline(START_TIMEOUT_S)
        counted = self.folder / "counted.txt"
        while not counted.exists() or len(counted.read_text().splitlines()) < 2:
            if deadline.over_here():
                return
            time.sleep(0.02)
        server = json.loads((self.folder / ".tidelog" / "server.json").read_text())
        os.kill(server["processes"]["worker"]["pid"], signal.SIGSTOP)
        self.held = True

    def stop(self) -> int:
        """Sends Ctrl-C. Returns the exit code."""
        if self.background is None:
            return 0
        self.background.send_signal(signal.SIGINT)
        try:
            return exit_code(self.background)
        finally:
            self.background.kill()
            self.background.wait(timeout=ANSWER_S)
            self.background = None

    def _on_port(self, text: str) -> str:
        return text.replace(f":{PORT_OF_THE_PAGE}", f":{self.port}")


@pytest.fixture
def reader() -> Iterator[Reader]:
    port = free_port()
    folder = Path(tempfile.mkdtemp(prefix="tidelog-tutorial-"))
    folder.chmod(0o755)  # the embedded servers' account must pass through the folder
    (folder / "agents").mkdir()
    reader = Reader(folder, port)
    try:
        yield reader
    finally:
        with contextlib.suppress(AssertionError):
            reader.stop()
        shutil.rmtree(folder, ignore_errors=True)


def counted_once(reader: Reader) -> None:
    """The end of docs/tutorial.md."""
    assert sum(command.startswith("curl ") for command in reader.done) == 1
    counted = [int(line) for line in (reader.folder / "counted.txt").read_text().split()]
    assert len(counted) <= 13, "only the step that was under way may be done twice"
    claims = reader_events(reader, "agent_run.claimed")
    assert [event["data"]["attempt"] for event in claims] == [1, 1, 1, 1, 2]
    steps = reader_events(reader, "agent_run.step_recorded")
    recorded = [event["data"]["key"] for event in steps if event["data"]["key"].startswith("count-")]
    assert recorded == [f"count-{number}" for number in range(1, 13)]


def acted_once(reader: Reader) -> None:
    """The end of docs/tutorial-tools.md."""
    orders = [line.rpartition(" ")[0] for line in (reader.folder / "orders.txt").read_text().splitlines()]
    assert sorted(orders[:3]) == ["hotel", "taxi", "train"]
    assert orders[3:] == ["reserve 12A", "reserve 12B", "release 12B", "release 12A"]
    assert (reader.folder / "asked.txt").read_text().split() == ["Bergen", "Oslo", "Paris", "Rome"]
    asked = [event["subject"] for event in reader_events(reader, "invocation.requested")]
    ended = [event["subject"] for topic in ("succeeded", "resolved") for event in reader_events(reader, f"invocation.{topic}")]
    assert Counter(ended) == Counter(asked), "each call has one outcome"


@pytest.mark.parametrize(
    ("page", "happened"),
    [
        pytest.param(
            "tutorial.md",
            counted_once,
            marks=pytest.mark.skipif(shutil.which("curl") is None, reason="the page uses curl"),
        ),
        ("tutorial-tools.md", acted_once),
    ],
)
def test_tutorial(reader: Reader, page: str, happened: Callable[[Reader], None]) -> None:
    for block in blocks((DOCS / page).read_text()):
        reader.follow(block)
    assert sum("tidelog up" in command for command in reader.done) == 2
    happened(reader)


def reader_events(reader: Reader, topic: str) -> list[dict[str, Any]]:
    command = ["tidelog", "events", "tail", "--type", topic, "--no-follow", "--json"]
    done = finished(command, COMMAND_TIMEOUT_S, cwd=reader.folder, env=reader.environment())
    done.check_returncode()
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_comparison_finds_what_is_missing() -> None:
    assert missing(" …  run   completed\n\nResult\n", "0:01  run completed\nsomething\nResult") is None
    assert missing("first\nsecond\n", "second first") == "second"
    assert missing("a … c", "a b") == "c"
    assert missing("", "anything") is None
