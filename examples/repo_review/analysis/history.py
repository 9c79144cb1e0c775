"""The history of a repository, chunk by chunk: read `git log --numstat -z`, count, merge.

One chunk's answer (`HistoryPart`) is bounded for every repository. The answer holds the loss through the bound, so the merged
numbers have a known error. Merging is commutative and associative: chunks may come in any order.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta, timezone
from hashlib import sha256

from pydantic import BaseModel, Field

from .text import json_safe

# `git log` prints this before each commit's numbers. The name comes last, so that it may hold any character but NUL.
LOG_FORMAT = "%x01%H %P%x1f%ad%x1f%aE%x1f%aN"
MAX_FILES_KEPT = 300
MAX_AUTHORS_KEPT = 800
MAX_AUTHORS_PER_FILE = 12
MAX_ADDRESSES = 5
MAX_BYTES = 170_000
MAX_FILES_IN_MEMORY = 60_000

_HEADER = re.compile(rb"\x01([0-9a-f]{40,64}) ([0-9a-f ]*)\x1f(-?\d*) ?([+-]\d+)?\x1f([^\x1f]*)\x1f(.*)", re.S)
_NUMSTAT = re.compile(rb"\n?(\d+|-)\t(\d+|-)\t(.*)", re.S)


class AuthorStats(BaseModel):
    """Commits under one name, merge commits left out. Times are seconds since 1970, of the author's clock. `last_offset` is the
    author's time zone at `last`, in minutes.

    `addresses` are checksums of e-mail addresses: enough to see that two names are one person, while no address, which is
    personal data, gets into a log that is never rewritten.
    """

    commits: int = 0
    recent: int = 0
    first: int
    last: int
    last_offset: int = 0
    addresses: list[str] = []


class FileStats(BaseModel):
    """Changes to one path, merge commits left out. Every number may be short by at most `missed` commits."""

    commits: int = 0
    recent: int = 0
    added: int = 0
    deleted: int = 0
    authors: dict[str, int] = Field(default_factory=dict)
    authors_cut: int = Field(0, description="entries of this file's rarer authors left out to bound the answer")
    missed: int = 0


class HistoryPart(BaseModel):
    """What some commits say."""

    covered: int = 0
    merges: int = 0
    undated: int = 0
    recent: int = 0
    added: int = 0
    deleted: int = 0
    boundary: int = Field(0, description="commits at the edge of a shallow clone, whose changes cannot be told")
    authors: dict[str, AuthorStats] = Field(default_factory=dict)
    authors_cut: int = Field(0, description="entries of rare authors left out to bound the answer")
    files: dict[str, FileStats] = Field(default_factory=dict)
    files_cut: int = Field(0, description="entries of rarely changed files left out to bound the answer")
    cut: int = Field(0, description="a file that is not in `files` has at most this many commits")
    days: dict[str, int] = Field(default_factory=dict, description="commits by the author's date, YYYY-MM-DD")
    hours: list[int] = Field(
        default_factory=lambda: [0] * 168, description="commits by the author's local time, Monday 00h first; no merges"
    )
    first: int | None = None
    first_offset: int = Field(0, description="time zone of the author of `first`, in minutes")
    last: int | None = None
    last_offset: int = 0


class Commit(BaseModel):
    """One header of the log."""

    sha: str
    parents: int
    seconds: int | None
    offset_minutes: int
    author: str
    address: str


class FileChange(BaseModel):
    """One numstat line. `added` and `deleted` are 0 for a binary file."""

    path: str
    added: int
    deleted: int


def parse_log(records: Iterable[bytes]) -> Iterator[Commit | FileChange]:
    """The NUL-separated records of `git log -z -M --numstat --date=raw --format=LOG_FORMAT` as commits and changes.

    A rename comes as three records: the numbers with an empty path, the old path, the new path. It counts for the new path.
    Raises ValueError for any other record.
    """
    source = iter(records)
    for record in source:
        if record in (b"", b"\n"):
            continue
        header = _HEADER.fullmatch(record)
        if header is not None:
            yield _commit(header)
            continue
        numbers = _NUMSTAT.fullmatch(record)
        if numbers is None:
            raise ValueError(f"unexpected record in the output of git log: {record[:80]!r}")
        added, deleted, path = numbers.groups()
        if not path:
            next(source, None)
            path = next(source, b"")
        yield FileChange.model_construct(
            path=json_safe(path), added=_lines(added), deleted=_lines(deleted)
        )  # no validation: this is the hot loop and the pattern has checked it


def _lines(number: bytes) -> int:
    return 0 if number == b"-" else int(number)


def _commit(header: re.Match[bytes]) -> Commit:
    sha, parents, seconds, zone, address, author = header.groups()
    return Commit.model_construct(
        sha=sha.decode(),
        parents=len(parents.split()),
        seconds=int(seconds) if seconds not in (b"", b"-") else None,
        offset_minutes=0 if zone is None else offset_of(zone.decode()),
        author=json_safe(author.strip(), 80) or "(no name)",
        address=sha256(address.strip().lower()).hexdigest()[:12],
    )


class HistoryBuilder:
    """Counts the commits and changes of `parse_log`, in bounded memory."""

    def __init__(self, recent_since: int, boundary: frozenset[str] = frozenset()) -> None:
        """`recent_since`: seconds since 1970 from which on a commit counts as recent. `boundary`: the shallow commits."""
        self.part = HistoryPart()
        self._recent_since = recent_since
        self._boundary = boundary
        self._commit: Commit | None = None
        self._recent = 0
        self._pruned = 0

    def add(self, item: Commit | FileChange) -> None:
        if isinstance(item, Commit):
            self._add_commit(item)
        else:
            self._add_change(item)

    def _add_commit(self, commit: Commit) -> None:
        part = self.part
        self._commit = commit
        part.covered += 1
        when = _local_time(commit)
        self._recent = int(when is not None and (commit.seconds or 0) >= self._recent_since)
        part.recent += self._recent
        if when is None or commit.seconds is None:
            part.undated += 1
        else:
            day = when.date().isoformat()
            part.days[day] = part.days.get(day, 0) + 1
            at = commit.seconds, commit.offset_minutes
            part.first, part.first_offset = at if part.first is None else min((part.first, part.first_offset), at)
            part.last, part.last_offset = at if part.last is None else max((part.last, part.last_offset), at)
        if commit.parents > 1:
            part.merges += 1
            return
        if when is not None:
            part.hours[when.weekday() * 24 + when.hour] += 1
        self._add_author(commit)
        if commit.sha in self._boundary:
            part.boundary += 1

    def _add_author(self, commit: Commit) -> None:
        seconds = commit.seconds or 0
        stats = self.part.authors.get(commit.author)
        if stats is None:
            stats = self.part.authors[commit.author] = AuthorStats(first=seconds, last=seconds, last_offset=commit.offset_minutes)
        if commit.address not in stats.addresses and len(stats.addresses) < MAX_ADDRESSES:
            stats.addresses.append(commit.address)
        stats.commits += 1
        stats.recent += self._recent
        stats.first = min(stats.first, seconds)
        stats.last, stats.last_offset = max((stats.last, stats.last_offset), (seconds, commit.offset_minutes))

    def _add_change(self, change: FileChange) -> None:
        commit = self._commit
        if commit is None or commit.parents > 1 or commit.sha in self._boundary:
            return
        part = self.part
        part.added += change.added
        part.deleted += change.deleted
        stats = part.files.get(change.path)
        if stats is None:
            if len(part.files) >= MAX_FILES_IN_MEMORY:
                self._prune()
            stats = part.files[change.path] = FileStats.model_construct(authors={})
        stats.commits += 1
        stats.recent += self._recent
        stats.added += change.added
        stats.deleted += change.deleted
        stats.authors[commit.author] = stats.authors.get(commit.author, 0) + 1

    def _prune(self) -> None:
        """Forgets the least changed files until half of the room is free. Keeps the number of commits that a file may have lost."""
        threshold = 0
        files = self.part.files
        while len(files) > MAX_FILES_IN_MEMORY // 2:
            threshold += 1
            kept = {path: stats for path, stats in files.items() if stats.commits > threshold}
            self.part.files_cut += len(files) - len(kept)
            files = kept
        self.part.files = files
        self._pruned += threshold

    def finish(self) -> HistoryPart:
        """The bounded answer."""
        part = self.part
        for stats in part.files.values():
            stats.missed = self._pruned
        part.cut = self._pruned
        limit = MAX_FILES_KEPT
        _keep_files(part, limit)
        _keep_authors(part, MAX_AUTHORS_KEPT)
        while len(part.model_dump_json()) > MAX_BYTES and limit > 1:
            limit = limit * 3 // 4
            _keep_files(part, limit)
            _keep_authors(part, limit * 2)
        return part


def _keep_files(part: HistoryPart, limit: int) -> None:
    ranked = sorted(part.files.items(), key=lambda entry: (-entry[1].commits, -_churn(entry[1]), entry[0]))
    dropped = ranked[limit:]
    part.files_cut += len(dropped)
    part.cut = max([part.cut, *(stats.commits + stats.missed for _, stats in dropped[:1])])
    part.files = dict(ranked[:limit])
    for stats in part.files.values():
        authors = sorted(stats.authors.items(), key=lambda entry: (-entry[1], entry[0]))
        stats.authors = dict(authors[:MAX_AUTHORS_PER_FILE])
        stats.authors_cut += len(authors[MAX_AUTHORS_PER_FILE:])


def _keep_authors(part: HistoryPart, limit: int) -> None:
    ranked = sorted(part.authors.items(), key=lambda entry: (-entry[1].commits, entry[0]))
    part.authors_cut += len(ranked[limit:])
    part.authors = dict(ranked[:limit])


def _churn(stats: FileStats) -> int:
    return stats.added + stats.deleted


def _local_time(commit: Commit) -> datetime | None:
    """The author's wall clock. None for an impossible date (a broken import, a year past 9999)."""
    if commit.seconds is None:
        return None
    try:
        return datetime.fromtimestamp(commit.seconds, timezone(timedelta(minutes=commit.offset_minutes)))
    except (ValueError, OverflowError, OSError):
        return None


