"""Findings that deserve a maintainer's attention, ranked. Each rule looks at the agents' results and gives the reason of its
finding."""

import re
from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, Field

from .classify import is_example
from .history import dated, day_of
from .identities import is_bot
from .people import BusFactor, HistorySummary, HotFile
from .results import HistoryReport, InspectionReport, Measured, SurveyReport
from .scan import SecretPlace
from .text import code, number, percent, plural, prose, size

Severity = Literal["high", "medium", "low"]
_ORDER: dict[Severity, int] = {"high": 0, "medium": 1, "low": 2}
_DAY = 86_400
BIG_FILE = 5 * 1024 * 1024
LONG_FILE = 1_000
OFTEN = 10
MAX_PLACES = 10
CARRIES = 0.8
"""Share of the last year's commits from which on one person is said to carry the project."""
_CERTIFICATES = re.compile(r"(^|/)(certs?|certificates|pki|tls|ssl)/", re.I)
"""Folders of certificates: keys in them are mostly made for tests."""


class Finding(BaseModel):
    """`title` and `why` are Markdown, `places` are Markdown too (paths with lines). `weight` ranks within a severity."""

    severity: Severity
    title: str
    why: str
    places: list[str] = Field(default_factory=list)
    more: int = 0
    weight: int = 0


def find_all(history: HistoryReport | None, survey: SurveyReport | None, inspection: InspectionReport | None) -> list[Finding]:
    """All findings, the most urgent first. The rules of a missing result make no finding."""
    found: list[Finding] = []
    if inspection is not None:
        found += [*_secrets(inspection), *_documents(inspection, survey), *_strays(inspection)]
    if history is not None and history.history is not None:
        found += [*_people(history, history.history), *_activity(history, history.history)]
        found += _knowledge(history.history, survey)
    if survey is not None:
        found += [*_sizes(survey), *_tests(survey)]
    if history is not None and history.history is not None and survey is not None:
        found += _hot_and_long(history.history, survey)
    if inspection is not None:
        found += _markers(inspection, None if history is None else history.history)
    return sorted(found, key=lambda finding: (_ORDER[finding.severity], -finding.weight, finding.title))


def _secret_place(place: SecretPlace) -> str:
    return f"{code(f'{place.path}:{place.line}')} {place.rule}, {place.length} characters"


def _secrets(inspection: InspectionReport) -> Iterator[Finding]:
    scan = inspection.scan
    live = [place for place in scan.secret_places if place.where == "source"]
    if live:
        total = scan.secrets["source"]
        certain = any(_certain(place) for place in live)
        made_up = sum(_CERTIFICATES.search(place.path) is not None and place.rule == "private key" for place in live)
        yield Finding(
            severity="high" if certain else "medium",
            title=f"{plural(total, 'possible credential')} in tracked files",
            why="Whoever can read the repository can use them. Revoke what is real, then take it out; the history keeps a "
            "copy, so taking it out alone is not enough. The values are not shown here."
            + (
                f" {plural(made_up, 'is a private key', 'are private keys')} in folders of certificates, where most keys are made "
                "for tests: those alone make this finding medium."
                if made_up
                else ""
            ),
            places=[_secret_place(place) for place in live[:MAX_PLACES]],
            more=total - len(live[:MAX_PLACES]),
            weight=100,
        )
    elsewhere = [place for place in scan.secret_places if place.where != "source"]
    if elsewhere:
        total = sum(scan.secrets.values()) - scan.secrets.get("source", 0)
        yield Finding(
            severity="low",
            title=f"{plural(total, 'credential-like value')} in tests, samples or documentation",
            why="Most such values are made up. One look tells whether these are.",
            places=[_secret_place(place) for place in elsewhere[:5]],
            more=total - len(elsewhere[:5]),
            weight=10,
        )
    sensitive = [path for path in scan.sensitive if not is_example(path)]
    if sensitive:
        yield Finding(
            severity="medium",
            title=f"{plural(len(sensitive), 'file')} of a kind that usually holds credentials",
            why="Files with these names are made to stay on one machine. Check their content, and list them in `.gitignore`.",
            places=[code(path) for path in sensitive[:MAX_PLACES]],
            more=len(sensitive[MAX_PLACES:]),
            weight=80,
        )


def _certain(place: SecretPlace) -> bool:
    """Whether the shape alone says that the value is a credential in use."""
    if place.rule == "private key" and _CERTIFICATES.search(place.path):
        return False
    return place.rule not in ("assigned credential", "password in a URL")


