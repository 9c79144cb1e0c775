"""`tidelog worker` finds the server as other commands do, and becomes the worker of the SDK."""

import os
from pathlib import Path
from typing import Any

import pytest

from api.cli.main import app
from api.supervisor import state
from api.supervisor.state import RunningServer
from tidelog.worker.__main__ import parse_arguments


class Replaced(BaseException):
    """The process would be another program now."""

    def __init__(self, program: str, arguments: list[str], environment: dict[str, str]) -> None:
        self.arguments, self.environment = arguments, environment


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder with agents, without settings of Tidelog. A replaced process raises Replaced."""

    def execve(*given: Any) -> None:
        raise Replaced(*given)

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("TIDELOG_")]:
        monkeypatch.delenv(name)
    (tmp_path / "agents").mkdir()
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str]:
    with pytest.raises(SystemExit) as ended:
        app(["worker", *arguments], standalone_mode=False)
    return ended.value.code, capsys.readouterr().err


def test_the_server_of_the_data_folder_is_found_with_its_key(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDELOG_DATABASE_URL", "postgresql://u:secret@h/d")
    (alone / ".tidelog").mkdir()
    with state.holding(alone / ".tidelog"):
        state.publish(alone / ".tidelog", RunningServer("http://127.0.0.1:8711", os.getpid(), ""))
        key = state.create_key(alone / ".tidelog")
        with pytest.raises(Replaced) as of_before:
            app(["worker", "--agents", "agents"], standalone_mode=False)
        assert of_before.value.environment["TIDELOG_API_KEY"] == key, "a folder of before has one key"
        key = state.create_worker_key(alone / ".tidelog")
        with pytest.raises(Replaced) as replaced:
            app(["worker", "--agents", "agents", "--tool-concurrency", "3"], standalone_mode=False)
    environment = replaced.value.environment
    assert (environment["TIDELOG_URL"], environment["TIDELOG_API_KEY"]) == ("http://127.0.0.1:8711", key)
    assert "secret" not in str(environment)
    _, isolated, m, module, *arguments = replaced.value.arguments
    assert (isolated, m, module) == ("-P", "-m", "tidelog.worker")
    monkeypatch.setenv("TIDELOG_URL", environment["TIDELOG_URL"])
    monkeypatch.setenv("TIDELOG_API_KEY", key)
    given = parse_arguments(arguments)
    assert (given.agents, given.concurrency, given.tool_concurrency) == ([alone / "agents"], 100, 3)


def test_without_a_server_it_says_where_it_looked(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, line = told(capsys, "--agents", "agents")
    assert code == 1
    assert line.startswith(f"error: no server runs here (looked in {alone}/.tidelog; TIDELOG_URL is not set): ")
    assert not (alone / ".tidelog").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "error: nothing to run: give --agents FOLDER, --builtin or --tools FILE\n"),
        (["--builtin", "--allow-network", "x"], "error: 'x' is no network: write 10.0.0.0/8, 127.0.0.1 or fd00::/8\n"),
        (
            ["--builtin", "--only-host", "a/b"],
            "error: 'a/b' is no host: write api.example.com, or *.example.com for all names below\n",
        ),
        (["--tools", "nowhere.json"], "error: nowhere.json: No such file or directory\n"),
        (
            ["--agents", "agents", "--only-host", "a.example"],
            "error: --allow-network and --only-host are for --builtin and --tools; agents call what they want\n",
        ),
        (["--agents", "nowhere"], "error: --agents: there is no folder nowhere\n"),
    ],
)
def test_a_wrong_option_is_one_line_of_error(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, *arguments) == (2, line)


def test_a_server_elsewhere_needs_a_key_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    code, line = told(capsys, "--agents", "agents", "--url", "https://tidelog.example.org")
    assert (code, line) == (1, "error: there is no API key for https://tidelog.example.org: set TIDELOG_API_KEY\n")


def test_version_and_completion(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")  # else the shell that started the tests counts
    app(["--version"], standalone_mode=False)
    first = capsys.readouterr().out
    app(["version"], standalone_mode=False)
    assert capsys.readouterr().out == first
    with pytest.raises(SystemExit) as ended:
        app(["--show-completion", "bash"], standalone_mode=False, prog_name="tidelog")
    assert ended.value.code == 0
    assert "_tidelog_completion" in capsys.readouterr().out
