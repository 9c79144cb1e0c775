"""Workflows as text: YAML 1.2 that is the same object, read and written without loss.

Only what JSON can say is read, by the core schema of YAML 1.2: `no` and `2026-01-01` are texts. Tags, anchors and aliases, several
documents and repeated keys are refused, each with its line and column. The parser is written in Python and takes more than half
a second for the largest text, so it is for command lines, and not for the door of a server.
"""

import io
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from domain.errors import InvalidCommand, json_pointer
from domain.kernel import Json

MAX_BYTES = 256 * 1024
MAX_DEPTH = 64
MAX_DIGITS = 300
"""Characters of a number."""

Where = tuple[int, int]
"""Line and column, from 1 on."""

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL, _HEX = re.compile(r"0o[0-7]+"), re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_OF_1_1 = re.compile(r"(?i)y|n|yes|no|on|off|[-+]?[0-9][0-9_,:.]*|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}.*|[-+]?0b[01_]+|<<|=")
"""Texts that readers of YAML 1.1 take for something else. They are quoted, so that these readers get texts, too."""


class YamlFault(InvalidCommand):
    """The text is no YAML, or says what JSON cannot. `where`: line and column."""

    def __init__(self, message: str, where: Where | None) -> None:
        super().__init__(f"line {where[0]}, column {where[1]}: {message}" if where else message, pointer="")
        self.where = where


@dataclass(frozen=True, slots=True)
class LoadedYaml:
    value: Json
    places: Mapping[str, Where]
    """JSON Pointer → where the value begins, or its key if it has one."""

    def place_of(self, pointer: str) -> Where | None:
        """Where a pointer leads in the text: to the value, or to the nearest thing around it that is there."""
        while pointer not in self.places and pointer:
            pointer = pointer.rpartition("/")[0]
        return self.places.get(pointer)


def load(text: str | bytes) -> Json:
    """The JSON value that a text says. Raises YamlFault."""
    return load_with_places(text).value


def load_with_places(text: str | bytes) -> LoadedYaml:
    """As `load`, and where each part of the value stands in the text. Raises YamlFault."""
    size = len(text.encode("utf-8", "surrogatepass")) if isinstance(text, str) else len(text)
    if size > MAX_BYTES:
        raise YamlFault(f"the text has {size:,} bytes, {MAX_BYTES:,} are allowed", None)
    characters = text if isinstance(text, str) else _decoded(text)
    return _Builder(characters.removeprefix("\ufeff")).loaded()


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise YamlFault("the text is not UTF-8", _end_of(text[: error.start].decode())) from None


def _end_of(before: str) -> Where:
    """Where the character behind a text stands."""
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def dump(value: Json) -> str:
    """A JSON value as text. Raises YamlFault for a value that `load` would not give back: nested too deeply, or no JSON."""
    from ruamel.yaml import YAML
    from ruamel.yaml.emitter import Emitter

    out = io.StringIO()
    yaml = YAML(typ="rt", pure=True)
    emitter = Emitter(out, allow_unicode=True, width=1_000_000, indent=2, dumper=yaml)
    emitter.best_sequence_indent, emitter.sequence_dash_offset = 4, 2
    for event in _events(value):
        emitter.emit(event)
    return out.getvalue()


def dump_part(value: Json) -> str:
    """A value as it would stand behind its key."""
    if isinstance(value, dict | list) and value:
        return dump(value)
    return dump({"a": value}).removeprefix("a: ")


class _Builder:
    """Makes the value of the events of the parser, and notes where each part stands."""

    def __init__(self, text: str) -> None:
        self._events = _parsed(text)
        self._places: dict[str, Where] = {}

    def loaded(self) -> LoadedYaml:
        from ruamel.yaml import events

        event = next(self._events)  # of the stream
        event = next(self._events)
        if isinstance(event, events.StreamEndEvent):
            raise YamlFault("the text is empty", (1, 1))
        if event.tags or event.version not in (None, (1, 2)):
            raise YamlFault("a text of YAML 1.2 without directives is expected", _start(event))
        value = self._value(next(self._events), (), 0, None)
        next(self._events)  # the end of the document
        event = next(self._events)
        if not isinstance(event, events.StreamEndEvent):
            raise YamlFault("a second document begins here; one is allowed", _start(event))
        return LoadedYaml(value, self._places)

    def _value(self, event: Any, place: tuple[str | int, ...], depth: int, key_at: Where | None) -> Json:
        from ruamel.yaml import events

        if isinstance(event, events.AliasEvent):
            raise YamlFault(f"aliases (*{event.anchor}) are not allowed: write the value out", _start(event))
        if event.anchor is not None:
            raise YamlFault(f"anchors (&{event.anchor}) are not allowed", _start(event))
        tag = event.tag
        if tag is not None and str(tag) != "!":
            raise YamlFault(f"tags ({tag}) are not allowed: a text that begins with ! stands in quotes", _start(event))
        self._places[json_pointer(place)] = key_at or _start(event)
        if isinstance(event, events.ScalarEvent):
            return _scalar(event)
        if depth == MAX_DEPTH:
            raise YamlFault(f"a value may be nested {MAX_DEPTH} levels deep, no deeper", _start(event))
        if isinstance(event, events.SequenceStartEvent):
            items: list[Json] = []
            while not isinstance(item := next(self._events), events.SequenceEndEvent):
                items.append(self._value(item, (*place, len(items)), depth + 1, None))
            return items
        return self._mapping(place, depth)

    def _mapping(self, place: tuple[str | int, ...], depth: int) -> Json:
        from ruamel.yaml import events

        found: dict[str, Json] = {}
        first: dict[str, int] = {}
        while not isinstance(event := next(self._events), events.MappingEndEvent):
            where = _start(event)
            key = self._value(event, place, depth + 1, self._places[json_pointer(place)])
            if not isinstance(key, str):
                raise YamlFault(f"a key is a text: put {_shown(event)} in quotes", where)
            if key in found:
                raise YamlFault(f"the key {key[:100]!r} stands twice here, in line {first[key]} first", where)
            first[key] = where[0]
            found[key] = self._value(next(self._events), (*place, key), depth + 1, where)
        return found


