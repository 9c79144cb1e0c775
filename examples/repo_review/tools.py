"""The tools of the review: tools that read one git repository, and a tool that writes the report.

All tools are idempotent and confined to the worker's workspace. A tool that could run long works on a chunk (`offset`, `limit`),
stops early when its time is used up, and reports in `covered` how many items are done. So progress is a series of small, recorded
calls.
"""

import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from pydantic import BaseModel

from tidelog import PermanentError, ToolContext, tool

from ._git import Git
from ._tracked import LFS_POINTER, LOOK, Tracked, look, tracked_files
from ._workspace import Workspace
from .analysis import history as histories
from .analysis import hygiene, scan
from .analysis import tree as trees
from .analysis.results import Measured, RepositorySummary
from .analysis.secrets import redact
from .analysis.text import json_safe

TIMEOUT_S = 300
# Seconds after which a chunk stops by itself. TIMEOUT_S is much larger and ends calls that hang.
SOFT_LIMIT_S = 60.0
MAX_PATHS = 200
MAX_READ = 64 * 1024
REPORT_DIR_VARIABLE = "TIDELOG_REPORT_DIR"


class FileText(BaseModel):
    """The beginning of a file. What may be a secret reads [REDACTED]."""

    path: str
    bytes: int
    text: str
    truncated: bool
    binary: bool


class Written(BaseModel):
    path: str
    bytes: int
    sha256: str


@tool("git.summary", capabilities=("git",), idempotent=True, timeout_s=TIMEOUT_S)
def summary(ctx: ToolContext) -> RepositorySummary:
    """Describe the git repository of the workspace: head, branch, number of commits and files, kind of clone."""
    workspace = Workspace(ctx.workspace)
    git = Git(workspace.root)
    head = "".join(git.lines("rev-parse", "--verify", "--quiet", "HEAD^{commit}", ok=(0, 1))) or None
    branch = "".join(git.lines("symbolic-ref", "--quiet", "--short", "HEAD", ok=(0, 1))) or None
    commits = int("".join(git.lines("rev-list", "--count", head, "--", timeout_s=TIMEOUT_S - 30))) if head else 0
    last = "".join(git.lines("log", "-1", "--date=raw", "--format=%ad", head, "--")) if head else ""
    seconds, _, zone = last.partition(" ")
    dated = bool(re.fullmatch(r"-?\d+ [+-]\d+", last))
    return RepositorySummary(
        name=json_safe(os.fsencode(workspace.root.name)) or "repository",
        head=head,
        branch=None if branch is None else json_safe(branch.encode()),
        commits=commits,
        last_commit=int(seconds) if dated else None,
        last_commit_offset=histories.offset_of(zone) if dated else 0,
        shallow=git.lines("rev-parse", "--is-shallow-repository") == ["true"],
        partial=bool(git.lines("config", "--get-regexp", r"^(extensions\.partialclone|remote\..*\.promisor)$", ok=(0, 1))),
        reviewed_at=int(time.time()),
    )


@tool("git.history", capabilities=("git",), idempotent=True, timeout_s=TIMEOUT_S)
def history(ctx: ToolContext, head: str, offset: int, limit: int, recent_since: int) -> histories.HistoryPart:
    """Count authors, files, days and hours over `limit` commits, `offset` commits back from `head`.

    `head` is a full commit id, so that chunks fit together even when somebody commits meanwhile. Commits from
    `recent_since` (seconds since 1970) on are also counted apart.
    """
    _check_chunk(offset, limit)
    if not (40 <= len(head) <= 64 and set(head) <= set("0123456789abcdef")):
        raise PermanentError("head must be a full commit id")
    git = Git(Workspace(ctx.workspace).root)
    builder = histories.HistoryBuilder(recent_since, _shallow_commits(git))
    arguments = ["-z", "-M", "--numstat", "--date=raw", f"--format={histories.LOG_FORMAT}", "--no-ext-diff", "--no-textconv"]
    arguments += ["--no-show-signature", "--no-decorate", "--no-notes", "--no-color", f"--skip={offset}", f"--max-count={limit}"]
    stop_at = time.monotonic() + SOFT_LIMIT_S
    records = git.records("log", *arguments, head, "--", timeout_s=TIMEOUT_S - 30)
    for item in histories.parse_log(records):
        if isinstance(item, histories.Commit) and builder.part.covered and time.monotonic() > stop_at:
            break
        builder.add(item)
    records.close()
    return builder.finish()


