"""No modules import one another in a circle. Imports for types and imports inside functions count."""

import grimp
import pytest

from tests.architecture.sources import SERVER


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    graph = grimp.build_graph(*SERVER, cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def circles(imports: dict[str, set[str]]) -> list[set[str]]:
    """The strongly connected components of two and more modules: each module of such a set reaches all others."""
    reached = {module: _reached(imports, module) for module in imports}
    found: list[set[str]] = []
    for module, others in reached.items():
        circle = {other for other in others if module in reached[other]} | {module}
        if len(circle) > 1 and circle not in found:
            found.append(circle)
    return found


def _reached(imports: dict[str, set[str]], module: str) -> set[str]:
    seen, todo = set[str](), [module]
    while todo:
        for other in imports[todo.pop()] - seen:
            seen.add(other)
            todo.append(other)
    return seen


def test_no_modules_import_one_another(imports: dict[str, set[str]]) -> None:
    assert len(imports) > 200
    assert "api.settings" in imports["api.assembly"], "an import for types alone counts"
    assert circles(imports) == []


def test_a_circle_is_found() -> None:
    imports = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a", "e"}, "e": set[str]()}
    assert circles(imports) == [{"a", "b", "c"}]
