"""The contents of a repository, chunk by chunk: markers, secrets, files that hardly belong there. Bounded and mergeable."""

import re
from bisect import bisect_right
from collections.abc import Iterable
from posixpath import basename
from typing import Literal

from pydantic import BaseModel, Field

from .classify import GENERATED_MARK, extension, is_example, is_lock, is_test, kind, vendored_root
from .history import add_counts
from .markers import find_markers
from .secrets import find_secrets
from .text import words

TOP_MARKERS = 60
TOP_FILES = 150
TOP_SECRETS = 60
TOP_PLACES = 40
MAX_SCANNED = 2 * 1024 * 1024
_MARKER_RANK = {"FIXME": 0, "XXX": 1, "HACK": 2, "TODO": 3}
Where = Literal["source", "test", "example"]

_BUILD_OUTPUTS = words("exe dll so dylib a o obj lib jar war class pyc pyo whl egg nupkg ko wasm")
_ARCHIVES = words("zip tar gz tgz bz2 xz 7z rar iso dmg deb rpm msi")
_JUNK = re.compile(
    r"(^|/)(\.DS_Store|Thumbs\.db|desktop\.ini|__pycache__|\.pytest_cache|\.mypy_cache|\.ipynb_checkpoints|\.venv|\.tox|\.gradle)(/|$)"
    r"|\.(swp|swo|orig|rej|pyc|pyo)$|~$"
)
_SENSITIVE = re.compile(
    r"(^|/)(\.env(\.(local|prod|production|staging))?|id_(rsa|dsa|ecdsa|ed25519)|\.pypirc|\.netrc|\.htpasswd|\.pgpass|credentials\.json"
    r"|service[-_]account.*\.json|.+\.(p12|pfx|jks|keystore|kdbx|ppk))$",
    re.I,
)

_TEST_WORD = re.compile(r"(^|[/_.-])(tests?|testing|fixtures?|mocks?|dummy|fake)([/_.-]|$)", re.I)
"""A folder or file name with one of these words: a credential there is taken for one of a test."""


class MarkerPlace(BaseModel):
    path: str
    line: int
    marker: str
    text: str


class SecretPlace(BaseModel):
    """`length` characters that match a rule; the value itself is nowhere. `where`: tests and samples mostly hold dummies."""

    path: str
    line: int
    rule: str
    length: int
    where: Where


class Place(BaseModel):
    path: str
    bytes: int


class ScanPart(BaseModel):
    """What the contents of some files say. Lists hold the first in rank; the counts beside them are complete."""

    covered: int = 0
    scanned: int = 0
    scanned_bytes: int = 0
    skipped: dict[str, int] = Field(default_factory=dict, description="files not read for markers, by reason")
    markers: dict[str, int] = Field(default_factory=dict)
    marker_files: dict[str, int] = Field(default_factory=dict, description="markers by file, the fullest files")
    marker_files_total: int = 0
    marker_places: list[MarkerPlace] = Field(default_factory=list)
    secrets: dict[str, int] = Field(default_factory=dict, description="by where: source, test, example")
    secret_places: list[SecretPlace] = Field(default_factory=list)
    outputs: dict[str, int] = Field(default_factory=dict, description="compiled files and archives by extension")
    output_places: list[Place] = Field(default_factory=list)
    junk_total: int = 0
    junk: list[str] = Field(default_factory=list)
    sensitive: list[str] = Field(default_factory=list)
    vendored: dict[str, int] = Field(default_factory=dict, description="files by the outermost vendored folder")


def skip_reason(path: str) -> str | None:
    """The reason why a file is not scanned: its content is not the work of the project's people. None if the file is scanned."""
    found = kind(path)
    if found in ("vendored", "generated", "lock", "asset"):
        return found
    return "image markup" if extension(path) == "svg" else None


def add_name(part: ScanPart, path: str, size: int) -> None:
    """Counts the facts that the name and size alone give."""
    folder = vendored_root(path)
    if folder is not None:
        part.vendored[folder] = part.vendored.get(folder, 0) + 1
        return
    if _JUNK.search(path):
        part.junk_total += 1
        part.junk.append(path)
    elif extension(path) in _BUILD_OUTPUTS | _ARCHIVES and not is_test(path):
        part.outputs[extension(path)] = part.outputs.get(extension(path), 0) + 1
        part.output_places.append(Place(path=path, bytes=size))
    if _SENSITIVE.search(path) and not is_test(path):
        part.sensitive.append(path)


