"""`tidelog plans check`: the page about it as it stands there, lines of files, and what is no plan at all."""

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from api.cli.main import app

PAGE = (Path(__file__).parents[2] / "docs/how-to/check-a-plan.md").read_text("utf-8")
[PLAN] = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
[COMMAND, TOLD] = re.findall(r"^```\n(.*?)^```", PAGE.partition("## Without a server")[2].partition("## ")[0], re.M | re.DOTALL)


def check(*arguments: str) -> int:
    try:
        app(["plans", "check", *arguments], standalone_mode=False)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_the_page_says_what_the_command_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("review.yaml").write_text(PLAN)
    assert COMMAND.strip() == "tidelog plans check review.yaml --offline"
    assert check("review.yaml", "--offline") == 1
    assert capsys.readouterr().out == TOLD


def test_faults_for_programs_have_their_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "plan.json"
    file.write_text('{"steps": [\n  {"key": "a", "agent": "x"},\n  {"agent": "y",\n   "after": ["b"]}\n]}')
    assert check(str(file), "--offline", "--json") == 1
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert [(fault["line"], fault["pointer"]) for fault in found["faults"]] == [(3, "/steps/1"), (4, "/steps/1/after/0")]
    assert (found["valid"], found["warnings"], found["steps"], found["agents"]) == (False, [], 2, [])


def test_a_sound_plan_from_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    text = b"steps: [{key: a, agent: x, repeat: {times: 2, until: 'true'}}]"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert check("-", "--offline") == 0
    written = capsys.readouterr().out
    assert written.startswith("stdin:1  /steps/0/repeat/until  warning: this names neither")
    assert written.endswith("Valid: 1 step, 1 warning; agents were not looked up\n")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "line 1, column 1: the text is empty"),
        ("{", "line 1, column 2: "),
        ("a: 1\nb: &x 1", "line 2, column 4: anchors"),
        ("a: *x", "line 1, column 4: aliases"),
        ("a: 1\na: 2", "line 2, column 1: the key 'a' stands twice here"),
        ("? [a]\n: 1", "line 1, column 3: a key is a text"),
        ("a: 1e999", "line 1, column 4: the number is not finite"),
        ("[" * 70 + "]" * 70, "line 1, column 65: a value may be nested 64 levels deep"),
    ],
)
def test_what_is_no_plan_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, told: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(text)
    assert check(str(file), "--offline") == 2
    assert f"error: {file}: {told}" in capsys.readouterr().err


def test_files_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(b"\xff\xfe")
    assert [check(str(path), "--offline") for path in (tmp_path / "none", tmp_path, bad)] == [2, 2, 2]
    told = capsys.readouterr().err
    assert "No such file" in told and "directory" in told and "UTF-8" in told
