"""Every `tidelog` command in a code block of the documentation and in a unit of systemd exists, with its options."""

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main

from api.cli.main import app
from tests.architecture.sources import ROOT, tracked_files
from tests.pages import blocks

PAGES = [path for path in tracked_files() if path.suffix in (".md", ".service") and path.name != "CHANGELOG.md"]


def commands_of(path: Path) -> list[list[str]]:
    """The arguments of each `tidelog …` of a page or unit, without what a shell adds."""
    if path.suffix == ".service":
        return [shlex.split(line)[1:] for line in re.findall(r"^ExecStart=(.*)$", (ROOT / path).read_text(), flags=re.MULTILINE)]
    found = []
    for block in blocks(str(path)):
        if block.language not in ("sh", "console", "bash"):
            continue
        for line in block.text.splitlines():
            if match := re.match(r"(?:\$ )?(?:[A-Z_]+=\S* )*tidelog ([^|>&;]*)", line.strip()):
                found.append(shlex.split(match[1], comments=True))
    return found


DOCUMENTED = [(path, command) for path in PAGES for command in commands_of(path)]


def test_commands_are_found() -> None:
    assert len(DOCUMENTED) > 20


@pytest.mark.parametrize(("path", "arguments"), DOCUMENTED, ids=[f"{path}: {' '.join(words)}" for path, words in DOCUMENTED])
def test_command_exists_with_its_options(path: Path, arguments: list[str]) -> None:
    command: Any = whole()
    rest = list(arguments)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        assert name in command.commands, f"there is no command {name}"
        command = command.commands[name]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)} | {"--help", "-h"}
    if command.name == "worker":
        known |= options_of_the_worker()
    given = {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
    assert given <= known, f"{' '.join(arguments)}: {sorted(given - known)}"


@cache
def whole() -> Any:
    return typer.main.get_command(app)


@cache
def options_of_the_worker() -> frozenset[str]:
    help_text = subprocess.run(
        [sys.executable, "-m", "tidelog.worker", "--help"], capture_output=True, text=True, check=True
    ).stdout
    return frozenset(re.findall(r"--[a-z-]+", help_text))
