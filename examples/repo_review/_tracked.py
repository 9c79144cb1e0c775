"""The files that git tracks, one after the other, with the facts that a look into each file gives."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from ._git import Git
from ._workspace import Workspace
from .analysis.text import json_safe

LOOK = 8_192
_BLOCK = 256 * 1024
_STAGE = re.compile(rb"(\d{6}) [0-9a-f]+ \d\t(.+)", re.S)
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
LIST_TIMEOUT_S = 120


class Tracked(NamedTuple):
    """One entry of the index. `name` opens it, `path` shows it."""

    name: str
    path: str
    mode: str

    @property
    def is_submodule(self) -> bool:
        return self.mode == "160000"

    @property
    def is_link(self) -> bool:
        return self.mode == "120000"


class Look(NamedTuple):
    """`size` in bytes; `lines` as a person counts: an unfinished last line counts too. 0 for a binary file."""

    size: int
    lines: int
    binary: bool
    head: bytes


def tracked_files(git: Git) -> Iterator[Tracked]:
    """All tracked files in git's order (by name). A file with a merge conflict has several entries and comes once."""
    previous = b""
    for record in git.records("ls-files", "-z", "--stage", "--cached", timeout_s=LIST_TIMEOUT_S):
        entry = _STAGE.fullmatch(record)
        if entry is None or entry.group(2) == previous:
            continue
        previous = entry.group(2)
        yield Tracked(previous.decode("utf-8", "surrogateescape"), json_safe(previous), entry.group(1).decode())


def look(workspace: Workspace, name: str) -> Look:
    """Reads the file once, block by block. Raises FileNotFoundError, PermanentError."""
    with workspace.open(name) as file:
        head = file.read(LOOK)
        total, lines, last = len(head), head.count(b"\n"), head[-1:]
        binary = b"\0" in head
        if binary or len(head) < LOOK:
            size = total if len(head) < LOOK else file.seek(0, 2)
        else:
            while block := file.read(_BLOCK):
                total, lines, last = total + len(block), lines + block.count(b"\n"), block[-1:]
            size = total
    unfinished = last not in (b"", b"\n")
    return Look(size, 0 if binary else lines + unfinished, binary, head)
