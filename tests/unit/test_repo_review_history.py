"""The history rules of examples/repo_review: reading git's output, counting in bounded memory, merging chunks."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.repo_review.analysis import history
from examples.repo_review.analysis.history import Commit, FileChange, HistoryBuilder, HistoryPart, merge, merge_all, parse_log

SHA = b"a" * 40


def header(parents: bytes = b"", date: bytes = b"1700000000 +0100", author: bytes = b"Ann", mail: bytes = b"ann@x.org") -> bytes:
    return b"\x01" + SHA + b" " + parents + b"\x1f" + date + b"\x1f" + mail + b"\x1f" + author


def commit(
    author: str = "Ann", seconds: int | None = 1_700_000_000, parents: int = 1, sha: str = "a" * 40, zone: int = 0
) -> Commit:
    return Commit(sha=sha, parents=parents, seconds=seconds, offset_minutes=zone, author=author, address=author.lower())


def test_parse_reads_commits_changes_renames_and_binary_files() -> None:
    records = [
        header(b"b" * 40),
        b"\n3\t1\tsrc/a.py",
        b"-\t-\tlogo.png",
        b"2\t0\t",
        b"old.py",
        b"new.py",
        header(b"c" * 40 + b" " + b"d" * 40),
    ]
    parsed = list(parse_log(records))
    assert isinstance(parsed[0], Commit) and parsed[0].parents == 1 and parsed[0].offset_minutes == 60
    changes = [(item.path, item.added, item.deleted) for item in parsed if isinstance(item, FileChange)]
    assert changes == [("src/a.py", 3, 1), ("logo.png", 0, 0), ("new.py", 2, 0)]
    assert isinstance(parsed[-1], Commit) and parsed[-1].parents == 2


def test_parse_survives_odd_names_and_dates() -> None:
    records = [header(author=b"\x01evil\x1f\xff name", date=b" "), b"\n1\t1\twith\nnewline", b"1\t1\tcaf\xe9"]
    first, *changes = parse_log(records)
    assert isinstance(first, Commit) and first.seconds is None and first.author == "\\x01evil\\x1f\\xff name"
    assert [change.path for change in changes if isinstance(change, FileChange)] == ["with\\nnewline", "caf\\xe9"]


def test_parse_refuses_what_is_no_log() -> None:
    with pytest.raises(ValueError, match="unexpected record"):
        list(parse_log([b"fatal: something"]))


def test_impossible_zones_and_dates_do_not_break_the_count() -> None:
    builder = HistoryBuilder(0)
    for record in (header(date=b"1700000000 +9959"), header(date=b"99999999999999999 +0000"), header(date=b"-86400 +0000")):
        for item in parse_log([record]):
            builder.add(item)
    part = builder.finish()
    assert part.covered == 3
    assert part.undated == 1
    assert part.days == {"2023-11-14": 1, "1969-12-31": 1}


def test_hours_are_those_of_the_authors_clock() -> None:
    builder = HistoryBuilder(0)
    builder.add(commit(seconds=1_700_000_000, zone=330))  # Tuesday 2023-11-14 22:13 UTC, Wednesday 03:43 in India
    part = builder.finish()
    assert part.days == {"2023-11-15": 1}
    assert part.hours[2 * 24 + 3] == 1
    assert sum(part.hours) == 1


def test_merges_and_the_edge_of_a_shallow_clone_are_nobodys_changes() -> None:
    builder = HistoryBuilder(0, frozenset({"e" * 40}))
    builder.add(commit(parents=2))
    builder.add(FileChange(path="merged.py", added=5, deleted=5))
    builder.add(commit(sha="e" * 40, parents=0))
    builder.add(FileChange(path="everything.py", added=10_000, deleted=0))
    part = builder.finish()
    assert (part.covered, part.merges, part.boundary) == (2, 1, 1)
    assert part.files == {}
    assert part.added == 0
    assert part.authors["Ann"].commits == 1


Log = list[tuple[str, int, int, list[str]]]
paths = st.sampled_from([f"f{number}.py" for number in range(12)])
logs = st.lists(
    st.tuples(
        st.sampled_from(["Ann", "Bob", "Cy"]),
        st.integers(0, 2_000_000_000),
        st.integers(1, 2),
        st.lists(paths, max_size=6, unique=True),
    ),
    max_size=25,
)


def build(log: Log) -> HistoryPart:
    builder = HistoryBuilder(1_000_000_000)
    for author, seconds, parents, changed in log:
        builder.add(commit(author, seconds, parents))
        for path in changed:
            builder.add(FileChange(path=path, added=2, deleted=1))
    return builder.finish()


@given(logs, logs, logs)
def test_merge_is_associative_and_commutative(one: Log, two: Log, three: Log) -> None:
    a, b, c = build(one), build(two), build(three)
    assert _sorted(merge(a, b)) == _sorted(merge(b, a))
    assert _sorted(merge(merge(a, b), c)) == _sorted(merge(a, merge(b, c)))
    assert _sorted(merge(a, HistoryPart())) == _sorted(a)


def _sorted(part: HistoryPart) -> HistoryPart:
    """Sets are lists in the order of arrival within a chunk. Only their members matter."""
    authors = {name: stats.model_copy(update={"addresses": sorted(stats.addresses)}) for name, stats in part.authors.items()}
    return part.model_copy(update={"authors": authors})


@given(logs, st.integers(1, 7))
def test_chunks_add_up_to_the_whole(log: Log, size: int) -> None:
    chunks = [build(log[at : at + size]) for at in range(0, len(log), size)]
    assert _sorted(merge_all(chunks)) == _sorted(build(log))


@settings(max_examples=150)
@given(logs, st.integers(1, 7), st.integers(1, 4), st.integers(2, 8))
def test_what_a_bound_hides_is_admitted(log: Log, size: int, kept: int, room: int) -> None:
    """For any number of kept files, no count is too high. `missed` and `cut` bound the missing part."""
    truth = Counter(path for _, _, parents, changed in log if parents == 1 for path in changed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "MAX_FILES_KEPT", kept)
        patch.setattr(history, "MAX_FILES_IN_MEMORY", room)
        merged = merge_all(build(log[at : at + size]) for at in range(0, len(log), size))
    for path, commits in truth.items():
        stats = merged.files.get(path)
        if stats is None:
            assert commits <= merged.cut
        else:
            assert stats.commits <= commits <= stats.commits + stats.missed
    assert set(merged.files) <= set(truth)


def test_the_answer_stays_below_the_limit_of_one_event() -> None:
    builder = HistoryBuilder(0)
    for number in range(2_000):
        builder.add(commit(f"Author with a rather long name {number} " + "x" * 40))
        for file in range(3):
            builder.add(FileChange(path=f"{'deep/' * 55}{number}-{file}.py", added=1, deleted=0))
    part = builder.finish()
    assert len(part.model_dump_json()) <= history.MAX_BYTES
    assert part.covered == 2_000
    assert part.authors_cut > 0
    assert part.files_cut > 0
    assert part.cut == 1
