"""The command line builds only the command that is asked for."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from api.cli.asked_for import only
from api.cli.main import app


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], list[Any]]]:
    """The words of each command, and the names of its parameters."""
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from leaves(inner, (*path, name))
    else:
        yield path, [parameter.opts for parameter in command.params]


ALL = dict(leaves(typer.main.get_command(app)))


def built(*words: str) -> dict[tuple[str, ...], list[Any]]:
    return dict(leaves(typer.main.get_command(only(app, words))))


def test_each_command_is_built_alone_and_as_it_is_among_all() -> None:
    assert len(ALL) > 100
    for words, parameters in ALL.items():
        assert built(*words) == built(*words, "--help") == {words: parameters}


def test_a_group_is_built_whole_for_its_help_and_for_a_name_that_it_has_not() -> None:
    of_runs = {words: parameters for words, parameters in ALL.items() if words[0] == "runs"}
    assert len(of_runs) > 10
    assert built("runs") == built("runs", "--help") == built("runs", "lsit") == of_runs


@pytest.mark.parametrize("words", [[], ["--help"], ["--version"], ["rnus", "list"], [""]])
def test_all_is_built_where_no_command_is_named(words: list[str]) -> None:
    assert built(*words) == ALL


def test_what_is_left_out_of_one_call_is_there_in_the_next() -> None:
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            app(["projects", "--help"])
        assert ended.value.code == 0
    assert built() == ALL


def test_the_words_are_those_of_the_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["tidelog", "version"])
    with pytest.raises(SystemExit):
        app()
    assert capsys.readouterr().out.strip()
