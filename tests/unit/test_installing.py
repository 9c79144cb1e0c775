"""`make` says what it installs, and on a terminal pip shows its own progress."""

import os
import pty
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.pace import ANSWER_S
from tests.pages import ROOT

FAKE_PYTHON = """#!/bin/sh
[ "$1" = -m ] && echo "python $*"
exit 0
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone whose environment has a Python that only says what it is asked to do."""
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "sdk").mkdir()
    shutil.copy(ROOT / "sdk" / "pyproject.toml", tmp_path / "sdk" / "pyproject.toml")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    return tmp_path


def installing(clone: Path, *, terminal: bool) -> list[str]:
    """The lines that `make` prints while it installs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    if not terminal:
        command = ["make", ".venv/.installed"]
        done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, timeout=ANSWER_S, check=True)
        return done.stdout.splitlines()
    ours, theirs = pty.openpty()
    try:
        subprocess.run(["make", ".venv/.installed"], cwd=clone, env=environment, stdout=theirs, timeout=ANSWER_S, check=True)
        text = b""
        while b"Installed." not in text:  # the system hands on what was written piece by piece
            text += os.read(ours, 65536)
        return text.decode().splitlines()
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("terminal", [False, True])
def test_each_stage_is_said_before_it_begins(clone: Path, terminal: bool) -> None:
    first, packages, second, tidelog, end = installing(clone, terminal=terminal)
    count = sum(line[:1].islower() and "==" in line for line in (ROOT / "requirements.txt").read_text().splitlines())
    assert count > 50 and f"1 of 2: {count} packages" in first and "2 of 2: Tidelog itself" in second and end == "Installed."
    assert "-r requirements.txt" in packages and "-e sdk -e ." in tidelog
    assert [("--quiet" in line) for line in (packages, tidelog)] == [not terminal] * 2
