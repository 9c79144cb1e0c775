"""`tidelog restored`, and the output of a reader's command afterwards."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.cli.main import app
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
    done = command("restored", "--reason", "the disk was lost", "--position", "1", "--json", *data, cwd=folder)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    history = answer["history"]
    head = answer["head"]  # the events are read below
    assert answer["begun"] is True and head > 1
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


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("restored", "--reason", " "), "error: --reason: give a line of text"),
        (("restored", "--reason", "x" * 1_001), "error: --reason: give a line of text"),
        (("restored", "--position", "-1"), "Invalid value for '--position'"),
        (("events", "tail", "--after", "soon"), "error: --after: 'soon' is neither a position nor a cursor"),
    ],
)
def test_wrong_usage_ends_before_a_log_is_looked_for(
    arguments: tuple[str, ...], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("TIDELOG_")]:
        monkeypatch.delenv(name)
    with pytest.raises(SystemExit) as ended:
        app([*arguments, "--data-dir", "data"])
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (2, "") and told in said.err
