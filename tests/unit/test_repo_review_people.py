"""Conclusions of examples/repo_review from a merged history: persons, bus factor, rhythm, hot files."""

from datetime import UTC, datetime, timedelta

from examples.repo_review.analysis.history import AuthorStats, FileStats, HistoryPart
from examples.repo_review.analysis.identities import join_names
from examples.repo_review.analysis.people import summarise

NEWEST = int(datetime(2024, 6, 30, 12, tzinfo=UTC).timestamp())


def author(commits: int, recent: int = 0, addresses: tuple[str, ...] = ()) -> AuthorStats:
    return AuthorStats(commits=commits, recent=recent, first=0, last=NEWEST, addresses=list(addresses))


def test_names_with_one_address_or_other_case_are_one_person() -> None:
    part = HistoryPart(
        authors={
            "Tj H": author(10, addresses=("t1",)),
            "visionmedia": author(30, addresses=("t1",)),
            "TJ H": author(5, addresses=("t2",)),
            "Ann": author(3, addresses=("a",)),
        },
        files={"a.py": FileStats(commits=9, authors={"Tj H": 4, "visionmedia": 3, "Ann": 2})},
    )
    joined = join_names(part)
    assert {name: stats.commits for name, stats in joined.authors.items()} == {"visionmedia": 45, "Ann": 3}
    assert joined.files["a.py"].authors == {"visionmedia": 7, "Ann": 2}


def test_a_name_that_links_two_groups_puts_all_under_the_busiest() -> None:
    part = HistoryPart(
        authors={"A": author(9, addresses=("1",)), "B": author(8, addresses=("2",)), "C": author(7, addresses=("1", "2"))}
    )
    assert {name: stats.commits for name, stats in join_names(part).authors.items()} == {"A": 24}


def test_names_of_machines_link_nobody() -> None:
    part = HistoryPart(
        authors={"Ann": author(9, addresses=("1",)), "root": author(8, addresses=("1", "2")), "Bob": author(7, addresses=("2",))}
    )
    assert set(join_names(part).authors) == {"Ann", "root", "Bob"}


def test_bus_factor_counts_people_and_no_bots() -> None:
    part = HistoryPart(
        covered=200,
        recent=60,
        authors={"dependabot[bot]": author(100, 50), "Ann": author(50, 1), "Bob": author(30, 9), "Cy": author(20)},
    )
    found = summarise(part, NEWEST)
    assert (found.bus_factor.people, found.bus_factor.commits, found.bus_factor.names) == (1, 100, ["Ann"])
    assert (found.bus_factor_recent.people, found.bus_factor_recent.names) == (1, ["Bob"])
    assert [bot.name for bot in found.bots] == ["dependabot[bot]"]
    assert found.authors == 3


def test_an_even_split_needs_half_of_the_people() -> None:
    part = HistoryPart(authors={name: author(10) for name in "ABCD"})
    assert summarise(part, NEWEST).bus_factor.people == 2


def test_hot_files_are_ranked_by_the_last_year_and_leave_noise_out() -> None:
    def file(commits: int, recent: int) -> FileStats:
        return FileStats(commits=commits, recent=recent, authors={"Ann": commits})

    part = HistoryPart(
        recent=80,
        authors={"Ann": author(100, 80)},
        files={
            "uv.lock": file(90, 90),
            "CHANGES.md": file(90, 80),
            "node_modules/x.js": file(90, 70),
            "old.py": file(60, 0),
            "new.py": file(20, 20),
            "once.py": file(1, 1),
        },
    )
    found = summarise(part, NEWEST)
    assert found.hot_by == "recent"
    assert [file.path for file in found.hot_files] == ["new.py", "old.py"]
    quiet = summarise(part.model_copy(update={"recent": 3}), NEWEST)
    assert (quiet.hot_by, [file.path for file in quiet.hot_files]) == ("all", ["old.py", "new.py"])


def test_rhythm_months_and_gaps() -> None:
    days = {"2023-06-01": 4, "2023-06-02": 1, "2023-09-10": 2, "2024-06-30": 3}
    found = summarise(HistoryPart(covered=10, days=days), NEWEST)
    assert [(gap.before, gap.after, gap.days) for gap in found.gaps] == [
        ("2023-09-10", "2024-06-30", 294),
        ("2023-06-02", "2023-09-10", 100),
    ]
    assert found.months["2023-06"] == 5
    assert found.months["2023-12"] == 0
    assert (min(found.months), max(found.months), len(found.months)) == ("2023-06", "2024-06", 13)
    assert found.years == {"2023": 7, "2024": 3}
    assert found.active_days == 4


def test_the_year_before_last_is_counted_by_date() -> None:
    newest = datetime(2024, 6, 30, tzinfo=UTC)
    days = {(newest - timedelta(days=back)).date().isoformat(): 1 for back in (0, 364, 366, 700, 731)}
    assert summarise(HistoryPart(days=days), NEWEST).previous_commits == 2


def test_an_empty_history_has_a_summary() -> None:
    found = summarise(HistoryPart(), None)
    assert (found.authors, found.bus_factor.people, found.hot_files, found.months) == (0, 0, [], {})
