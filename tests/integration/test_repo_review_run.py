"""The whole review: four agents with the real context, the real tools and real repositories."""

import json
import os
import random
import string
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from examples.repo_review import historian, tools
from examples.repo_review._team import in_chunks
from examples.repo_review.editor import Editor
from examples.repo_review.historian import Historian
from examples.repo_review.inspector import Inspector
from examples.repo_review.surveyor import Surveyor
from tidelog import PermanentError, Tool, ToolError
from tidelog.discovery import discover
from tidelog.testing import MemoryJournal, Outcome, run_agent

TOOLS = [value for value in vars(tools).values() if isinstance(value, Tool)]
TEAM = ("historian", "surveyor", "inspector", "editor")
ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": os.devnull, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
SECRET = "gh" + "p_" + "".join(random.Random(3).choices(string.ascii_letters + string.digits, k=36))


def git(folder: Path, *arguments: str, given: bytes | None = None) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, input=given, env=ENVIRONMENT, timeout=120
    )
    return done.stdout.decode()


def import_commits(folder: Path, commits: list[tuple[str, int, dict[str, str]]]) -> Path:
    """A repository with (author, seconds, files) commits, made by git fast-import."""
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    stream = [b"reset refs/heads/main\n"]
    for author, seconds, files in commits:
        who = f"{author} <{author.lower()}@x.org> {seconds} +0000".encode()
        stream.append(b"commit refs/heads/main\nauthor " + who + b"\ncommitter " + who + b"\ndata 1\nx\n")
        for path, content in files.items():
            stream.append(f"M 100644 inline {path}\ndata {len(content.encode())}\n{content}\n".encode())
    git(folder, "fast-import", "--quiet", given=b"".join(stream))
    git(folder, "checkout", "-q", "main")
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A shop: one file that is long, busy and full of doubt; one author who left; one secret."""
    start = 1_672_531_200  # 2023-01-01
    commits = [("Ann", start + number * 86_400, {"src/cart.py": f"v = {number}\n"}) for number in range(30)]
    long = "# FIXME: rounding is wrong\n" + "x = 1\n" * 1_200
    commits += [("Bob", start + (200 + number) * 86_400, {"src/core.py": f"{long}v = {number}\n"}) for number in range(60)]
    commits.append(
        (
            "Bob",
            start + 300 * 86_400,
            {
                "src/config.py": f'TOKEN = "{SECRET}"  # TODO: not {SECRET}\n',
                "tests/test_core.py": "def test() -> None:\n    assert 1\n",
                "package.json": "{}\n",
                "README.md": "# Shop\n",
                "LICENSE": f"Permission is hereby granted, free of charge, to any person who knows {SECRET}\n",
                "<img src=x>|`.py": "# FIXME: <script>alert(1)</script>\n",
            },
        )
    )
    return import_commits(tmp_path / "shop", commits)


@dataclass
class Finished:
    outcomes: dict[str, Outcome]
    report: str


async def review(folder: Path, input: Any = None, silent: tuple[str, ...] = ()) -> Finished:
    """Runs the agents one after the other.

    Later agents have the mail of the earlier ones in their mailboxes. `silent` agents fail without mail.
    """
    outcomes: dict[str, Outcome] = {}
    for agent in (Historian, Surveyor, Inspector):
        if agent.name in silent:
            continue
        inbox = [(name, mail.body) for name, outcome in outcomes.items() for mail in outcome.sent if mail.to == agent.name]
        outcomes[agent.name] = await run_agent(agent, input, tools=TOOLS, peers=TEAM, inbox=inbox, workspace=folder)
    results = {name: outcome.result for name, outcome in outcomes.items()}
    outcomes["editor"] = await run_agent(Editor, input, tools=TOOLS, peers=TEAM, results=results, missing=silent, workspace=folder)
    return Finished(outcomes, read(outcomes["editor"].result["path"]))


def read(path: str) -> str:
    return Path(path).read_text()


@pytest.fixture(autouse=True)
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(tools.REPORT_DIR_VARIABLE, str(tmp_path / "reports"))
    return tmp_path / "reports"


async def test_the_report_tells_what_is_in_the_repository(repository: Path, reports: Path) -> None:
    finished = await review(repository)
    result = finished.outcomes["editor"].result
    report = finished.report
    assert Path(result["path"]).parent == reports
    assert result["missing"] == []
    assert "shop holds 8 tracked files with 1,207 lines of code and tests, mostly Python." in report
    assert "2 people made 91 commits between 2023-01-01 (UTC) and 2023-10-28 (UTC)" in report
    assert "1. **3 possible credentials in tracked files** (high)" in report
    assert "`src/config.py:1` GitHub token, 40 characters" in report
    assert "`src/core.py` 1,202 lines, 60 changes in the last year" in report
    assert "| `src/core.py` | 60 | 60 | 1,202 | 1 | 1 | Bob (100%) |" in report
    assert "`src/cart.py` Ann made 100% of 30 changes, last seen 2023-01-30" in report
    assert "`LICENSE` (MIT)" in report
    assert "**No CI configuration" in report
    assert "**1 package manifest without a lock file**" in report
    assert "`src/core.py:1` FIXME: rounding is wrong" in report
    assert [finding["severity"] for finding in result["findings"]] == sorted(
        (finding["severity"] for finding in result["findings"]), key=["high", "medium", "low"].index
    )
    assert "<script>" not in report
    assert "&lt;script&gt;" in report


async def test_what_one_agent_finds_guides_the_others(repository: Path) -> None:
    finished = await review(repository)
    inspector, surveyor = finished.outcomes["inspector"], finished.outcomes["surveyor"]
    closely = {tuple(call.arguments["paths"]) for call in inspector.calls if call.arguments.get("paths")}
    assert ("src/core.py", "src/cart.py") in closely
    assert [call.arguments["paths"] for call in surveyor.calls if call.tool == "files.measure"] == [["src/core.py", "src/cart.py"]]
    assert inspector.result["hot"]["markers_by_file"] == {"src/core.py": 1}
    assert inspector.result["main_language"] == "Python"
    assert "**No package manifest for Python** (low)" in finished.report
    assert "Among the 2 files that change most, 1 holds 1 marker." in finished.report


async def test_no_secret_reaches_the_log_or_the_report(repository: Path) -> None:
    finished = await review(repository)
    told = finished.report
    for outcome in finished.outcomes.values():
        journal = outcome.journal
        told += json.dumps([outcome.result, journal.recorded(), [call.arguments for call in journal.calls]])
        told += json.dumps([mail.body for mail in journal.sent])
    assert "src/config.py" in told
    assert "[REDACTED]" in told
    assert SECRET not in told
    assert not any(SECRET[at : at + 12] in told for at in range(4, 28))


async def test_a_secret_in_a_name_of_an_address_is_not_kept(repository: Path) -> None:
    finished = await review(repository)
    assert "@x.org" not in json.dumps(finished.outcomes["historian"].journal.recorded())


@pytest.mark.parametrize("silent", ["historian", "surveyor", "inspector"])
async def test_a_failed_agent_leaves_a_gap_that_is_said(repository: Path, silent: str) -> None:
    finished = await review(repository, {"message_timeout_s": 0.05}, silent=(silent,))
    assert finished.outcomes["editor"].result["missing"] == [silent]
    assert f"The review is incomplete: the {silent} failed." in finished.report
    if silent == "historian":
        assert "the historian sent nothing within 0.05 s" in finished.report
        assert "The length of the busiest files is not known" in finished.report


async def test_a_failing_historian_tells_its_peers_at_once(tmp_path: Path) -> None:
    journal = MemoryJournal()
    with pytest.raises(ToolError, match="not the top folder of a git repository"):
        await run_agent(Historian, tools=TOOLS, peers=TEAM, workspace=tmp_path, journal=journal)
    assert [mail.to for mail in journal.sent] == ["inspector", "surveyor"]
    note = journal.sent[0].body
    assert "not the top folder" in note["unavailable"]
    assert "Traceback" not in note["unavailable"] and "\n" not in note["unavailable"]


async def test_nothing_to_report_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="nothing to report"):
        await run_agent(Editor, tools=TOOLS, missing=TEAM[:3], workspace=tmp_path)


async def test_a_repository_without_commits_gets_a_report(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    git(folder, "init", "-q")
    finished = await review(folder)
    assert "It has no commits yet." in finished.report
    assert "There is no commit yet." in finished.report


async def test_a_shallow_clone_says_so(repository: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--depth", "3", f"file://{repository}", "clone")
    finished = await review(tmp_path / "clone")
    assert "The clone is shallow: older commits are not there" in finished.report
    assert "the changes of 1 commit at its edge cannot be told." in finished.report
    assert "3 commits read" in finished.report


async def test_limits_are_kept_and_said(repository: Path) -> None:
    finished = await review(repository, {"max_commits": 20, "max_files": 3})
    assert "Only the newest 20 of 91 commits were read." in finished.report
    assert "3 of 8 tracked files were measured, the first in order of name." in finished.report
    assert "5 tracked files were beyond the limit of the search." in finished.report


async def test_input_that_makes_no_sense_is_refused(repository: Path) -> None:
    with pytest.raises(PermanentError, match="max_commits"):
        await run_agent(Historian, {"max_commits": 0}, tools=TOOLS, peers=TEAM, workspace=repository)


async def test_the_report_goes_where_the_run_says(repository: Path, reports: Path) -> None:
    finished = await review(repository, {"report_path": "shops/one.md"})
    assert finished.outcomes["editor"].result["path"] == str(reports / "shops" / "one.md")


async def test_every_chunk_is_a_call_and_a_crash_repeats_none(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent dies between its chunks and its result. The next attempt does only the missing work."""
    monkeypatch.setattr(historian, "CHUNK", 10)
    journal = MemoryJournal()

    def die(*_: object) -> None:
        raise OSError("the machine is gone")

    with monkeypatch.context() as patch:
        patch.setattr(historian, "_summarise", die)
        with pytest.raises(OSError, match="gone"):
            await run_agent(Historian, tools=TOOLS, peers=TEAM, workspace=repository, journal=journal)
    chunks = sorted(call.arguments["offset"] for call in journal.calls if call.tool == "git.history")
    assert chunks == list(range(0, 91, 10))
    made = len(journal.calls)
    outcome = await run_agent(Historian, tools=TOOLS, peers=TEAM, workspace=repository, journal=journal)
    assert len(journal.calls) == made
    assert outcome.unused_keys == ()
    assert outcome.result["chunks"] == 10
    monkeypatch.undo()
    whole = await run_agent(Historian, tools=TOOLS, peers=TEAM, workspace=repository)
    assert outcome.result["history"] == whole.result["history"]