def merge(left: HistoryPart, right: HistoryPart) -> HistoryPart:
    """Both parts' commits together. The parts are left as they are."""
    dated = [part for part in (left, right) if part.first is not None and part.last is not None]
    first, first_offset = min(((part.first, part.first_offset) for part in dated), default=(None, 0))
    last, last_offset = max(((part.last, part.last_offset) for part in dated), default=(None, 0))
    return HistoryPart(
        covered=left.covered + right.covered,
        merges=left.merges + right.merges,
        undated=left.undated + right.undated,
        recent=left.recent + right.recent,
        added=left.added + right.added,
        deleted=left.deleted + right.deleted,
        boundary=left.boundary + right.boundary,
        authors=_merge_authors(left.authors, right.authors),
        authors_cut=left.authors_cut + right.authors_cut,
        files=_merge_files(left, right),
        files_cut=left.files_cut + right.files_cut,
        cut=left.cut + right.cut,
        days=add_counts(left.days, right.days),
        hours=[one + other for one, other in zip(left.hours, right.hours, strict=True)],
        first=first,
        first_offset=first_offset,
        last=last,
        last_offset=last_offset,
    )


def merge_all(parts: Iterable[HistoryPart]) -> HistoryPart:
    """Merges by halves, so that many parts with many files cost n log n and not n squared."""
    row = list(parts) or [HistoryPart()]
    while len(row) > 1:
        pairs = [merge(row[at], row[at + 1]) for at in range(0, len(row) - 1, 2)]
        row = pairs + row[2 * len(pairs) :]
    return row[0]


