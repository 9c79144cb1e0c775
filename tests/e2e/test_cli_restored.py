"""`tidelog restored`, and the output of a reader's command afterwards."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cli_kit import command


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="tidelog-cli-"))
    os.chmod(folder, 0o711)
    yield folder
    shutil.rmtree(folder)


def test_a_new_history_is_begun_on_a_stopped_server_and_readers_are_told(folder: Path) -> None:
    data = ("--data-dir", "data")
    nothing = command("restored", *data, cwd=folder)
    assert nothing.returncode == 2 and "there is no log in data" in nothing.stderr
    assert not (folder / "data").exists()

    begun = command("runs", "start", "nobody", *data, cwd=folder)  # a start makes a log; a read would not
    assert begun.stderr.startswith("error: unknown-agent: "), begun.stderr
    before = [
        json.loads(line) for line in command("events", "tail", "--no-follow", "--json", *data, cwd=folder).stdout.splitlines()
    ]
    head = before[-1]["position"]
    done = command("restored", "--reason", "the disk was lost", "--position", "1", "--json", *data, cwd=folder)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    history = answer["history"]
    assert answer["begun"] is True and answer["head"] == head
    assert (history["last_common_position"], history["cause"], history["reason"]) == (1, "restored", "the disk was lost")

    void = command("events", "tail", "--after", f"{head}-{answer['before']}", "--no-follow", *data, cwd=folder)
    assert void.returncode == 1 and void.stdout == ""
    note, error = void.stderr.splitlines()
    assert note == "No server runs on data: one is started for this command."
    assert error.startswith("error: the log was restored: what was shown after position 1 is void; go on with --after 1-")
    cursor = void.stderr.split()[-1]
    again = command("events", "tail", "--after", cursor, "--no-follow", "--json", *data, cwd=folder)
    assert [json.loads(line)["position"] for line in again.stdout.splitlines()] == list(range(2, head + 1))
    assert cursor.split("-")[1] == history["id"]

    told = command("restored", *data, cwd=folder)
    assert told.returncode == 0 and f"History {history['id']} has ended." in told.stdout
    assert f"the log is at {head}" in told.stdout
    for wrong in (("--reason", " "), ("--reason", "x" * 1_001), ("--position", "-1")):
        assert command("restored", *wrong, *data, cwd=folder).returncode == 2
    assert command("events", "tail", "--after", "soon", *data, cwd=folder).returncode == 2