def _documents(inspection: InspectionReport, survey: SurveyReport | None) -> Iterator[Finding]:
    hygiene = inspection.hygiene
    if hygiene.files == 0:
        return
    if not hygiene.documents["licence"]:
        yield Finding(
            severity="medium",
            title="No licence file",
            why="Without one nobody outside may legally use, change or pass on the code.",
            weight=70,
        )
    if not hygiene.documents["readme"]:
        yield Finding(severity="medium", title="No README", why="A newcomer finds no place to start.", weight=60)
    if not hygiene.documents["ci"]:
        yield Finding(
            severity="medium",
            title="No CI configuration that this review knows",
            why="Nothing in the repository shows that changes are built and tested before they are merged.",
            weight=50,
        )
    if inspection.main_language_unmanaged and inspection.main_language is not None:
        yield Finding(
            severity="low",
            title=f"No package manifest for {inspection.main_language}",
            why="Most of the code is in this language, but no file states its dependencies and how it is installed.",
            weight=30,
        )
    unlocked = [path for path in hygiene.unlocked if path.count("/") <= 1 and not is_example(path)]
    if unlocked and not (survey is not None and survey.tree.total.lines == 0):
        yield Finding(
            severity="low",
            title=f"{plural(len(unlocked), 'package manifest')} without a lock file",
            why="For an application two installs may differ. For a library, or a package without dependencies, this is fine.",
            places=[code(path) for path in unlocked[:MAX_PLACES]],
            more=len(unlocked[MAX_PLACES:]),
            weight=15,
        )


def _strays(inspection: InspectionReport) -> Iterator[Finding]:
    scan = inspection.scan
    if scan.output_places:
        total = sum(scan.outputs.values())
        kinds = ", ".join(f".{name}" for name in sorted(scan.outputs, key=lambda name: (-scan.outputs[name], name))[:6])
        yield Finding(
            severity="low",
            title=f"{plural(total, 'compiled file or archive', 'compiled files or archives')} committed ({prose(kinds)})",
            why="They cannot be reviewed or merged, and each new version stays in every clone for good.",
            places=[f"{code(place.path)} ({size(place.bytes)})" for place in scan.output_places[:5]],
            more=total - len(scan.output_places[:5]),
            weight=25,
        )
    if scan.junk_total:
        yield Finding(
            severity="low",
            title=f"{plural(scan.junk_total, 'left-over')} of editors, systems or caches tracked",
            why="They change without meaning. `git rm --cached` and a line in `.gitignore` end that.",
            places=[code(path) for path in scan.junk[:5]],
            more=scan.junk_total - len(scan.junk[:5]),
            weight=20,
        )
    total = sum(scan.vendored.values())
    if total >= 20:
        shown = list(scan.vendored.items())[:5]
        yield Finding(
            severity="low",
            title=f"{plural(total, 'file')} of other people's code ({percent(total, inspection.tracked)} of all)",
            why="Security fixes made upstream do not reach such copies by themselves. They are left out of this review's counts "
            "of languages, long files and markers.",
            places=[f"{code(folder)} ({plural(count, 'file')})" for folder, count in shown],
            more=len(scan.vendored) - len(shown),
            weight=12,
        )


def _people(report: HistoryReport, history: HistorySummary) -> Iterator[Finding]:
    """A shallow clone says nothing of people: the commits of the others may be the ones that are missing."""
    if report.repository.shallow:
        return
    recent = history.bus_factor_recent
    if recent.people == 1 and recent.commits >= 30 and history.authors > 1:
        yield _leader(recent)
    if history.authors == 1 and history.covered >= 30:
        yield Finding(
            severity="low",
            title="A single author",
            why="All commits are by one person; nobody else has shown that they can change this code.",
            weight=18,
        )


def _leader(recent: BusFactor) -> Finding:
    """The person with at least half of the last year's commits. From CARRIES on, this person is said to carry the project."""
    name, share = prose(recent.names[0]), percent(recent.most, recent.commits)
    second = f"; next is {prose(recent.second_name)} with {number(recent.second)}" if recent.second_name is not None else ""
    carries = recent.most >= CARRIES * recent.commits
    rule = f"The rule: half of the commits makes this finding, {CARRIES:.0%} are called carrying the project."
    stops = "most of the present work stops with them" if carries else "that share of the present work needs somebody else"
    return Finding(
        severity="medium" if carries else "low",
        title=f"One person carries the project: {name} ({share} of the last year's commits)"
        if carries
        else f"{share} of the last year's commits are by one person: {name}",
        why=f"{name} made {number(recent.most)} of the {plural(recent.commits, 'commit')} that people made in the last year "
        f"(merges left out){second}. If they stop, {stops}. {rule}",
        weight=65,
    )


def _activity(report: HistoryReport, history: HistorySummary) -> Iterator[Finding]:
    last = report.repository.last_commit
    if last is not None and report.repository.reviewed_at - last > 365 * _DAY:
        days = (report.repository.reviewed_at - last) // _DAY
        yield Finding(
            severity="medium",
            title=f"No commit for {plural(days, 'day')}",
            why=f"The newest is of {dated(last, report.repository.last_commit_offset)}. "
            "Say in the README whether the project is finished, paused or given up.",
            weight=40,
        )
    if not report.repository.shallow and history.previous_commits >= 50 and history.recent_commits * 3 < history.previous_commits:
        yield Finding(
            severity="low",
            title="Activity has fallen to less than a third",
            why=f"{plural(history.recent_commits, 'commit')} in the last year after {number(history.previous_commits)} in "
            "the year before.",
            weight=35,
        )


