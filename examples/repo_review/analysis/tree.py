"""The tree of a repository, chunk by chunk: languages, sizes, long and big files, tests, shape. Bounded and mergeable."""

from collections.abc import Callable, Iterable
from posixpath import basename
from typing import TypeVar

from pydantic import BaseModel, Field

from .classify import GENERATED_MARK, Kind, extension, kind, language
from .history import add_counts

TOP = 40
MAX_KEYS = 150

Value = TypeVar("Value")


class Amount(BaseModel):
    files: int = 0
    lines: int = 0
    bytes: int = 0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(files=self.files + other.files, lines=self.lines + other.lines, bytes=self.bytes + other.bytes)


class FileSize(BaseModel):
    path: str
    kind: Kind
    lines: int
    bytes: int
    binary: bool = False


class TreePart(BaseModel):
    """What some tracked files say. `covered` counts every entry of the index, `total` is the amount of readable files."""

    covered: int = 0
    total: Amount = Field(default_factory=Amount)
    binary: Amount = Field(default_factory=Amount)
    links: int = 0
    missing: int = Field(0, description="tracked, but not in the working tree (deleted, or a sparse checkout)")
    unreadable: int = 0
    lfs_pointers: int = 0
    submodules: list[str] = Field(default_factory=list)
    languages: dict[str, Amount] = Field(default_factory=dict, description="text files that people here wrote")
    kinds: dict[str, Amount] = Field(default_factory=dict)
    unknown: dict[str, int] = Field(default_factory=dict, description="files by extension or name no language is known for")
    folders: dict[str, Amount] = Field(default_factory=dict, description="by first folder; '.' holds the root's files")
    folders_cut: int = 0
    depths: dict[str, int] = Field(default_factory=dict, description="files by number of folders above them")
    longest: list[FileSize] = Field(default_factory=list, description="code and tests written by hand, by lines")
    biggest: list[FileSize] = Field(default_factory=list, description="any kind, by bytes")


def add_file(part: TreePart, path: str, size: int, lines: int, binary: bool, head: bytes) -> None:
    """Counts one plain file into the part; `head` is the beginning of its content."""
    found = kind(path)
    if found in ("code", "test") and GENERATED_MARK.search(head[:1024]):
        found = "generated"
    amount = Amount(files=1, lines=lines, bytes=size)
    entry = FileSize(path=path, kind=found, lines=lines, bytes=size, binary=binary)
    part.total += amount
    _add(part.kinds, found, amount)
    _add(part.folders, path.split("/", 1)[0] if "/" in path else ".", amount)
    depth = str(min(path.count("/"), 20))
    part.depths[depth] = part.depths.get(depth, 0) + 1
    part.biggest.append(entry)
    if binary:
        part.binary += amount
    else:
        if found not in ("lock", "vendored", "generated"):
            _add_language(part, path, amount)
        if found in ("code", "test"):
            part.longest.append(entry)
    if len(part.biggest) > 20 * TOP:
        part.biggest = _biggest(part.biggest)
    if len(part.longest) > 20 * TOP:
        part.longest = _longest(part.longest)


def _add_language(part: TreePart, path: str, amount: Amount) -> None:
    spoken = language(path)
    if spoken is not None:
        _add(part.languages, spoken, amount)
        return
    name = f".{extension(path)}" if extension(path) else basename(path)
    part.unknown[name] = part.unknown.get(name, 0) + 1


def _add(counts: dict[str, Amount], key: str, amount: Amount) -> None:
    known = counts.get(key)
    counts[key] = amount if known is None else known + amount


def bound(part: TreePart) -> TreePart:
    """The part with its lists cut to the bound for one chunk."""
    folders = _largest(part.folders, lambda amount: amount.files)
    return part.model_copy(
        update={
            "submodules": sorted(part.submodules)[:TOP],
            "folders": folders,
            "folders_cut": part.folders_cut + len(part.folders) - len(folders),
            "unknown": _largest(part.unknown, lambda count: count),
            "longest": _longest(part.longest),
            "biggest": _biggest(part.biggest),
        }
    )


def _largest(counts: dict[str, Value], weight: Callable[[Value], int]) -> dict[str, Value]:
    return dict(sorted(counts.items(), key=lambda entry: (-weight(entry[1]), entry[0]))[:MAX_KEYS])


def _longest(files: Iterable[FileSize]) -> list[FileSize]:
    return sorted(files, key=lambda file: (-file.lines, file.path))[:TOP]


def _biggest(files: Iterable[FileSize]) -> list[FileSize]:
    return sorted(files, key=lambda file: (-file.bytes, file.path))[:TOP]


def merge(left: TreePart, right: TreePart) -> TreePart:
    """Both parts' files together; the parts must not share a file."""
    return TreePart(
        covered=left.covered + right.covered,
        total=left.total + right.total,
        binary=left.binary + right.binary,
        links=left.links + right.links,
        missing=left.missing + right.missing,
        unreadable=left.unreadable + right.unreadable,
        lfs_pointers=left.lfs_pointers + right.lfs_pointers,
        submodules=sorted(left.submodules + right.submodules),
        languages=add_amounts(left.languages, right.languages),
        kinds=add_amounts(left.kinds, right.kinds),
        unknown=add_counts(left.unknown, right.unknown),
        folders=add_amounts(left.folders, right.folders),
        folders_cut=left.folders_cut + right.folders_cut,
        depths=add_counts(left.depths, right.depths),
        longest=_longest(left.longest + right.longest),
        biggest=_biggest(left.biggest + right.biggest),
    )


def merge_all(parts: Iterable[TreePart]) -> TreePart:
    merged = TreePart()
    for part in parts:
        merged = merge(merged, part)
    return merged


def add_amounts(left: dict[str, Amount], right: dict[str, Amount]) -> dict[str, Amount]:
    return {key: left.get(key, Amount()) + right.get(key, Amount()) for key in left.keys() | right.keys()}
