"""The tools of examples/repo_review on real repositories: their counts agree with git's counts, and they stay in their folder."""

import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.repo_review import _git, tools
from examples.repo_review.analysis import history, tree
from tidelog import PermanentError, ToolContext

ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": os.devnull,
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ann",
    "GIT_AUTHOR_EMAIL": "ann@x.org",
    "GIT_COMMITTER_NAME": "Ann",
    "GIT_COMMITTER_EMAIL": "ann@x.org",
}


def git(folder: Path, *arguments: str, **environment: str) -> str:
    command = ["git", "-c", "protocol.file.allow=always", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=ENVIRONMENT | environment, timeout=60).stdout


def start(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "-q", "-b", "main")
    return folder


def commit(folder: Path, files: dict[str, str | None], author: str = "Ann", date: str = "2024-03-04T10:00:00+0100") -> str:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.unlink()
        else:
            path.write_text(content)
    git(folder, "add", "-A")
    who = {"GIT_AUTHOR_NAME": author, "GIT_AUTHOR_EMAIL": f"{author.lower()}@x.org"}
    git(folder, "commit", "-q", "-m", "work", **who, GIT_AUTHOR_DATE=date, GIT_COMMITTER_DATE=date)
    return git(folder, "rev-parse", "HEAD").strip()


def context(folder: Path) -> ToolContext:
    return ToolContext(folder, "test", 1)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Twelve commits of three authors with a rename, a deletion, a merge and a binary file."""
    folder = start(tmp_path / "shop")
    text = "a\nb\nc\nd\ne\nf\n"
    commit(folder, {"src/app.py": text, "README.md": "# Shop\n", "old.txt": "x\n"}, "Ann", "2023-01-02T08:00:00+0000")
    for number in range(5):
        author = "Bob" if number % 2 else "Ann"
        commit(folder, {"src/app.py": text + "x\n" * number + f"{number}\n"}, author, f"2024-01-0{number + 1}T09:30:00+0100")
    git(folder, "checkout", "-q", "-b", "side")
    commit(folder, {"side.py": "s\n"}, "Cy", "2024-02-01T23:00:00-0800")
    git(folder, "checkout", "-q", "main")
    commit(folder, {"old.txt": None}, "Ann", "2024-02-02T10:00:00+0000")
    git(folder, "merge", "-q", "--no-ff", "-m", "merge", "side", GIT_AUTHOR_DATE="2024-02-03T10:00:00+0000")
    (folder / "logo.bin").write_bytes(b"\0\1\2" * 50)
    commit(folder, {}, "Bob", "2024-02-04T10:00:00+0000")
    git(folder, "mv", "src/app.py", "src/main.py")
    commit(folder, {}, "Bob", "2024-02-05T10:00:00+0000")
    commit(folder, {"src/main.py": "a\n"}, "Ann", "2024-02-06T10:00:00+0000")
    return folder


def numstat(folder: Path) -> Iterator[tuple[int, int, str]]:
    for line in git(folder, "log", "--no-merges", "-M", "--numstat", "--format=").splitlines():
        added, deleted, path = line.split("\t")
        new = path.replace("{app.py => main.py}", "main.py")
        yield int(added.replace("-", "0")), int(deleted.replace("-", "0")), new


@pytest.mark.parametrize("limit", [1, 5, 100])
def test_history_in_chunks_counts_what_git_counts(repository: Path, limit: int) -> None:
    summary = tools.summary(context(repository))
    assert summary.head == git(repository, "rev-parse", "HEAD").strip()
    assert summary.commits == int(git(repository, "rev-list", "--count", "HEAD"))
    assert (summary.branch, summary.shallow, summary.partial) == ("main", False, False)
    parts = [tools.history(context(repository), summary.head, offset, limit, 0) for offset in range(0, summary.commits, limit)]
    found = history.merge_all(parts)
    lines = list(numstat(repository))
    assert found.covered == summary.commits
    assert found.merges == 1
    assert (found.added, found.deleted) == (sum(line[0] for line in lines), sum(line[1] for line in lines))
    assert {path: stats.commits for path, stats in found.files.items()} == Counter(line[2] for line in lines)
    shortlog = [line.split("\t") for line in git(repository, "shortlog", "-sn", "--no-merges", "HEAD").splitlines()]
    assert {name: stats.commits for name, stats in found.authors.items()} == {name: int(count) for count, name in shortlog}
    days = git(repository, "log", "--format=%ad", "--date=format:%Y-%m-%d").split()
    assert found.days == Counter(days)
    hours = git(repository, "log", "--no-merges", "--format=%ad", "--date=format:%u %H").splitlines()
    expected = Counter((int(day) - 1) * 24 + int(hour) for day, hour in (line.split() for line in hours))
    assert {index: count for index, count in enumerate(found.hours) if count} == expected


def test_recent_commits_are_counted_from_the_given_second(repository: Path) -> None:
    head = git(repository, "rev-parse", "HEAD").strip()
    found = tools.history(context(repository), head, 0, 100, 1_704_067_200)  # 2024-01-01
    assert found.recent == found.covered - 1
    assert found.files["src/main.py"].recent == 2
    assert found.files["old.txt"].recent == 1


def test_the_tree_is_what_wc_says(repository: Path) -> None:
    found = tools.tree_summary(context(repository), 0, 100)
    names = git(repository, "ls-files").split()
    sizes = {name: (repository / name).stat().st_size for name in names}
    text = [name for name in names if name != "logo.bin"]
    assert found.covered == tools.tree_count(context(repository)) == len(names)
    assert found.total.bytes == sum(sizes.values())
    assert found.total.lines == sum((repository / name).read_bytes().count(b"\n") for name in text)
    assert (found.binary.files, found.binary.bytes) == (1, 150)
    assert found.biggest[0].path == "logo.bin"
    halves = [tools.tree_summary(context(repository), 0, 2), tools.tree_summary(context(repository), 2, 100)]
    assert tree.merge_all(halves) == tree.merge(tree.TreePart(), found)


def test_an_unfinished_last_line_counts(tmp_path: Path) -> None:
    folder = start(tmp_path / "r")
    commit(folder, {"a.py": "one\ntwo", "b.py": "", "c.py": "x\n" * 300_000})
    measured = {file.path: (file.lines, file.bytes) for file in tools.measure(context(folder), ["a.py", "b.py", "c.py"])}
    assert measured == {"a.py": (2, 7), "b.py": (0, 0), "c.py": (300_000, 600_000)}


def test_a_repository_without_a_commit(tmp_path: Path) -> None:
    folder = start(tmp_path / "new")
    found = tools.summary(context(folder))
    assert (found.head, found.commits, found.last_commit, found.branch) == (None, 0, None, "main")
    assert tools.tree_summary(context(folder), 0, 10).covered == 0
    assert tools.tree_hygiene(context(folder)).files == 0


def test_what_is_no_repository_is_refused_clearly(tmp_path: Path) -> None:
    outer = start(tmp_path / "outer")
    inner = outer / "inner"
    inner.mkdir()
    with pytest.raises(PermanentError, match="not the top folder of a git repository"):
        tools.summary(context(inner))
    bare = tmp_path / "bare"
    git(tmp_path, "init", "-q", "--bare", str(bare))
    with pytest.raises(PermanentError, match="bare"):
        tools.summary(context(bare))
    with pytest.raises(PermanentError, match="cannot be opened"):
        tools.summary(context(tmp_path / "nowhere"))


def test_a_detached_head_and_a_shallow_clone(repository: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--depth", "2", f"file://{repository}", "clone")
    clone = tmp_path / "clone"
    git(clone, "checkout", "-q", "--detach")
    found = tools.summary(context(clone))
    assert (found.shallow, found.branch, found.commits) == (True, None, 2)
    assert found.head is not None
    part = tools.history(context(clone), found.head, 0, 10, 0)
    assert (part.covered, part.boundary) == (2, 1)
    assert {path: stats.commits for path, stats in part.files.items()} == {"src/main.py": 1}


def test_a_partial_clone_is_seen_and_fetches_nothing(repository: Path, tmp_path: Path) -> None:
    git(repository, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "-q", "--filter=blob:none", f"file://{repository}", "clone")
    clone = tmp_path / "clone"
    assert tools.summary(context(clone)).partial
    before = sorted((clone / ".git" / "objects").rglob("*"))
    with pytest.raises(PermanentError):
        tools.history(context(clone), git(clone, "rev-parse", "HEAD").strip(), 0, 100, 0)
    assert sorted((clone / ".git" / "objects").rglob("*")) == before


def test_a_linked_worktree_works(repository: Path, tmp_path: Path) -> None:
    git(repository, "worktree", "add", "-q", str(tmp_path / "linked"), "side")
    found = tools.summary(context(tmp_path / "linked"))
    assert (found.branch, found.commits) == ("side", 7)


def test_submodules_and_links_are_counted_but_not_entered(repository: Path, tmp_path: Path) -> None:
    folder = start(tmp_path / "with-module")
    (tmp_path / "secret.py").write_text("# TODO outside\n")
    commit(folder, {"a.py": "x\n"})
    git(folder, "submodule", "add", "-q", str(repository), "libs/shop")
    (folder / "out.py").symlink_to("../secret.py")
    (folder / "folder").symlink_to("/etc")
    commit(folder, {})
    found = tools.tree_summary(context(folder), 0, 100)
    assert (found.submodules, found.links, found.total.files) == (["libs/shop"], 2, 2)
    scanned = tools.scan_files(context(folder), 0, 100)
    assert scanned.markers == {}
    assert scanned.skipped == {"submodule": 1, "symbolic link": 2}


def test_odd_file_names_survive(tmp_path: Path) -> None:
    folder = start(tmp_path / "odd")
    names = [
        b'quo"te.py',
        b"new\nline.py",
        b"caf\xe9.py",
        "日本語.py".encode(),
        b"sp ace.py",
        b"-dash.py",
        b"pipe|`.py",
        b":(glob)x.py",
    ]
    for name in names:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"# TODO here\n")
    head = commit(folder, {})
    changed = tools.history(context(folder), head, 0, 10, 0).files
    found = tools.tree_summary(context(folder), 0, 100)
    scanned = tools.scan_files(context(folder), 0, 100)
    assert found.total.files == found.total.lines == scanned.markers["TODO"] == len(names)
    assert (
        set(changed)
        == set(scanned.marker_files)
        == {'quo"te.py', "new\\nline.py", "caf\\xe9.py", "日本語.py", "sp ace.py", "-dash.py", "pipe|`.py", ":(glob)x.py"}
    )
    assert all(file.exists and file.lines == 1 for file in tools.measure(context(folder), sorted(changed)))
    assert tools.scan_files(context(folder), paths=["日本語.py", "-dash.py"]).marker_files == {"日本語.py": 1, "-dash.py": 1}


def test_deleted_unmerged_and_special_files_end_nothing(repository: Path) -> None:
    (repository / "side.py").unlink()
    (repository / "README.md").unlink()
    os.mkfifo(repository / "README.md")
    found = tools.tree_summary(context(repository), 0, 100)
    assert (found.missing, found.unreadable) == (1, 1)
    assert tools.scan_files(context(repository), 0, 100).skipped == {"not in the working tree": 1, "unreadable": 1, "binary": 1}
    measured = tools.measure(context(repository), ["side.py", "README.md", "logo.bin"])
    assert [(file.exists, file.binary) for file in measured] == [(False, False), (False, False), (True, True)]


@pytest.mark.parametrize(
    "path",
    [
        "../outside.txt",
        "/etc/passwd",
        "a/../../outside.txt",
        ".git/config",
        "sub/.GIT/config",
        "out/outside.txt",
        "link.txt",
        "",
        "a\0b",
    ],
)
def test_nothing_outside_can_be_read(repository: Path, tmp_path: Path, path: str) -> None:
    (tmp_path / "outside.txt").write_text("outside\n")
    (repository / "out").symlink_to(tmp_path)
    (repository / "link.txt").symlink_to(tmp_path / "outside.txt")
    with pytest.raises(PermanentError):
        tools.read(context(repository), path)
    assert [file.exists for file in tools.measure(context(repository), [path])] == [False]


def test_a_git_directory_elsewhere_is_not_believed(repository: Path, tmp_path: Path) -> None:
    pointer, link = tmp_path / "pointer", tmp_path / "link"
    pointer.mkdir()
    (pointer / ".git").write_text(f"gitdir: {repository}/.git\n")
    link.mkdir()
    (link / ".git").symlink_to(repository / ".git")
    for folder in (pointer, link):
        with pytest.raises(PermanentError, match="leads out"):
            tools.summary(context(folder))
    inside = start(tmp_path / "inside")
    (inside / ".git" / "commondir").write_text(f"{repository}/.git\n")
    with pytest.raises(PermanentError, match="leads out"):
        tools.summary(context(inside))


def test_nothing_of_the_repositorys_configuration_is_run(repository: Path, tmp_path: Path) -> None:
    trap, proof = tmp_path / "trap.sh", tmp_path / "proof"
    trap.write_text(f"#!/bin/sh\ntouch {proof}\ncat 2>/dev/null\n")
    trap.chmod(0o755)
    (repository / ".gitattributes").write_text("*.py diff=trap filter=trap\n*.bin diff=trap\n")
    head = commit(repository, {"x.py": "x\n"})
    settings = (
        "core.fsmonitor",
        "diff.external",
        "diff.trap.command",
        "diff.trap.textconv",
        "filter.trap.clean",
        "core.pager",
        "pager.log",
        "gpg.program",
        "core.sshCommand",
        "core.askPass",
        "core.editor",
        "filter.trap.smudge",
        "core.gitProxy",
    )
    for name in settings:
        git(repository, "config", name, str(trap))
    git(repository, "config", "log.showSignature", "true")
    for hook in ("post-index-change", "fsmonitor-watchman", "reference-transaction"):
        (repository / ".git" / "hooks").mkdir(exist_ok=True)
        (repository / ".git" / "hooks" / hook).symlink_to(trap)
    tools.summary(context(repository))
    assert tools.history(context(repository), head, 0, 100, 0).files["x.py"].added == 1
    tools.tree_summary(context(repository), 0, 100)
    tools.tree_hygiene(context(repository))
    tools.scan_files(context(repository), 0, 100)
    assert not proof.exists()
    subprocess.run(["git", "-C", str(repository), "status"], capture_output=True, env=ENVIRONMENT, timeout=60, check=False)
    assert proof.exists()  # the trap works: plain git walks into it


@pytest.mark.parametrize("head", ["HEAD", "--output=/tmp/x", "main", "a" * 39, "A" * 40])
def test_history_takes_commit_ids_only(repository: Path, head: str) -> None:
    with pytest.raises(PermanentError, match="full commit id"):
        tools.history(context(repository), head, 0, 10, 0)


def test_an_unknown_commit_is_a_clear_error(repository: Path) -> None:
    with pytest.raises(PermanentError, match="git log failed"):
        tools.history(context(repository), "1" * 40, 0, 10, 0)


def test_a_chunk_stops_when_its_time_is_up_and_says_so(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "SOFT_LIMIT_S", -1.0)
    head = git(repository, "rev-parse", "HEAD").strip()
    first = tools.history(context(repository), head, 0, 100, 0)
    assert first.covered == 1
    assert set(first.files) == {"src/main.py"}
    assert tools.tree_summary(context(repository), 0, 100).covered == 1
    assert tools.scan_files(context(repository), 0, 100).covered == 1


def test_git_that_hangs_is_ended(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "git").write_text("#!/bin/sh\nsleep 60 &\nwait\n")
    (fake / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake}:{os.environ['PATH']}")
    with pytest.raises(Exception, match="did not end within"):
        _git.Git(repository).lines("status", timeout_s=0.3)


def test_mailmap_is_honoured_wherever_it_comes_from_the_tree(repository: Path) -> None:
    head = commit(repository, {".mailmap": "Robert <bob@x.org>\n"})
    assert set(tools.history(context(repository), head, 0, 100, 0).authors) == {"Ann", "Robert", "Cy"}


def test_a_report_is_written_whole_and_only_where_reports_belong(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(tools.REPORT_DIR_VARIABLE, raising=False)
    for text in ("# First\n", "# Second\n"):
        written = tools.write_report(context(repository), "run.md", text)
        assert Path(written.path).read_text() == text
    assert Path(written.path) == repository / ".tidelog" / "reports" / "run.md"
    assert git(repository, "status", "--porcelain") == ""
    for name in ("../x.md", "/tmp/x.md", "a/../../x.md", "run.txt", ".git/x.md", ""):
        with pytest.raises(PermanentError):
            tools.write_report(context(repository), name, "no")
    monkeypatch.setenv(tools.REPORT_DIR_VARIABLE, str(tmp_path / "reports"))
    assert tools.write_report(context(repository), "2024/run.md", "x").path == str(tmp_path / "reports" / "2024" / "run.md")
    assert sorted(path.name for path in (tmp_path / "reports").rglob("*")) == ["2024", "run.md"]


def test_a_link_does_not_lead_reports_out(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(tools.REPORT_DIR_VARIABLE, raising=False)
    (tmp_path / "elsewhere").mkdir()
    (repository / ".tidelog").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermanentError, match="leads out"):
        tools.write_report(context(repository), "run.md", "x")
    assert list((tmp_path / "elsewhere").iterdir()) == []