async def test_chunks_that_stop_early_are_continued() -> None:
    class Hasty:
        """Does at most seven of the requested items."""

        def __init__(self) -> None:
            self.asked: list[tuple[str, int, int]] = []

        async def tool(self, name: str, /, key: str, offset: int, limit: int) -> dict[str, int]:
            self.asked.append((key, offset, limit))
            return {"offset": offset, "covered": min(limit, 7)}

    context = Hasty()
    parts = await in_chunks(context, "git.history", 25, 10)  # type: ignore[arg-type]  # the function uses only `tool` of a context
    assert sorted(part["offset"] for part in parts) == [0, 7, 10, 17, 20]
    assert sum(part["covered"] for part in parts) == 25
    assert len({key for key, *_ in context.asked}) == 5


def test_a_worker_finds_all_of_it_in_the_folder() -> None:
    found = discover(Path(tools.__file__).parent)
    assert found.problems == []
    assert set(found.agents) == set(TEAM)
    assert set(found.tools) == {
        "files.measure",
        "files.read",
        "files.scan",
        "git.history",
        "git.summary",
        "report.write",
        "tree.count",
        "tree.hygiene",
        "tree.summary",
    }
    assert all(tool.definition.idempotent and tool.definition.description for tool in found.tools.values())
    assert all(agent.definition.description for agent in found.agents.values())


async def test_a_large_history_is_read_in_bounded_pieces(tmp_path: Path) -> None:
    """5,000 commits over 5,000 files: two chunks, small records, exact totals."""
    start = 1_600_000_000
    files = [f"d{number % 70}/f{number}.py" for number in range(5_000)]
    commits = [(f"Author{number % 50}", start + number * 3_600, {path: "x\n"}) for number, path in enumerate(files)]
    folder = import_commits(tmp_path / "large", commits)
    outcome = await run_agent(Historian, tools=TOOLS, peers=(), workspace=folder)
    history = outcome.result["history"]
    assert (history["covered"], history["added"], history["authors"]) == (5_000, 5_000, 50)
    assert history["bus_factor"]["people"] == 25
    assert [call.arguments.get("offset") for call in outcome.calls if call.tool == "git.history"] == [0, 4_000]
    assert max(len(json.dumps(value)) for value in outcome.journal.recorded().values()) < 200 * 1024