def _shallow_commits(git: Git) -> frozenset[str]:
    """The commits at the edge of a shallow clone. git shows their whole tree as added, although these commits did not add it."""
    place = git.root / "".join(git.lines("rev-parse", "--git-path", "shallow"))
    return frozenset(place.read_text("ascii", "replace").split()) if place.is_file() else frozenset()


@tool("tree.count", capabilities=("files",), idempotent=True, timeout_s=TIMEOUT_S)
def tree_count(ctx: ToolContext) -> int:
    """Count the files git tracks: what the chunks of tree.summary and files.scan add up to."""
    return sum(1 for _ in tracked_files(Git(Workspace(ctx.workspace).root)))


@tool("tree.summary", capabilities=("files",), idempotent=True, timeout_s=TIMEOUT_S)
def tree_summary(ctx: ToolContext, offset: int, limit: int) -> trees.TreePart:
    """Measure `limit` tracked files from `offset` on: languages, lines, bytes, the longest and the biggest, the shape."""
    _check_chunk(offset, limit)
    workspace = Workspace(ctx.workspace)
    part = trees.TreePart()
    stop_at = time.monotonic() + SOFT_LIMIT_S
    for entry in _chunk(Git(workspace.root), offset, limit):
        if part.covered and time.monotonic() > stop_at:
            break
        part.covered += 1
        _measure_into(part, workspace, entry)
    return trees.bound(part)


def _measure_into(part: trees.TreePart, workspace: Workspace, entry: Tracked) -> None:
    if entry.is_submodule:
        part.submodules.append(entry.path)
        return
    if entry.is_link:
        part.links += 1
        return
    try:
        seen = look(workspace, entry.name)
    except FileNotFoundError:
        part.missing += 1
    except (PermanentError, OSError):
        part.unreadable += 1
    else:
        part.lfs_pointers += seen.head.startswith(LFS_POINTER)
        trees.add_file(part, entry.path, seen.size, seen.lines, seen.binary, seen.head)


@tool("tree.hygiene", capabilities=("files",), idempotent=True, timeout_s=TIMEOUT_S)
def tree_hygiene(ctx: ToolContext) -> hygiene.Hygiene:
    """Find what a repository should carry by the names of its files: readme, licence, CI, manifests and their locks.

    Requirements with hashes of the packages are a lock file.
    """
    workspace = Workspace(ctx.workspace)
    names: dict[str, str] = {}

    def paths() -> Iterator[str]:
        for entry in tracked_files(Git(workspace.root)):
            if hygiene.may_have_hashes(entry.path) and not (entry.is_submodule or entry.is_link):
                names[entry.path] = entry.name
            yield entry.path

    def hashed(path: str) -> bool:
        try:
            with workspace.open(names[path]) as file:
                return b"--hash=" in file.read(LOOK)
        except (KeyError, PermanentError, OSError):
            return False

    return hygiene.examine(paths(), hashed)


@tool("files.measure", capabilities=("files",), idempotent=True, timeout_s=TIMEOUT_S)
def measure(ctx: ToolContext, paths: list[str]) -> list[Measured]:
    """Count lines and bytes of up to 200 tracked files, named as the other tools show them.

    A file that is not tracked, not in the working tree or not readable comes back as not existing.
    """
    workspace = Workspace(ctx.workspace)
    wanted = set(_check_paths(paths))
    names = {entry.path: entry.name for entry in tracked_files(Git(workspace.root)) if entry.path in wanted}
    return [_measured(workspace, path, names.get(path)) for path in paths]


def _measured(workspace: Workspace, path: str, name: str | None) -> Measured:
    try:
        seen = None if name is None else look(workspace, name)
    except (FileNotFoundError, PermanentError, OSError):
        seen = None
    if seen is None:
        return Measured(path=path, exists=False)
    return Measured(path=path, exists=True, lines=seen.lines, bytes=seen.size, binary=seen.binary)