def _knowledge(history: HistorySummary, survey: SurveyReport | None) -> Iterator[Finding]:
    gone = [file for file in history.hot_files if _knower_gone(file, history.last) and _still_there(file.path, survey)]
    if gone:
        yield Finding(
            severity="medium",
            title=f"{plural(len(gone), 'busy file')} known mostly to somebody who has stopped",
            why="At least three quarters of their changes come from one author with no commit in the last half year of the "
            "history. They still change; somebody else should get to know them.",
            places=[
                f"{code(file.path)} {prose(file.main_author)} made {file.main_share:.0%} of {plural(file.commits, 'change')}, "
                f"last seen {day_of(file.main_last or 0, file.main_last_offset)}"
                for file in gone[:5]
            ],
            more=len(gone[5:]),
            weight=45,
        )


def _knower_gone(file: HotFile, newest: int | None) -> bool:
    return (
        file.kind == "code"
        and file.main_share >= 0.75
        and file.commits >= OFTEN
        and file.recent > 0
        and not is_bot(file.main_author)
        and newest is not None
        and file.main_last is not None
        and newest - file.main_last > 182 * _DAY
    )


def _still_there(path: str, survey: SurveyReport | None) -> bool:
    sizes = None if survey is None else survey.hot_sizes
    return sizes is None or any(file.path == path and file.exists for file in sizes)


def changes(file: HotFile, hot_by: str) -> int:
    """The number by which a hot file was ranked."""
    return file.recent if hot_by == "recent" else file.commits


def _hot_and_long(history: HistorySummary, survey: SurveyReport) -> Iterator[Finding]:
    sizes: dict[str, Measured] = {file.path: file for file in survey.hot_sizes or [] if file.exists}
    heavy = [
        file
        for file in history.hot_files
        if file.kind == "code"
        and changes(file, history.hot_by) >= OFTEN
        and file.path in sizes
        and sizes[file.path].lines >= LONG_FILE
    ]
    if heavy:
        period = "in the last year" if history.hot_by == "recent" else "in the history read"
        heavy.sort(key=lambda file: (-changes(file, history.hot_by) * sizes[file.path].lines, file.path))
        yield Finding(
            severity="medium",
            title=f"{plural(len(heavy), 'file is', 'files are')} both long and busy",
            why=f"Over {number(LONG_FILE)} lines and changed at least {OFTEN} times {period}: where splitting pays first, since "
            "most readers and most conflicts meet there.",
            places=[
                f"{code(file.path)} {number(sizes[file.path].lines)} lines, "
                f"{plural(changes(file, history.hot_by), 'change')} {period}"
                for file in heavy[:5]
            ],
            more=len(heavy[5:]),
            weight=55,
        )


def _sizes(survey: SurveyReport) -> Iterator[Finding]:
    big = [file for file in survey.tree.biggest if file.bytes >= BIG_FILE]
    if big:
        yield Finding(
            severity="low",
            title=f"{'At least ' if len(big) == len(survey.tree.biggest) else ''}{plural(len(big), 'file')} over 5 MiB",
            why="Every clone pays for each version of them. Git LFS or a release asset keeps them out of the history.",
            places=[f"{code(file.path)} {size(file.bytes)}" for file in big[:5]],
            more=len(big[5:]),
            weight=28,
        )


def _tests(survey: SurveyReport) -> Iterator[Finding]:
    kinds = survey.tree.kinds
    written = kinds["code"].lines if "code" in kinds else 0
    tested = kinds["test"].lines if "test" in kinds else 0
    if written >= 500 and tested == 0:
        yield Finding(
            severity="medium",
            title="No test files",
            why=f"{number(written)} lines of code, and no file that by its name or folder is a test. "
            "Tests inside source files (Rust, doctests) are not seen.",
            weight=48,
        )
    elif written >= 2_000 and tested * 10 < written:
        yield Finding(
            severity="low",
            title=f"Little test code: {percent(tested, written)} of the rest",
            why=f"{number(tested)} lines of tests for {number(written)} lines of other code. "
            "Tests inside source files (Rust, doctests) are not seen.",
            weight=22,
        )


def _markers(inspection: InspectionReport, history: HistorySummary | None) -> Iterator[Finding]:
    hot = inspection.hot
    if history is None or not hot.markers:
        return
    order = {file.path: rank for rank, file in enumerate(history.hot_files)}
    places = sorted(hot.places, key=lambda place: (place.marker == "TODO", order.get(place.path, 999), place.line))
    total = sum(hot.markers.values())
    grave = total - hot.markers.get("TODO", 0)
    yield Finding(
        severity="medium" if grave >= 5 else "low",
        title=f"{plural(total, 'open marker')} in the files that change most",
        why="People pass there all the time, so a doubt left in a comment is met again and again"
        + (f"; {plural(grave, 'is', 'are')} FIXME, XXX or HACK." if grave else "."),
        places=[f"{code(f'{place.path}:{place.line}')} {prose(place.text)}" for place in places[:8]],
        more=total - len(places[:8]),
        weight=38,
    )