def skip(part: ScanPart, reason: str) -> None:
    part.skipped[reason] = part.skipped.get(reason, 0) + 1


def add_content(part: ScanPart, path: str, content: bytes) -> None:
    """Looks through the content of one text file."""
    if kind(path) in ("code", "test") and GENERATED_MARK.search(content[:1024]):
        skip(part, "generated")
        return
    part.scanned += 1
    part.scanned_bytes += len(content)
    found = 0
    if kind(path) not in ("data", "changelog"):
        for marker in find_markers(content):
            found += 1
            part.markers[marker.marker] = part.markers.get(marker.marker, 0) + 1
            part.marker_places.append(MarkerPlace(path=path, line=marker.line, marker=marker.marker, text=marker.text))
    if found:
        part.marker_files[path] = found
        part.marker_files_total += 1
    _add_secrets(part, path, content)
    if len(part.marker_places) > 20 * TOP_MARKERS:
        part.marker_places = _rank_markers(part.marker_places)


def _add_secrets(part: ScanPart, path: str, content: bytes) -> None:
    if is_lock(path):
        return
    where: Where = (
        "test" if is_test(path) or _TEST_WORD.search(path) else "example" if is_example(path) or _is_template(path) else "source"
    )
    starts: list[int] | None = None
    for hit in find_secrets(content):
        if starts is None:
            starts = [0, *(match.end() for match in re.finditer(rb"\n", content))]
        part.secrets[where] = part.secrets.get(where, 0) + 1
        place = SecretPlace(path=path, line=bisect_right(starts, hit.start), rule=hit.rule, length=hit.length, where=where)
        part.secret_places.append(place)


def _is_template(path: str) -> bool:
    return bool(re.search(r"\.(example|sample|template|dist|tmpl)(\.|$)", basename(path), re.I))


def _rank_markers(places: list[MarkerPlace]) -> list[MarkerPlace]:
    return sorted(places, key=lambda place: (_MARKER_RANK[place.marker], place.path, place.line))[:TOP_MARKERS]


def _rank_secrets(places: list[SecretPlace]) -> list[SecretPlace]:
    order = {"source": 0, "example": 1, "test": 2}
    return sorted(places, key=lambda place: (order[place.where], place.path, place.line, place.rule))[:TOP_SECRETS]


def bound(part: ScanPart) -> ScanPart:
    """The part with its lists sorted by rank and cut."""
    vendored = sorted(part.vendored.items(), key=lambda entry: (-entry[1], entry[0]))[:TOP_PLACES]
    return _cut_lists(part).model_copy(update={"vendored": dict(vendored)})


def _cut_lists(part: ScanPart) -> ScanPart:
    fullest = sorted(part.marker_files.items(), key=lambda entry: (-entry[1], entry[0]))[:TOP_FILES]
    return part.model_copy(
        update={
            "marker_files": dict(fullest),
            "marker_places": _rank_markers(part.marker_places),
            "secret_places": _rank_secrets(part.secret_places),
            "output_places": sorted(part.output_places, key=lambda place: (-place.bytes, place.path))[:TOP_PLACES],
            "junk": sorted(part.junk)[:TOP_PLACES],
            "sensitive": sorted(part.sensitive)[:TOP_PLACES],
        }
    )


def merge(left: ScanPart, right: ScanPart) -> ScanPart:
    """Both parts' files together; the parts must not share a file."""
    return _cut_lists(
        ScanPart(
            covered=left.covered + right.covered,
            scanned=left.scanned + right.scanned,
            scanned_bytes=left.scanned_bytes + right.scanned_bytes,
            skipped=add_counts(left.skipped, right.skipped),
            markers=add_counts(left.markers, right.markers),
            marker_files={**left.marker_files, **right.marker_files},
            marker_files_total=left.marker_files_total + right.marker_files_total,
            marker_places=left.marker_places + right.marker_places,
            secrets=add_counts(left.secrets, right.secrets),
            secret_places=left.secret_places + right.secret_places,
            outputs=add_counts(left.outputs, right.outputs),
            output_places=left.output_places + right.output_places,
            junk_total=left.junk_total + right.junk_total,
            junk=left.junk + right.junk,
            sensitive=left.sensitive + right.sensitive,
            vendored=add_counts(left.vendored, right.vendored),
        )
    )


def merge_all(parts: Iterable[ScanPart]) -> ScanPart:
    merged = ScanPart()
    for part in parts:
        merged = merge(merged, part)
    return merged
