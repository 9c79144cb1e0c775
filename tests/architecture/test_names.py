"""Each public class of the server has a name of its own, so that the name alone tells the reader which class is meant."""

import ast
from collections import defaultdict

from tests.architecture.sources import SERVER, parsed, python_files


def test_no_two_public_classes_have_the_same_name() -> None:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for path in python_files(*SERVER):
        for node in parsed(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(str(path))
    assert {name: paths for name, paths in found.items() if len(paths) > 1} == {}
