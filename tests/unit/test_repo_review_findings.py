"""The findings and the summary of examples/repo_review say what the figures say, by rules that they state."""

from datetime import UTC, datetime
from typing import Any

import pytest

from examples.repo_review.analysis.findings import Finding, find_all
from examples.repo_review.analysis.history import AuthorStats, Commit, HistoryBuilder, HistoryPart, dated, day_of, merge, offset_of
from examples.repo_review.analysis.hygiene import examine
from examples.repo_review.analysis.people import summarise
from examples.repo_review.analysis.report import render, summary
from examples.repo_review.analysis.results import HistoryReport, InspectionReport, RepositorySummary
from examples.repo_review.analysis.review import Review
from examples.repo_review.analysis.scan import ScanPart, SecretPlace, add_content

NEWEST = int(datetime(2024, 6, 30, 12, tzinfo=UTC).timestamp())


def history_of(recent: dict[str, int], *, shallow: bool = False, covered: int = 100, commits: int = 100) -> HistoryReport:
    authors = {name: AuthorStats(commits=count, recent=count, first=0, last=NEWEST) for name, count in recent.items()}
    part = HistoryPart(covered=covered, recent=sum(recent.values()), authors=authors, first=NEWEST, last=NEWEST)
    repository = RepositorySummary(
        name="shop", head="a" * 40, branch="main", commits=commits, last_commit=NEWEST, shallow=shallow, partial=False,
        reviewed_at=NEWEST,
    )  # fmt: skip
    return HistoryReport(repository=repository, history=summarise(part, NEWEST), chunk_size=100, chunks=1)


def inspection_of(*places: SecretPlace) -> InspectionReport:
    secrets: dict[str, int] = {}
    for place in places:
        secrets[place.where] = secrets.get(place.where, 0) + 1
    hygiene = examine(["README.md", "LICENSE", ".github/workflows/ci.yml"])
    scan = ScanPart(covered=3, secrets=secrets, secret_places=list(places))
    empty: dict[str, Any] = {"files": 0}
    return InspectionReport(tracked=3, hygiene=hygiene, scan=scan, hot=empty, long=empty)  # type: ignore[arg-type]


def finding_about(word: str, found: list[Finding]) -> Finding:
    return next(finding for finding in found if word in finding.title)


# --- people -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recent", "title", "severity"),
    [
        ({"Ann": 576, "Bob": 255, "Cy": 251}, "53% of the last year's commits are by one person: Ann", "low"),
        ({"Ann": 85, "Bob": 15}, "One person carries the project: Ann (85% of the last year's commits)", "medium"),
    ],
)
def test_words_about_one_person_fit_the_share(recent: dict[str, int], title: str, severity: str) -> None:
    found = finding_about("one person" if severity == "low" else "One person", find_all(history_of(recent), None, None))
    assert (found.title, found.severity) == (title, severity)
    assert f"next is Bob with {recent['Bob']}" in found.why
    assert "nobody" not in found.why and "80%" in found.why, "the rule is stated"


def test_less_than_half_of_the_commits_say_nothing_of_one_person() -> None:
    assert find_all(history_of({"Ann": 49, "Bob": 26, "Cy": 25}), None, None) == []


def test_a_shallow_clone_concludes_nothing_about_people_and_says_so_first() -> None:
    assert find_all(history_of({"Ann": 100}), None, None), "the same commits of a whole clone are a finding"
    report = history_of({"Ann": 100}, shallow=True)
    assert find_all(report, None, None) == []
    told = summary(Review(report, None, None))
    assert told.index("The clone is shallow") < told.index("Nothing of weight was found in what was read")
    assert "The clone is shallow" in render(Review(report, None, None), "run").split("##")[0]


def test_a_history_that_was_not_read_to_its_end_is_said_first() -> None:
    report = history_of({"Ann": 10, "Bob": 10}, covered=20, commits=1_000)
    assert "Only the newest 20 of 1,000 commits were read." in summary(Review(report, None, None))


# --- dates ------------------------------------------------------------------------------------------------------------


def test_dates_are_days_of_the_authors_zone() -> None:
    seconds, west = 1_775_707_440, offset_of("-0700")  # 2026-04-09T04:04Z, 2026-04-08T21:04-07:00
    assert (day_of(seconds, 0), day_of(seconds, west)) == ("2026-04-09", "2026-04-08")
    assert dated(seconds, west) == "2026-04-08 (UTC-07:00)"
    assert dated(seconds, 0) == "2026-04-09 (UTC)"
    assert dated(seconds, offset_of("+0530")) == "2026-04-09 (UTC+05:30)"
    assert day_of(2**60, 0) == "an impossible date"


def test_the_zone_of_the_newest_and_the_oldest_commit_survives_chunks() -> None:
    def part(seconds: int, offset: int) -> HistoryPart:
        builder = HistoryBuilder(0)
        builder.add(Commit(sha="a" * 40, parents=1, seconds=seconds, offset_minutes=offset, author="Ann", address="a"))
        return builder.finish()

    whole = merge(part(NEWEST, -420), part(NEWEST - 86_400, 120))
    assert (whole.last_offset, whole.first_offset, whole.authors["Ann"].last_offset) == (-420, 120, -420)
    found = summarise(whole, NEWEST)
    assert (found.top_authors[0].last_offset, found.first_offset, found.last_offset) == (-420, 120, -420)


# --- credentials ------------------------------------------------------------------------------------------------------


def test_private_keys_in_folders_of_certificates_are_medium_and_any_other_is_high() -> None:
    def key(path: str) -> SecretPlace:
        return SecretPlace(path=path, line=1, rule="private key", length=900, where="source")

    certificates = finding_about("credential", find_all(None, None, inspection_of(key("server/configs/certs/key.pem"))))
    assert certificates.severity == "medium" and "made for tests" in certificates.why
    both = inspection_of(key("server/configs/certs/key.pem"), key("deploy/id_rsa"))
    assert finding_about("credential", find_all(None, None, both)).severity == "high"
    assert finding_about("credential", find_all(None, None, inspection_of(key("deploy/id_rsa")))).severity == "high"


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("server/test-configs/tls.py", "test"),
        ("conf/fake_account.py", "test"),
        ("src/latest.py", "source"),
        ("src/contest/a.py", "source"),
        ("certs/server.py", "source"),
    ],
)
def test_names_of_tests_lower_what_a_credential_weighs(path: str, where: str) -> None:
    part = ScanPart()
    add_content(part, path, b'api_key = "q8Zt3mVw7Lx2Kc9Rb5Ny1Hd4Gs6Jf0Pa"\n')
    assert [place.where for place in part.secret_places] == [where]


# --- manifests and locks ----------------------------------------------------------------------------------------------


def test_only_manifests_are_listed_and_requirements_with_hashes_are_a_lock() -> None:
    paths = ["application/__init__.py", "application/setup.py", "setup.py", "pyproject.toml", "Makefile"]
    paths += ["requirements.txt", "requirements-dev.txt", "requirements/test.txt", "docs/notes.txt"]
    asked: list[str] = []

    def hashed(path: str) -> bool:
        asked.append(path)
        return path != "requirements-dev.txt"

    found = examine(paths, hashed)
    assert found.manifests == ["pyproject.toml", "setup.py"]
    assert found.locks == ["requirements.txt", "requirements/test.txt"]
    assert asked == ["requirements.txt", "requirements-dev.txt", "requirements/test.txt"]
    assert examine(["requirements.txt"]).manifests == ["requirements.txt"]
