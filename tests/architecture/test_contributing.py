"""CONTRIBUTING.md: the files that answer its questions exist, and so do the tests that its checklists name."""

import re
from pathlib import Path

from tests.architecture.sources import ROOT
from tests.architecture.test_guarantees import NAMED, names_of_tests

TEXT = (ROOT / "CONTRIBUTING.md").read_text()
KINDS = ("slice", "hook", "entrance", "provider", "read model", "setting")


def section(title: str) -> str:
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def checklists() -> dict[str, list[str]]:
    """Title of a door → the lines of its checklist, each in one line."""
    parts = re.split(r"^### (.+)$", section("Which door a new thing takes"), flags=re.MULTILINE)[1:]
    return {title: re.findall(r"^- (.+)$", body, re.MULTILINE) for title, body in zip(parts[::2], parts[1::2], strict=True)}


def test_ten_questions_are_answered_by_files_that_exist() -> None:
    rows = re.findall(r"^\| (.+\?) \| (.+) \|$", section("Where is …?"), re.MULTILINE)
    assert len(rows) >= 10
    for question, answer in rows:
        files = re.findall(r"`([\w/.]+\.py)`", answer)
        assert files, question
        assert [name for name in files if not (ROOT / name).is_file()] == [], question


def test_each_kind_of_new_thing_has_a_door_with_a_checklist() -> None:
    doors = checklists()
    for kind in KINDS:
        assert any(kind in title and lines for title, lines in doors.items()), kind


def test_each_line_of_a_checklist_names_a_test_that_exists() -> None:
    for lines in checklists().values():
        for line in lines:
            named = NAMED.findall(line)
            assert named, line
            assert [f"{path}::{name}" for path, name in named if name not in names_of_tests(Path(path))] == [], line


def test_every_other_file_that_is_named_exists() -> None:
    named = set(re.findall(r"`((?:domain|application|projections|adapters|api|sdk|migrations|tests|docs)/[\w./-]+)`", TEXT))
    assert {name for name in named if not (ROOT / name).exists()} == set()