def add_counts(left: dict[str, int], right: dict[str, int]) -> dict[str, int]:
    return {key: left.get(key, 0) + right.get(key, 0) for key in left.keys() | right.keys()}


def _merge_authors(left: dict[str, AuthorStats], right: dict[str, AuthorStats]) -> dict[str, AuthorStats]:
    merged = dict(left)
    for name, stats in right.items():
        merged[name] = combine(merged[name], stats) if name in merged else stats
    return merged


def combine(one: AuthorStats, other: AuthorStats) -> AuthorStats:
    """The commits of both counted as one author's."""
    last, last_offset = max((one.last, one.last_offset), (other.last, other.last_offset))
    return AuthorStats(
        commits=one.commits + other.commits,
        recent=one.recent + other.recent,
        first=min(one.first, other.first),
        last=last,
        last_offset=last_offset,
        addresses=sorted({*one.addresses, *other.addresses}),
    )


def _merge_files(left: HistoryPart, right: HistoryPart) -> dict[str, FileStats]:
    """A file that one part left out may have had up to that part's `cut` commits there."""
    merged: dict[str, FileStats] = {}
    for path in left.files.keys() | right.files.keys():
        one, other = left.files.get(path), right.files.get(path)
        one_missed = left.cut if one is None else one.missed
        other_missed = right.cut if other is None else other.missed
        one, other = one or FileStats(), other or FileStats()
        merged[path] = FileStats(
            commits=one.commits + other.commits,
            recent=one.recent + other.recent,
            added=one.added + other.added,
            deleted=one.deleted + other.deleted,
            authors=add_counts(one.authors, other.authors),
            authors_cut=one.authors_cut + other.authors_cut,
            missed=one_missed + other_missed,
        )
    return merged


def day_of(seconds: int, offset_minutes: int) -> str:
    """YYYY-MM-DD on the author's own calendar, as `git log` shows it. A date that no calendar has is said to be one."""
    try:
        return datetime.fromtimestamp(seconds, timezone(timedelta(minutes=offset_minutes))).date().isoformat()
    except (ValueError, OverflowError, OSError):
        return "an impossible date"


def dated(seconds: int, offset_minutes: int) -> str:
    """The author's day with the author's time zone: 2026-04-08 (UTC-07:00)."""
    hours, minutes = divmod(abs(offset_minutes), 60)
    zone = f"{'-' if offset_minutes < 0 else '+'}{hours:02d}:{minutes:02d}" if offset_minutes else ""
    return f"{day_of(seconds, offset_minutes)} (UTC{zone})"


def offset_of(zone: str) -> int:
    """Minutes of a zone as git writes it: +0530 is 330. Zones that do not exist on earth (old tools wrote them) count as UTC."""
    value = abs(int(zone))
    minutes = value // 100 * 60 + value % 100
    return 0 if minutes > 14 * 60 else -minutes if zone.startswith("-") else minutes
