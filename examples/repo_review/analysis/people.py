"""Turns the merged history into statements for a maintainer: who works, when, and which files change most."""

from datetime import date, timedelta
from itertools import pairwise

from pydantic import BaseModel

from .classify import Kind, kind
from .history import AuthorStats, FileStats, HistoryPart
from .identities import is_bot, join_names

RECENT_DAYS = 365
HOT_FILES = 40
_NOT_HOT: frozenset[Kind] = frozenset({"lock", "changelog", "generated", "vendored", "asset"})
_DAY = 86_400


class Author(BaseModel):
    name: str
    commits: int
    recent: int
    first: int
    last: int
    last_offset: int = 0


class HotFile(BaseModel):
    """A file that changes often. `missed`: by how many commits the counts may be short at most."""

    path: str
    kind: Kind
    commits: int
    recent: int
    added: int
    deleted: int
    authors: int
    authors_exact: bool
    main_author: str
    main_share: float
    main_last: int | None
    main_last_offset: int = 0
    missed: int


class Gap(BaseModel):
    """A stretch without a commit: the days of the commits before and after it."""

    before: str
    after: str
    days: int


class BusFactor(BaseModel):
    """`people`: the fewest authors who together made at least half of `commits`. `most` are the first of `names`' own commits,
    `second` those of the author behind."""

    people: int
    commits: int
    names: list[str]
    most: int = 0
    second_name: str | None = None
    second: int = 0


class HistorySummary(BaseModel):
    covered: int
    merges: int
    undated: int
    boundary: int
    added: int
    deleted: int
    first: int | None
    first_offset: int = 0
    last: int | None
    last_offset: int = 0
    active_days: int
    authors: int
    authors_exact: bool
    top_authors: list[Author]
    bots: list[Author]
    bus_factor: BusFactor
    bus_factor_recent: BusFactor
    recent_commits: int
    previous_commits: int
    months: dict[str, int]
    years: dict[str, int]
    weekdays: list[int]
    hours: list[int]
    gaps: list[Gap]
    hot_files: list[HotFile]
    hot_by: str


def summarise(part: HistoryPart, last_commit: int | None) -> HistorySummary:
    """`last_commit`: seconds since 1970 of the newest commit; "recent" was counted back from there."""
    part = join_names(part)
    people = {name: stats for name, stats in part.authors.items() if not is_bot(name)}
    bots = {name: stats for name, stats in part.authors.items() if is_bot(name)}
    hot_by, hot = _hot_files(part)
    return HistorySummary(
        covered=part.covered,
        merges=part.merges,
        undated=part.undated,
        boundary=part.boundary,
        added=part.added,
        deleted=part.deleted,
        first=part.first,
        first_offset=part.first_offset,
        last=part.last,
        last_offset=part.last_offset,
        active_days=len(part.days),
        authors=len(people),
        authors_exact=part.authors_cut == 0,
        top_authors=_ranked(people)[:15],
        bots=_ranked(bots)[:5],
        bus_factor=_bus_factor({name: stats.commits for name, stats in people.items()}),
        bus_factor_recent=_bus_factor({name: stats.recent for name, stats in people.items() if stats.recent}),
        recent_commits=part.recent,
        previous_commits=_commits_between(part.days, last_commit, 2 * RECENT_DAYS, RECENT_DAYS),
        months=_last_months(part.days, 24),
        years=_group(part.days, 4),
        weekdays=[sum(part.hours[day * 24 : day * 24 + 24]) for day in range(7)],
        hours=[sum(part.hours[hour::24]) for hour in range(24)],
        gaps=_gaps(part.days, 3),
        hot_files=hot,
        hot_by=hot_by,
    )


def _ranked(authors: dict[str, AuthorStats]) -> list[Author]:
    order = sorted(authors.items(), key=lambda entry: (-entry[1].commits, entry[0]))
    return [Author(name=name, **stats.model_dump(exclude={"addresses"})) for name, stats in order]


def _bus_factor(commits: dict[str, int]) -> BusFactor:
    total = sum(commits.values())
    names: list[str] = []
    reached = 0
    ranked = sorted(commits.items(), key=lambda entry: (-entry[1], entry[0]))
    for name, count in ranked:
        if reached * 2 >= total:
            break
        names.append(name)
        reached += count
    most, (second_name, second) = ranked[0][1] if ranked else 0, ranked[1] if len(ranked) > 1 else (None, 0)
    return BusFactor(people=len(names), commits=total, names=names[:5], most=most, second_name=second_name, second=second)


def _hot_files(part: HistoryPart) -> tuple[str, list[HotFile]]:
    """Ranks by the changes of the last year if they are enough for a ranking, otherwise by all changes."""
    hot_by = "recent" if part.recent >= 50 else "all"

    def rank(entry: tuple[str, FileStats]) -> tuple[int, int, str]:
        path, stats = entry
        return (-stats.recent, -stats.commits, path) if hot_by == "recent" else (-stats.commits, -stats.recent, path)

    chosen = sorted((entry for entry in part.files.items() if entry[1].commits > 1 and kind(entry[0]) not in _NOT_HOT), key=rank)[
        :HOT_FILES
    ]
    return hot_by, [_hot_file(path, stats, part) for path, stats in chosen]


def _hot_file(path: str, stats: FileStats, part: HistoryPart) -> HotFile:
    name, commits = min(stats.authors.items(), key=lambda entry: (-entry[1], entry[0]))
    known = part.authors.get(name)
    return HotFile(
        path=path,
        kind=kind(path),
        commits=stats.commits,
        recent=stats.recent,
        added=stats.added,
        deleted=stats.deleted,
        authors=len(stats.authors),
        authors_exact=stats.authors_cut == 0 and stats.missed == 0,
        main_author=name,
        main_share=round(commits / stats.commits, 3),
        main_last=None if known is None else known.last,
        main_last_offset=0 if known is None else known.last_offset,
        missed=stats.missed,
    )


def _group(days: dict[str, int], length: int) -> dict[str, int]:
    groups: dict[str, int] = {}
    for day in sorted(days):
        groups[day[:length]] = groups.get(day[:length], 0) + days[day]
    return groups


def _last_months(days: dict[str, int], count: int) -> dict[str, int]:
    """The last `count` calendar months up to the newest commit, months without a commit included."""
    groups = _group(days, 7)
    if not groups:
        return {}
    newest = max(groups)
    year, month = int(newest[:4]), int(newest[5:7])
    months: list[str] = []
    while len(months) < count and year > 0:
        months.append(f"{year:04d}-{month:02d}")
        year, month = (year, month - 1) if month > 1 else (year - 1, 12)
    return {name: groups.get(name, 0) for name in reversed(months) if name >= min(groups)}


def _gaps(days: dict[str, int], count: int) -> list[Gap]:
    order = sorted(days)
    gaps = [
        Gap(before=one, after=other, days=(date.fromisoformat(other) - date.fromisoformat(one)).days)
        for one, other in pairwise(order)
    ]
    return sorted((gap for gap in gaps if gap.days > 1), key=lambda gap: (-gap.days, gap.before))[:count]


def _commits_between(days: dict[str, int], last_commit: int | None, from_days: int, to_days: int) -> int:
    """Commits by date from `from_days` (included) to `to_days` (left out) before the newest commit."""
    if last_commit is None:
        return 0
    newest = date(1970, 1, 1) + timedelta(days=last_commit // _DAY)
    start, end = (newest - timedelta(days=days_back) for days_back in (from_days, to_days))
    return sum(count for day, count in days.items() if start <= date.fromisoformat(day) < end)
