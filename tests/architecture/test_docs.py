"""The reference agrees with the code."""

import ast
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from api.http.app import ROUTERS
from api.http.conventions.errors import STATUS, status_of
from api.settings import Settings
from domain.errors import TidelogError
from domain.registry import REGISTRY
from tests.architecture.sources import ROOT, parsed, python_files, tracked_files

REFERENCE = ROOT / "docs" / "reference"
MARKDOWN = [path for path in tracked_files() if path.suffix == ".md"]


def rows(text: str) -> list[list[str]]:
    """Cells of all rows of the tables in a text, without the header rows."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def code_of(cell: str) -> str:
    return cell.strip("`")


# --- configuration.md ---------------------------------------------------------------------------------------------------


def test_configuration_lists_every_setting_with_its_default() -> None:
    table = rows((REFERENCE / "configuration.md").read_text())
    documented = {code_of(row[0]): code_of(row[1]) for row in table if row[0].startswith("`TIDELOG_")}
    actual = {}
    for name, field in Settings.model_fields.items():
        default = field.get_default()
        actual[f"TIDELOG_{name.upper()}"] = "-" if default is None or default == () else str(default)
    assert documented == actual


# --- http.md, worker-sessions.md ----------------------------------------------------------------------------------------


def errors_of(base: type[TidelogError] = TidelogError) -> set[type[TidelogError]]:
    return {base, *(found for child in base.__subclasses__() for found in errors_of(child))}


def test_error_table_lists_every_code_with_its_status() -> None:
    documented = {code_of(c): (int(status), retryable == "yes") for c, status, retryable, _ in error_rows()}
    assert len(documented) == len(error_rows()), "a code is listed twice"
    answered = [error for error in errors_of() if error.__module__.startswith(("domain", "application", "api"))]
    raised = {error.code: (status_of(error.__new__(error)), error.retryable) for error in answered}
    for code, known in raised.items():
        assert documented.get(code) == known, code
    assert documented.keys() - raised.keys() == codes_of_the_edge() - raised.keys()
    assert all(isinstance(status, int) for status in STATUS.values())


def error_rows() -> list[list[str]]:
    return [row for row in rows((REFERENCE / "http.md").read_text().partition("## Errors")[2]) if row[1].isdigit()]


def codes_of_the_edge() -> set[str]:
    """Codes of conventions/errors.py for errors of others: the third argument of `problem`, or the values of `code`."""
    found: set[str] = set()
    for node in ast.walk(parsed(Path("api/http/conventions/errors.py"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "problem" and isinstance(node.args[2], ast.Constant):
            found.add(str(node.args[2].value))
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "code":
            texts = {part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant)}
            found |= {text for text in texts if isinstance(text, str)}
    return found


def test_every_route_is_documented() -> None:
    text = (REFERENCE / "http.md").read_text() + (REFERENCE / "worker-sessions.md").read_text()
    documented = set(re.findall(r"^\| `((?:GET|POST|PUT|PATCH|DELETE) /[^`]*)`", text, re.MULTILINE))
    documented |= set(re.findall(r"^`((?:GET|POST) /[^`]+)`$", text, re.MULTILINE))
    actual = {
        f"{method} {route.path}"
        for router in ROUTERS
        for route in router.routes
        if route.include_in_schema
        for method in route.methods
    }  # type: ignore[attr-defined]
    assert documented == actual


# --- events.md ----------------------------------------------------------------------------------------------------------


def documented_events() -> dict[str, str]:
    parts = re.split(r"^### (\S+)$", (REFERENCE / "events.md").read_text().partition("\n## Values")[0], flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_event_is_documented() -> None:
    assert list(documented_events()) == list(REGISTRY.events)


@pytest.mark.parametrize("topic", REGISTRY.events)
def test_event_is_documented_with_its_version_and_fields(topic: str) -> None:
    text, event = documented_events()[topic], REGISTRY.events[topic]
    assert re.search(rf"^Version {event.VERSION}\. \w", text, re.MULTILINE)
    table = [row for row in rows(text) if row[0].startswith("`")]
    assert [code_of(row[0]) for row in table] == list(event.model_fields)
    assert all(len(row) == 3 and row[2] for row in table), "each field has a meaning"


# --- all pages ----------------------------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """Anchors of a page's headings, in the form of Git hosts."""
    titles = re.findall(r"^#+ (.+)$", (ROOT / path).read_text(), re.MULTILINE)
    plain = (re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", lambda m: m[1] or "", title) for title in titles)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in plain}


@pytest.mark.parametrize("path", MARKDOWN, ids=str)
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"^```.*?^```", "", (ROOT / path).read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = unquote(target).partition("#")
        page = (path.parent / name) if name else path
        assert (ROOT / page).exists(), f"{target}: there is no such file"
        if anchor:
            resolved = (ROOT / page).resolve().relative_to(ROOT)
            assert anchor in anchors(resolved), f"{target}: there is no such heading"


def test_readme_leads_to_every_page_for_a_job() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [str(path) for path in MARKDOWN if path.parent == Path("docs/how-to") and f"]({path})" not in readme] == []


def test_decisions_are_numbered_without_a_gap() -> None:
    names = sorted(path.name for path in tracked_files() if path.parent == Path("docs/decisions") and path.name != "README.md")
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
    for name in names:
        text = (ROOT / "docs" / "decisions" / name).read_text()
        assert re.match(rf"# {name[:4]} \S", text), f"{name}: the title begins with the number"
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequence"], name


def test_documented_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE))
    for path in MARKDOWN:
        used = set(re.findall(r"`(?:\$ )?make ([a-z][\w-]*)`", (ROOT / path).read_text()))
        assert used <= targets, f"{path}: {sorted(used - targets)}"


def test_glossary_is_in_order_and_names_only_what_the_code_has() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text()
    terms = re.findall(r"^### (.+)$", text, re.MULTILINE)
    assert terms == sorted(terms, key=str.lower)
    paths = {match for match in re.findall(r"`((?:domain|application|projections|adapters|api|sdk|migrations)/[\w./]+)`", text)}
    assert paths, "a glossary that leads to the code"
    for path in sorted(paths):
        assert (ROOT / path).exists(), path


def test_readme_names_the_folders_that_are_there() -> None:
    layout = (ROOT / "README.md").read_text().partition("## Layout")[2]
    named = set(re.findall(r"^([a-z]+)/ ", layout, re.MULTILINE))
    actual = {path.parts[0] for path in python_files() if len(path.parts) > 1}
    assert actual <= named
    for folder in named:
        assert (ROOT / folder).is_dir(), folder
