"""Bytecode of a fresh clone is written before the tests begin."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import bytecode


def a_clone(folder: Path, count: int) -> list[Path]:
    files = [folder / "tests" / "unit" / f"test_{number}.py" for number in range(count)]
    (folder / "tests" / "unit" / "__pycache__").mkdir(parents=True)
    for file in files:
        file.touch()
    return sorted(files)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that were begun."""
    begun: list[list[str]] = []

    class Process:
        def __init__(self, command: list[str], **_: Any) -> None:
            begun.append(command)

        def wait(self) -> int:
            return 0

    monkeypatch.setattr(subprocess, "Popen", Process)
    monkeypatch.setattr(bytecode.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(bytecode.sys, "dont_write_bytecode", False)
    monkeypatch.setattr(bytecode.sys, "pycache_prefix", None)
    return begun


def test_each_file_of_a_fresh_clone_is_compiled_by_one_process(tmp_path: Path, begun: list[list[str]]) -> None:
    files = a_clone(tmp_path, 101)
    bytecode.write(tmp_path)
    parts = [[Path(word) for word in command if word.endswith(".py")] for command in begun]
    assert len(parts) == 2 and sorted(parts[0] + parts[1]) == files


def test_what_has_bytecode_is_left_alone(tmp_path: Path, begun: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    for file in a_clone(tmp_path, 101)[:60]:
        (file.parent / "__pycache__" / f"{file.stem}{bytecode.SUFFIX}").touch()
    bytecode.write(tmp_path)
    monkeypatch.setattr(bytecode.sys, "dont_write_bytecode", True)
    for file in (tmp_path / "tests" / "unit" / "__pycache__").iterdir():
        file.unlink()
    bytecode.write(tmp_path)
    assert begun == []


def test_the_bytecode_is_where_pytest_puts_it() -> None:
    assert bytecode.without([Path(__file__)]) == [] or bytecode.sys.dont_write_bytecode