def _parsed(text: str) -> Iterator[Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError
    from ruamel.yaml.reader import ReaderError

    try:
        yield from YAML(typ="safe", pure=True).parse(text)
    except ReaderError as error:
        where = _end_of(text[: error.position])
        number = error.character if isinstance(error.character, int) else ord(error.character)
        raise YamlFault(f"the character U+{number:04X} is not allowed", where) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        told = ", ".join(part for part in (error.context, error.problem) if part)
        raise YamlFault(told or "no YAML", None if mark is None else (mark.line + 1, mark.column + 1)) from None
    except YAMLError as error:
        raise YamlFault(str(error).partition("\n")[0] or "no YAML", None) from None


def _start(event: Any) -> Where:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _shown(event: Any) -> str:
    return repr(event.value[:100]) if hasattr(event, "value") else "it"


def _scalar(event: Any) -> Json:
    text: str = event.value
    if "\x00" in text:
        raise YamlFault("a text must not contain a NUL character", _start(event))
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise YamlFault("half of a surrogate pair is no character", _start(event))
    if event.style is not None or event.tag is not None:
        return text
    try:
        return _plain(text)
    except ValueError as error:
        raise YamlFault(str(error), _start(event)) from None


def _plain(text: str) -> Json:
    """What a scalar without quotes says. Raises ValueError for a number that JSON does not have."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    is_int, is_octal, is_hex = _INT.fullmatch(text), _OCTAL.fullmatch(text), _HEX.fullmatch(text)
    if is_int or is_octal or is_hex or _FLOAT.fullmatch(text):
        if len(text) > MAX_DIGITS:
            raise ValueError(f"a number has {MAX_DIGITS} characters at most; put a text in quotes")
        if is_int:
            return int(text)
        if is_octal or is_hex:
            return int(text[2:], 8 if is_octal else 16)
        if math.isfinite(number := float(text)):
            return number
        raise ValueError("the number is not finite: a double ends at 1.8e308")
    if _NOT_FINITE.fullmatch(text):
        raise ValueError("the number is not finite: JSON has no NaN or infinity; put a text in quotes")
    return text


# --- writing ------------------------------------------------------------------------------------------------------------------


def _events(value: Json) -> Iterator[Any]:
    from ruamel.yaml import events

    yield events.StreamStartEvent()
    yield events.DocumentStartEvent(explicit=False)
    yield from _of_value(value, 0)
    yield events.DocumentEndEvent(explicit=False)
    yield events.StreamEndEvent()


def _of_value(value: Json, depth: int) -> Iterator[Any]:
    from ruamel.yaml import events

    if isinstance(value, str):
        yield _of_text(value)
    elif isinstance(value, dict | list) and depth == MAX_DEPTH:
        raise YamlFault(f"a value may be nested {MAX_DEPTH} levels deep, no deeper", None)
    elif isinstance(value, dict):
        yield events.MappingStartEvent(None, None, True, flow_style=not value)
        for key, item in value.items():
            if not isinstance(key, str):
                raise YamlFault("a key is a text", None)
            yield _of_text(key, key=True)
            yield from _of_value(item, depth + 1)
        yield events.MappingEndEvent()
    elif isinstance(value, list):
        yield events.SequenceStartEvent(None, None, True, flow_style=_is_short(value))
        for item in value:
            yield from _of_value(item, depth + 1)
        yield events.SequenceEndEvent()
    else:
        yield events.ScalarEvent(None, None, (True, False), _of_plain(value))


def _is_short(items: list[Json]) -> bool:
    """Whether a list is written in one line."""
    simple = all(not isinstance(item, dict | list) and not (isinstance(item, str) and "\n" in item) for item in items)
    return simple and sum(len(str(item)) + 2 for item in items) <= 80


def _of_plain(value: Json) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and len(str(value)) <= MAX_DIGITS:
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return repr(value)
    raise YamlFault(f"{str(value)[:100]!r} is no value of JSON that can be written", None)


def _of_text(text: str, *, key: bool = False) -> Any:
    from ruamel.yaml import events
    from ruamel.yaml.tag import Tag

    if "\x00" in text:
        raise YamlFault("a text must not contain a NUL character", None)
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise YamlFault("half of a surrogate pair is no character", None)
    if not key and "\n" in text and _is_block(text):
        return events.ScalarEvent(None, None, (True, True), text, style="|")
    style, tag = '"' if _is_special(text) else None, Tag(suffix="tag:yaml.org,2002:str")
    return events.ScalarEvent(None, tag, (True, True), text, style=style)


def _is_special(text: str) -> bool:
    """Whether a text without quotes could be read as something else, here or by readers of YAML 1.1."""
    try:
        plain = _plain(text)
    except ValueError:
        return True
    begins_plainly = text[:1].isalnum() or text[:1] in "_./$("
    return plain != text or not begins_plainly or bool(_OF_1_1.fullmatch(text)) or not text.isprintable()


def _is_block(text: str) -> bool:
    """Whether a text of several lines can be written as it is: nothing in it needs an escape, and no spaces would get lost."""
    lines = text.removesuffix("\n").split("\n")
    return bool(lines[0] and lines[-1]) and lines[0][0] != " " and all(_is_plain_line(line) for line in lines)


def _is_plain_line(line: str) -> bool:
    return line.isprintable() and not line.endswith(" ")