@tool("files.read", capabilities=("files",), idempotent=True, timeout_s=60)
def read(ctx: ToolContext, path: str, max_bytes: int = 16_384) -> FileText:
    """Read the beginning of a text file. Anything that may be a secret is replaced by [REDACTED]."""
    if not 0 < max_bytes <= MAX_READ:
        raise PermanentError(f"max_bytes must be 1 to {MAX_READ}")
    try:
        with Workspace(ctx.workspace).open(path) as file:
            content = file.read(max_bytes)
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError as error:
        raise PermanentError(f"no such file: {path!r}") from error
    binary = b"\0" in content
    text = "" if binary else redact(content).decode("utf-8", "replace")
    return FileText(path=path, bytes=size, text=text, truncated=size > len(content), binary=binary)


@tool("files.scan", capabilities=("files",), idempotent=True, timeout_s=TIMEOUT_S)
def scan_files(ctx: ToolContext, offset: int = 0, limit: int = 0, paths: list[str] | None = None) -> scan.ScanPart:
    """Look for markers (TODO, FIXME, XXX, HACK) and credentials in `limit` tracked files from `offset` on, or in `paths`.

    Values that look like credentials are never returned, only the rule, the place and the length.
    """
    workspace = Workspace(ctx.workspace)
    git = Git(workspace.root)
    entries: Iterator[Tracked]
    if paths is None:
        _check_chunk(offset, limit)
        entries = _chunk(git, offset, limit)
    else:
        wanted = set(_check_paths(paths))
        entries = (entry for entry in tracked_files(git) if entry.path in wanted)
    part = scan.ScanPart()
    stop_at = time.monotonic() + SOFT_LIMIT_S
    for entry in entries:
        if part.covered and time.monotonic() > stop_at:
            break
        part.covered += 1
        _scan_into(part, workspace, entry)
    return scan.bound(part)


def _scan_into(part: scan.ScanPart, workspace: Workspace, entry: Tracked) -> None:
    if entry.is_submodule or entry.is_link:
        scan.skip(part, "submodule" if entry.is_submodule else "symbolic link")
        return
    try:
        with workspace.open(entry.name) as file:
            size = os.fstat(file.fileno()).st_size
            scan.add_name(part, entry.path, size)
            reason = scan.skip_reason(entry.path) or ("over 2 MiB" if size > scan.MAX_SCANNED else None)
            content = b"" if reason else file.read(LOOK)
            reason = reason or ("binary" if b"\0" in content else None)
            if reason is None:
                content += file.read(scan.MAX_SCANNED)
    except FileNotFoundError:
        scan.skip(part, "not in the working tree")
    except (PermanentError, OSError):
        scan.skip(part, "unreadable")
    else:
        if reason is None:
            scan.add_content(part, entry.path, content)
        else:
            scan.skip(part, reason)


@tool("report.write", capabilities=("report",), idempotent=True, timeout_s=60)
def write_report(ctx: ToolContext, name: str, markdown: str) -> Written:
    """Write a report into the folder for reports: TIDELOG_REPORT_DIR, else .tidelog/reports of the workspace.

    `name` is relative to that folder and ends in .md. Writing again replaces the file at once, never half.
    """
    configured = os.environ.get(REPORT_DIR_VARIABLE)
    folder = Path(configured) if configured else _private_folder(Workspace(ctx.workspace))
    folder.mkdir(parents=True, exist_ok=True)
    if not name.endswith(".md"):
        raise PermanentError("the report's name must end in .md")
    reports = Workspace(folder)
    target = reports.locate(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    content = markdown.encode()
    handle, draft = tempfile.mkstemp(dir=target.parent, prefix=".report-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(draft, 0o644)
        os.replace(draft, target)
    except BaseException:
        os.unlink(draft)
        raise
    return Written(path=str(target), bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def _private_folder(workspace: Workspace) -> Path:
    """The workspace's own folder for reports.

    Its .gitignore covers the folder itself, so that `git status` does not show a review.
    """
    folder = workspace.locate(".tidelog/reports/x").parent
    folder.mkdir(parents=True, exist_ok=True)
    ignore = workspace.root / ".tidelog" / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", "ascii")
    return folder


def _chunk(git: Git, offset: int, limit: int) -> Iterator[Tracked]:
    return islice(tracked_files(git), offset, offset + limit)


def _check_chunk(offset: int, limit: int) -> None:
    if offset < 0 or not 0 < limit <= 20_000:
        raise PermanentError("offset must not be negative and limit must be 1 to 20,000")


def _check_paths(paths: list[str]) -> list[str]:
    if len(paths) > MAX_PATHS:
        raise PermanentError(f"at most {MAX_PATHS} paths at once")
    return paths
