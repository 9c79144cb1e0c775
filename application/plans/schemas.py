"""What JSON Schemas certainly say of the values that go from one step to another. What they say in many words counts as unknown.

Schemas are untrusted: no reference is followed in a circle, and each look ends after some steps.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote

from domain.kernel import Json

MOST_OPTIONS = 50
MOST_REFERENCES = 20
MAX_LEVELS = 4
"""Levels of two objects that are compared."""
MOST_COMPARED = 5_000
"""Fields that are compared for one plan."""

ALL_TYPES = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})
OF_EXPRESSIONS: Mapping[str, frozenset[str]] = {
    "bool": frozenset({"boolean"}), "string": frozenset({"string"}), "int": frozenset({"integer"}), "uint": frozenset({"integer"}),
    "double": frozenset({"number"}), "null": frozenset({"null"}), "list": frozenset({"array"}), "map": frozenset({"object"}),
    "timestamp": frozenset({"string"}), "duration": frozenset({"string"}),
}  # fmt: skip
"""Kind of the value of an expression → types of its JSON."""
_HARD = frozenset({
    "allOf", "not", "if", "then", "else", "dependentSchemas", "unevaluatedProperties", "$dynamicRef", "$recursiveRef",
})  # fmt: skip


class Schema(NamedTuple):
    """A place in a schema, with the schema around it, to which references lead."""

    root: Json
    here: Json

    def options(self) -> "list[Mapping[str, Any]] | None":
        """The simple schemas one of which a value fits. None: that is not known."""
        found: list[Mapping[str, Any]] = []
        left: list[tuple[Json, int]] = [(self.here, 0)]
        while left:
            here, depth = left.pop()
            if not isinstance(here, dict) or here.keys() & _HARD or depth > MAX_LEVELS or len(found) + len(left) > MOST_OPTIONS:
                return None
            several = next((here[name] for name in ("anyOf", "oneOf") if name in here), None)
            if "$ref" in here:
                target = self._target(here["$ref"])
                if target is None or here.keys() & {"properties", "type", "anyOf", "oneOf"}:
                    return None
                left.append((target, depth + 1))
            elif several is not None:
                if not isinstance(several, list) or here.keys() & {"properties", "type"}:
                    return None
                left += [(one, depth + 1) for one in several]
            else:
                found.append(here)
        return found

    def _target(self, reference: Json) -> Json:
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return None
        found: Any = self.root
        for part in unquote(reference[2:]).split("/")[:MOST_REFERENCES]:
            found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
        return found

    def types(self) -> frozenset[str] | None:
        """The types that a value may have. None: that is not known."""
        options = self.options()
        if not options:
            return None
        found: set[str] = set()
        for option in options:
            types = _types_of(option)
            if types is None:
                return None
            found |= types
        return frozenset(found)

    def texts(self) -> tuple[str, ...] | None:
        """The texts that a value may have, where there are few and it is always one of them."""
        options = self.options()
        found: list[str] = []
        for option in options or ({},):
            values = option.get("enum", [option["const"]] if "const" in option else None)
            if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
                return None
            found += values
        return tuple(found)

    def fields(self) -> tuple[str, ...]:
        """The names of the fields that are told."""
        return tuple(dict.fromkeys(name for option in self.options() or () for name in _properties(option)))


def _types_of(option: Mapping[str, Any]) -> frozenset[str] | None:
    said = option.get("type")
    if isinstance(said, str) and said in ALL_TYPES:
        return frozenset({said})
    if isinstance(said, list) and said and all(isinstance(one, str) and one in ALL_TYPES for one in said):
        return frozenset(said)
    values = option.get("enum", [option["const"]] if "const" in option else None)
    if said is None and isinstance(values, list) and values:
        return frozenset(_type_of(value) for value in values)
    return None


def _type_of(value: Json) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def _properties(option: Mapping[str, Any]) -> Mapping[str, Any]:
    found = option.get("properties")
    return found if isinstance(found, dict) else {}


class Missing(NamedTuple):
    """A field that a schema does not have."""

    name: str
    known: tuple[str, ...]
    """The fields that it has."""
    is_certain: bool
    """Whether no value that fits the schema has the field. Otherwise the schema only does not tell of it."""
    types: frozenset[str] = frozenset()
    """Of the value around it, where that is no object."""


def field_of(schema: Schema, name: str) -> Schema | Missing | None:
    """The schema of a field. None: nothing is known of it."""
    options = schema.options()
    if not options:
        return None
    found: list[Json] = []
    may_be = False
    others: set[str] = set()
    for option in options:
        types = _types_of(option)
        if types is not None and "object" not in types:
            others |= types
        elif name in _properties(option):
            found.append(_properties(option)[name])
        elif option.get("additionalProperties") is False and not option.get("patternProperties"):
            continue
        elif _properties(option) and option.get("additionalProperties") in (None, True) and not option.get("patternProperties"):
            may_be = True
        else:
            return None
    if found:
        return None if may_be else Schema(schema.root, found[0] if len(found) == 1 else {"anyOf": found})
    are_objects = may_be or any(_types_of(option) is None or "object" in (_types_of(option) or ()) for option in options)
    return Missing(name, schema.fields(), not may_be, frozenset() if are_objects else frozenset(others))


def at(schema: Schema, path: Sequence[str]) -> "tuple[Schema | Missing | None, int]":
    """What a schema says of a place below it, and how many names of the path were followed for that."""
    here = schema
    for count, name in enumerate(path):
        found = field_of(here, name)
        if not isinstance(found, Schema):
            return found, count
        here = found
    return here, len(path)


class Conflict(NamedTuple):
    place: tuple[str, ...]
    """In the value."""
    why: str
    is_certain: bool


def clash(given: frozenset[str] | None, wanted: frozenset[str] | None) -> bool:
    """Whether a value of these types certainly does not fit."""
    if not given or not wanted:
        return False
    return not any(
        one in wanted or (one == "integer" and "number" in wanted) or (one == "number" and "integer" in wanted) for one in given
    )


class Comparing:
    """Compares the schemas of what is given with the schemas of what is wanted. A bounded number of fields is compared."""

    def __init__(self, most: int = MOST_COMPARED) -> None:
        self._left = most

    def conflicts(self, given: Schema, wanted: Schema, place: tuple[str, ...] = ()) -> Iterator[Conflict]:
        """Where a value of one schema does not fit another."""
        self._left -= 1
        if clash(given.types(), wanted.types()):
            yield Conflict(place, f"{one_of(given.types())} is given where {one_of(wanted.types())} is wanted", True)
            return
        options = wanted.options()
        if not options or len(options) != 1 or len(place) >= MAX_LEVELS:
            return
        for name in required_of(wanted):
            if isinstance(found := field_of(given, name), Missing):
                yield Conflict(place, f"`{name}` is wanted, and is not among what is given", found.is_certain)
        for name, inner in _properties(options[0]).items():
            if self._left <= 0:
                return
            found = field_of(given, name)
            if isinstance(found, Schema):
                yield from self.conflicts(found, Schema(wanted.root, inner), (*place, name))
            else:
                self._left -= 1


_WORDS = {
    "null": "null", "boolean": "a boolean", "integer": "an integer", "number": "a number", "string": "a text", "array": "a list",
    "object": "an object",
}  # fmt: skip


def one_of(types: frozenset[str] | None) -> str:
    """Types in words."""
    return " or ".join(_WORDS[name] for name in sorted(types or ALL_TYPES))


def required_of(schema: Schema) -> tuple[str, ...]:
    options = schema.options()
    if not options or len(options) != 1 or not isinstance(options[0].get("required"), list):
        return ()
    return tuple(name for name in options[0]["required"] if isinstance(name, str))
