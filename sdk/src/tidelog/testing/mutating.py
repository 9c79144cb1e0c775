"""Arguments that a tool must refuse, made from an example and the JSON Schema of its parameters."""

from collections.abc import Iterator, Mapping
from typing import Any

CANARY = "canary-7f3a9c"
"""A text that nobody may find in an error."""

_WRONG: tuple[tuple[str, Any], ...] = (
    ("object", {CANARY: CANARY}),
    ("array", [CANARY]),
    ("string", CANARY),
    ("number", 3.5),
    ("boolean", True),
)
_SCALARS = frozenset({"string", "number", "integer", "boolean"})


def mutations(schema: Mapping[str, Any], example: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name of the argument, what is wrong with it, and the arguments."""
    yield CANARY, "an argument that the tool does not have", {**example, CANARY: CANARY}
    for name in schema.get("required", ()):
        if name in example:
            yield name, "the argument is missing", {key: value for key, value in example.items() if key != name}
    for name, part in schema.get("properties", {}).items():
        types = _types(part, schema)
        if name not in example or types is None:
            continue
        for kind, value in _WRONG:
            if kind not in types and not (kind in _SCALARS and types & _SCALARS):  # scalars may be converted
                yield name, f"the argument is of the type {kind}", {**example, name: value}
                break


def with_canaries(schema: Mapping[str, Any], example: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """As `mutations`: each argument with a text that the tool hardly expects."""
    for name, part in schema.get("properties", {}).items():
        if name in example:
            types = _types(part, schema)
            yield name, "a text that it hardly knows", {**example, name: CANARY}
            if types is not None and "array" not in types:
                yield name, "a list", {**example, name: [CANARY]}


def _types(part: Any, whole: Mapping[str, Any], depth: int = 0) -> set[str] | None:
    """The JSON types that a schema allows; None: any, or more than this function understands."""
    if not isinstance(part, Mapping) or depth > 20:
        return None
    if "$ref" in part:
        name = str(part["$ref"]).rpartition("/")[2]
        return _types(whole.get("$defs", {}).get(name), whole, depth + 1)
    for several in ("anyOf", "oneOf"):
        if several in part:
            found = [_types(each, whole, depth + 1) for each in part[several]]
            return None if None in found else {kind for kinds in found for kind in kinds or ()}
    if "allOf" in part and len(part["allOf"]) == 1:
        return _types(part["allOf"][0], whole, depth + 1)
    given = part.get("type")
    if given is None:
        values = part.get("enum", [part["const"]] if "const" in part else None)
        return None if values is None else {"string"}
    return {given} if isinstance(given, str) else set(given)
