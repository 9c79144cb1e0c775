"""Rules for every file: a module states its purpose, stays readable, and names nothing of the machine on which it was written."""

import ast
import re
import tokenize
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT, python_files, tracked_files
from tests.conftest import LONGEST_FIRST

MAX_LINES = 500

TEXT = [path for path in tracked_files() if path.suffix not in (".png", ".webp", ".ico", ".woff2", ".gz", ".xz")]

OWN_MACHINE = re.compile(r"(?<![\w.$}-])/(?:work|root|Users|home/(?!runner\b)\w+)/[\w.]")
PACKAGE_SOURCE = re.compile(
    r"--(?:extra-)?index-url|--find-links|--trusted-host|^\s*index-url\s*=|UV_INDEX|PIP_INDEX|files\.pythonhosted\.org"
    r"|https?://[\w.:@/-]+/simple\b|registry\.npmjs\.org|npm_config_registry",
    re.MULTILINE,
)


@pytest.mark.parametrize("path", python_files(), ids=str)
def test_module_says_what_it_is_for(path: Path) -> None:
    """The first statement is a text by itself, unless the file has no statement. The rest of the file is not read."""
    with (ROOT / path).open("rb") as file:
        tokens = statements(file.readline)
        first, after = next(tokens), next(tokens, None)
    if first.type != tokenize.ENDMARKER:
        assert first.type == tokenize.STRING and after is not None and after.type == tokenize.NEWLINE
        text = ast.literal_eval(first.string)
        assert isinstance(text, str) and text.strip()


def statements(readline: Callable[[], bytes]) -> Iterator[tokenize.TokenInfo]:
    beside = (tokenize.ENCODING, tokenize.COMMENT, tokenize.NL)
    return (token for token in tokenize.tokenize(readline) if token.type not in beside)


def test_no_file_is_too_long() -> None:
    lengths = {str(path): (ROOT / path).read_bytes().count(b"\n") for path in TEXT if path.suffix in (".py", ".sql", ".sh")}
    assert {name: n for name, n in lengths.items() if n > MAX_LINES} == {}


def test_no_two_files_of_tests_without_a_package_have_the_same_name() -> None:
    """pytest imports such a file by its name alone, and collects only the first of two."""
    names = Counter(path.name for path in python_files("tests") if path.name.startswith("test_") and not _in_package(path))
    assert [name for name, count in names.items() if count > 1] == []


def _in_package(path: Path) -> bool:
    return (ROOT / path).with_name("__init__.py").is_file()


def test_files_that_begin_first_are_there() -> None:
    assert all((ROOT / name).is_file() for name in LONGEST_FIRST)


def test_no_file_names_a_path_of_a_machine() -> None:
    assert matches(OWN_MACHINE) == []


def test_no_file_chooses_where_packages_come_from() -> None:
    """The person who installs chooses the mirror and the proxy."""
    assert matches(PACKAGE_SOURCE) == []


def matches(pattern: re.Pattern[str]) -> list[str]:
    found = []
    for path in TEXT:
        if path == Path(__file__).relative_to(ROOT):
            continue
        text = (ROOT / path).read_text("utf-8")
        found += [f"{path}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]}" for match in pattern.finditer(text)]
    return found
