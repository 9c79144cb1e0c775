"""The bytecode of a fresh clone, written by a process for each processor before the tests begin.

pytest rewrites the asserts of all files: ten seconds of processor time. Without this, each of the processes that run the tests
would do all of it at the same time as the others, and so compile the product.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SUFFIX = f".{sys.implementation.cache_tag}-pytest-{pytest.__version__}.pyc"


def write(root: Path) -> None:
    """Does nothing where most of the tests have bytecode. Files that changed since are compiled by whoever needs them first."""
    if sys.dont_write_bytecode or sys.pycache_prefix is not None:
        return
    missing = without(sorted((root / "tests").rglob("test_*.py")))
    if len(missing) < 50:
        return
    count = min(os.cpu_count() or 1, 8)
    command = [sys.executable, "-m", "pytest", "--collect-only", "-qq", "-p", "no:cacheprovider", "-p", "no:xdist"]
    # What a process says of an error, those that run the tests say again.
    silent = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    parts = [
        subprocess.Popen([*command, *map(str, missing[number::count])], cwd=root, **silent)  # type: ignore[call-overload]
        for number in range(count)
    ]
    for part in parts:
        part.wait()


def without(files: list[Path]) -> list[Path]:
    return [file for file in files if not (file.parent / "__pycache__" / f"{file.stem}{SUFFIX}").exists()]
