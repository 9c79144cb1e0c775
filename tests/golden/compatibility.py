"""The meaning of a change of an event's JSON Schema for readers: for older readers, and for readers of stored events.

Both directions count. An older reader gets new events (a process that was not updated yet, a client), and the new reader gets
stored events. So no part of a schema may become narrower or wider. Only an optional field may be added. An unknown keyword counts
as a break, so an unforeseen change of a schema is never taken for compatible.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Schema = dict[str, Any]

ANNOTATIONS = frozenset({"title", "description", "examples", "$defs", "$schema", "$id", "deprecated"})
LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
STRUCTURE = frozenset(
    {"type", "enum", "properties", "required", "additionalProperties", "items", "prefixItems", "anyOf", "default"}
)


@dataclass(frozen=True, slots=True)
class Change:
    """`breaks`: an older reader, or a reader of stored events, fails with the change.

    `words` name the place, the change and the reason.
    """

    breaks: bool
    words: str


def normal(schema: Mapping[str, Any], definitions: Mapping[str, Any] | None = None) -> Schema:
    """The parts of a schema that decide whether a value fits. References are resolved, titles and descriptions are left out, and
    parts without an order are sorted.

    Raises:
        ValueError: the schema contains itself; the schema of an event is finite.
    """
    return _normal(schema, definitions or schema.get("$defs", {}), ())


def _normal(schema: Any, definitions: Mapping[str, Any], within: tuple[str, ...]) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name in within:
            raise ValueError(f"{name} holds itself: {' > '.join((*within, name))}")
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        return _normal({**definitions[name], **beside}, definitions, (*within, name))
    found: Schema = {}
    for key, value in schema.items():
        if key in ANNOTATIONS:
            continue
        if key == "properties":
            found[key] = {name: _normal(part, definitions, within) for name, part in value.items()}
        elif key in ("items", "additionalProperties"):
            found[key] = _normal(value, definitions, within)
        elif key == "prefixItems":
            found[key] = [_normal(part, definitions, within) for part in value]
        elif key == "anyOf":
            found[key] = sorted((_normal(part, definitions, within) for part in value), key=_text)
        elif key == "const":
            found["enum"] = [value]
        elif key in ("enum", "required"):
            found[key] = sorted(value, key=_text)
        else:
            found[key] = value
    return found


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def compare(old: Schema, new: Schema) -> list[Change]:
    """The changes in the newer of two normal schemas. Empty if every value fits both schemas or neither."""
    return list(_schema(old, new, ""))


def _schema(old: Schema, new: Schema, place: str) -> Iterator[Change]:
    if old == new:
        return
    if "default" in old and "default" in new and old["default"] != new["default"]:
        was, now = _text(old["default"]), _text(new["default"])
        yield _break(place, f"the default was {was}, is {now}: stored events without it would mean something else")
    before, after = _alternatives(old), _alternatives(new)
    gone = [part for part in before if part not in after]
    come = [part for part in after if part not in before]
    if len(before) == len(after) == 1:
        yield from _value(before[0], after[0], place)
        return
    for part in list(gone):  # remaining parts of the same kind are compared; the others were removed or added
        same = [other for other in come if _kind(other) == _kind(part)]
        if len(same) == 1:
            gone.remove(part)
            come.remove(same[0])
            yield from _value(part, same[0], place)
    for part in gone:
        yield _break(place, f"may no longer be {_kind(part)}: stored events may have it")
    for part in come:
        yield _break(place, f"may now be {_kind(part)}, too: a reader of before refuses it")


def _alternatives(schema: Schema) -> list[Schema]:
    if "anyOf" in schema:
        return list(schema["anyOf"])
    return [{key: value for key, value in schema.items() if key != "default"}]


def _kind(schema: Schema) -> str:
    kind = schema.get("type", "one of a list" if "enum" in schema else "anything")
    return kind if isinstance(kind, str) else " or ".join(sorted(kind))


def _value(old: Schema, new: Schema, place: str) -> Iterator[Change]:
    if _kind(old) != _kind(new):
        yield _break(place, f"was {_kind(old)}, is {_kind(new)}")
        return
    yield from _choices(old, new, place)
    yield from _bounds(old, new, place)
    yield from _fields(old, new, place)
    yield from _items(old, new, place)
    for key in sorted((old.keys() | new.keys()) - STRUCTURE - {*LOWER, *UPPER}):
        if old.get(key) != new.get(key):
            yield _break(place, f"{key} was {_text(old.get(key))}, is {_text(new.get(key))}")


def _choices(old: Schema, new: Schema, place: str) -> Iterator[Change]:
    if "enum" not in old and "enum" not in new:
        return
    if "enum" not in old:
        yield _break(place, f"is now one of {_text(new['enum'])}: stored events may have others")
    elif "enum" not in new:
        yield _break(place, f"is no longer one of {_text(old['enum'])}: a reader of before refuses others")
    else:
        for value in old["enum"]:
            if value not in new["enum"]:
                yield _break(place, f"may no longer be {_text(value)}: stored events may have it")
        for value in new["enum"]:
            if value not in old["enum"]:
                yield _break(place, f"may now be {_text(value)}: a reader of before refuses it")


def _bounds(old: Schema, new: Schema, place: str) -> Iterator[Change]:
    for keys, none in ((LOWER, -math.inf), (UPPER, math.inf)):
        for key in keys:
            before, after = old.get(key, none), new.get(key, none)
            if before == after:
                continue
            narrower = (after > before) == (keys is LOWER)
            why = "stored events may lie outside" if narrower else "a reader of before refuses what is beyond"
            yield _break(place, f"{key} was {old.get(key, 'none')}, is {new.get(key, 'none')}: {why}")


def _fields(old: Schema, new: Schema, place: str) -> Iterator[Change]:
    before, after = old.get("properties", {}), new.get("properties", {})
    needed_before, needed_after = set(old.get("required", ())), set(new.get("required", ()))
    closed = old.get("additionalProperties", True) is False
    for name in before:
        if name not in after:
            yield _break(_join(place, name), "is gone (or has another name): a reader of before expects it, stored events have it")
        else:
            yield from _schema(before[name], after[name], _join(place, name))
            if name in needed_after - needed_before:
                yield _break(_join(place, name), "is required now: stored events may be without it")
            elif name in needed_before - needed_after:
                yield _break(_join(place, name), "is no longer required: a reader of before refuses events without it")
    for name in after:
        if name in before:
            continue
        if name in needed_after:
            yield _break(_join(place, name), "is new and required: stored events are without it")
        elif closed:
            yield _break(_join(place, name), "is new in an object that is closed: a reader of before refuses it")
        else:
            yield Change(False, f"{_join(place, name)}: is new, and may be missing")
    extra_before, extra_after = old.get("additionalProperties", True), new.get("additionalProperties", True)
    if isinstance(extra_before, dict) and isinstance(extra_after, dict):
        yield from _schema(extra_before, extra_after, _join(place, "*"))
    elif extra_before != extra_after:
        yield _break(place, f"additionalProperties was {_text(extra_before)}, is {_text(extra_after)}")


def _items(old: Schema, new: Schema, place: str) -> Iterator[Change]:
    yield from _schema(old.get("items", {}), new.get("items", {}), f"{place}[]")
    before, after = old.get("prefixItems", []), new.get("prefixItems", [])
    if len(before) != len(after):
        yield _break(place, f"had {len(before)} items of their own kind, has {len(after)}")
        return
    for index, (was, now) in enumerate(zip(before, after, strict=True)):
        yield from _schema(was, now, f"{place}[{index}]")


def _join(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _break(place: str, words: str) -> Change:
    return Change(True, f"{place or 'the event'}: {words}")
