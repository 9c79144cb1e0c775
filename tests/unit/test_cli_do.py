"""`tidelog do`: the line that the words of a shell say; and the folder of the example agents."""

from pathlib import Path

import pytest

from api.cli import output
from api.cli.commands import crew_folder
from api.cli.do import text_of
from application.slash_commands.line import read_line


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["/task Write notes agent=x"], "/task Write notes agent=x"),
        (["task Write notes"], "/task Write notes"),
        (["/task", "Write", "notes"], '/task "Write notes"'),
        (["task", "Write", "agent=two words", "notes"], '/task agent="two words" "Write notes"'),
        (["/task", "Write the customer's letter", "--size", "5"], '/task size=5 "Write the customer\'s letter"'),
        (["/task agent=x Write", "a note"], '/task agent=x "Write a note"'),
        (["/query", "of=runs"], "/query of=runs"),
        (["/task", "x={}", "--y=1 2"], '/task x="{}" y="1 2"'),
        (["/task", "--size"], "/task --size"),
        (["/task a='b", "c"], "/task a='b c"),
        (["/", "x"], "/ x"),
    ],
)
def test_words_become_a_line(words: list[str], line: str) -> None:
    assert text_of(words) == line


def test_what_the_shell_put_together_stays_together() -> None:
    read = read_line(text_of(["/task", 'say="hi" it\'s', "Set", "a b=c"]))
    assert [(option.name, option.value) for option in read.options] == [("say", '"hi" it\'s')]
    assert read.text == "Set a b=c"


def test_the_example_agents_are_written_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from api.cli.commands import _write_crew

    assert (crew_folder() / "agents.py").exists()
    _write_crew(tmp_path / "crew")
    assert {path.name for path in (tmp_path / "crew").iterdir()} == {path.name for path in crew_folder().iterdir()} - {
        "__pycache__"
    }
    assert f"--agents {tmp_path / 'crew'}" in capsys.readouterr().out
    with pytest.raises(output.CommandFailed, match="is there already"):
        _write_crew(tmp_path / "crew")
