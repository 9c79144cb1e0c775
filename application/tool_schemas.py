"""The JSON Schemas of tools. Schemas and arguments are untrusted, so the work for checking them is bounded beforehand.

Regular expressions are matched in linear time: patterns that need backtracking (look-around, back-references) are refused.
References to places outside the schema are refused. The cost of a check is known before the check: the schema's weight times the
size of the arguments.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any
from urllib.parse import unquote

import pydantic_core
from jsonschema_rs import Draft202012Validator, ReferencingError, RegexOptions, ValidationError

from domain.errors import InvalidCommand, json_pointer
from domain.kernel import Json

MAX_BYTES = 64 * 1024
"""Bytes of a schema as JSON."""
MAX_PATTERNS = 50
"""Regular expressions of one schema. The most expensive pattern within `PATTERN_BYTES` takes a millisecond and 400 KB."""
PATTERN_BYTES = 64 * 1024
"""Bytes of one compiled regular expression. Only counted repetitions inside counted repetitions reach this bound."""
MAX_WEIGHT = 20_000
"""Places of a schema. A place counts once for each way in which references lead to it."""
MAX_WORK = 20_000_000
"""Weight of a schema × values of the arguments: about 0.2 s."""
CACHE_WEIGHT = 500
"""Bound of the cache: a schema counts one, and each of its patterns one. At most 200 MB, if all patterns are the most expensive."""
SHOWN = 500
"""Characters of the description of a fault."""
MOST_FAULTS = 10
"""Faults of one set of arguments that the refusal of a call describes."""
MOST_LISTED = 100
"""Faults of a value that are listed for whoever asks for all of them."""

REFERENCES = ("$ref", "$dynamicRef")
Place = tuple[str | int, ...]

_OPTIONS = RegexOptions(size_limit=PATTERN_BYTES, dfa_size_limit=PATTERN_BYTES)


class SchemaFault(Exception):
    """An invalid or too expensive schema. `place`: the place in the schema, if one place causes the fault."""

    def __init__(self, message: str, place: Sequence[str | int] = ()) -> None:
        super().__init__(message)
        self.message, self.place = _shortened(message), place


@dataclass(frozen=True, slots=True)
class ToolSchema:
    """A compiled schema."""

    validator: Draft202012Validator
    weight: int
    returns: int
    """Number of references that lead back into the schema. With two, the search for a fault could take 2^depth steps."""
    cost: int
    """The schema's share of `CACHE_WEIGHT`."""

    def faults_in(self, arguments: Json, most: int = MOST_FAULTS + 1) -> list[tuple[str, str]]:
        """The JSON Pointer and the description of each fault, the first `most` of them.

        Empty for valid arguments. Raises SchemaFault if the check is too expensive.
        """
        depth, work = self.must_be_bounded(arguments)
        try:
            if self.validator.is_valid(arguments):
                return []
            if work * max(1, self.returns) ** depth > MAX_WORK:  # unlike the check, the search for faults repeats steps
                return [("", "they do not fit the tool's schema")]
            faults = islice(self.validator.iter_errors(arguments), most)
            return [(json_pointer(fault.instance_path), _shortened(fault.message)) for fault in faults]
        except ValueError as error:
            raise SchemaFault(str(error)) from None

    def must_be_bounded(self, values: Json) -> tuple[int, int]:
        """The depth of values, and the work of a check. Raises SchemaFault if the check is too expensive."""
        size, depth = _extent(values)
        work = self.weight * size
        if work > MAX_WORK:
            raise SchemaFault(f"too much to check: {size:,} values against a schema of weight {self.weight:,}")
        return depth, work


class ToolSchemas:
    """Cache of compiled schemas by their content. The least recently used schema is dropped first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, ToolSchema] = OrderedDict()
        self._cost = 0

    def check(self, tool: str, parameters: Json, *, pointer: str) -> ToolSchema:
        """The compiled schema of a tool that registers.

        Raises:
            InvalidCommand: not a JSON Schema, or a schema that cannot be checked in bounded time. Its pointer is the place below
            `pointer`.
        """
        try:
            return self._compiled(parameters)
        except SchemaFault as fault:
            where = pointer + json_pointer(fault.place)
            raise InvalidCommand(f"parameters of tool '{tool}': {fault.message}", pointer=where) from None

    def check_arguments(self, tool: str, parameters: Json, arguments: Json) -> None:
        """Raises InvalidCommand for invalid arguments, and for a schema of an earlier release that cannot be checked."""
        try:
            schema = self._compiled(parameters)
        except SchemaFault as error:
            raise InvalidCommand(f"parameters of tool '{tool}': {error.message}", pointer="/tool") from None
        try:
            faults = schema.faults_in(arguments)
        except SchemaFault as error:
            raise InvalidCommand(f"arguments of tool '{tool}': {error.message}", pointer="/arguments") from None
        if faults:
            told = "; ".join(f"{place}: {text}" if place else text for place, text in faults[:MOST_FAULTS])
            more = "; and more" if len(faults) > MOST_FAULTS else ""
            places = [(f"/arguments{place}", text) for place, text in faults[:MOST_FAULTS]]
            raise InvalidCommand(f"arguments of tool '{tool}': {told}{more}", pointer=places[0][0], faults=places)

    def fault_of_schema(self, schema: Json) -> tuple[str, str] | None:
        """Why a schema cannot be used: the JSON Pointer of a place in it, and the reason. None for a usable one."""
        try:
            self._compiled(schema)
        except SchemaFault as fault:
            return json_pointer(fault.place), fault.message
        return None

    def faults_of(self, schema: Json, *values: Json) -> list[list[tuple[str, str]]]:
        """The faults of each value, the first `MOST_LISTED` of them. `schema`: a usable one.

        The work for all values together is bounded as that for one. What is too much to check has that as its fault.
        """
        try:
            compiled = self._compiled(schema)
            compiled.must_be_bounded(list(values))
            return [compiled.faults_in(value, MOST_LISTED) for value in values]
        except SchemaFault as fault:
            return [[("", fault.message)] for _ in values]

    def _compiled(self, parameters: Json) -> ToolSchema:
        try:
            content = pydantic_core.to_json(parameters)
        except pydantic_core.PydanticSerializationError:
            raise SchemaFault("nested too deeply") from None
        schema = self._kept.get(content)
        if schema is not None:
            self._kept.move_to_end(content)
            return schema
        schema = self._kept[content] = _compile(parameters, len(content))
        self._cost += schema.cost
        while self._cost > CACHE_WEIGHT:
            self._cost -= self._kept.popitem(last=False)[1].cost
        return schema


def _compile(parameters: Json, size: int) -> ToolSchema:
    if size > MAX_BYTES:
        raise SchemaFault(f"the schema has {size:,} bytes of JSON, {MAX_BYTES:,} are allowed")
    try:
        patterns = sum(1 for _ in _patterns(parameters))
    except RecursionError:
        raise SchemaFault("nested too deeply") from None
    if patterns > MAX_PATTERNS:
        raise SchemaFault(f"the schema has {patterns:,} regular expressions, {MAX_PATTERNS} are allowed")
    try:
        validator = Draft202012Validator(parameters, retriever=_fetch_nothing, pattern_options=_OPTIONS)
    except ValidationError as error:
        raise _described(error) from None
    except (ReferencingError, ValueError) as error:  # references, recursion
        raise SchemaFault(f"no JSON Schema: {error}") from None
    weight, returns = References(parameters).weigh()
    if weight > MAX_WEIGHT:
        raise SchemaFault(f"its references lead to {weight:,} places, {MAX_WEIGHT:,} are allowed")
    return ToolSchema(validator, weight, returns, 1 + patterns)


def _fetch_nothing(uri: str) -> Any:
    """Refuses references to other documents. By default the library would open URLs and files."""
    raise LookupError(f"a reference that leads out of the schema: {uri}")


def _described(error: ValidationError) -> SchemaFault:
    pattern, what, _ = error.message.rpartition(' is not a "regex"')
    if what:
        why = "look-around, back-references and repetitions that multiply are refused"
        return SchemaFault(f"the pattern {pattern[:200]} cannot be matched in linear time, or is none: {why}", error.instance_path)
    return SchemaFault(f"no JSON Schema: {json_pointer(error.instance_path)}: {error.message}")


def _patterns(schema: Json) -> Iterator[str]:
    """All texts that may be regular expressions."""
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "pattern" and isinstance(value, str):
                yield value
            elif key == "patternProperties" and isinstance(value, dict):
                yield from value
            yield from _patterns(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from _patterns(item)


def _extent(value: Json) -> tuple[int, int]:
    """The number of values, and the depth."""
    size, depth, level = 0, 0, [value]
    while level:
        size += len(level)
        depth += 1
        below: list[Json] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        level = below
    return size, depth


class References:
    """The weight of a schema and the faults of its references."""

    def __init__(self, schema: Json) -> None:
        self._schema = schema
        self._known: dict[int, tuple[int, int] | None] = {}
        """By id of a node: weight and number of returns. None: the node is being weighed, so a reference to it leads back."""
        self._sound: dict[int, bool] = {}
        """By id of a node: whether its references are sound. False: the node is being checked."""
        self._anchors: dict[str, Json] = {}
        self._ids: dict[str, Json] = {}

    def weigh(self) -> tuple[int, int]:
        """The weight of the schema (see `MAX_WEIGHT`), and the number of references that lead back.

        Raises SchemaFault for a reference to nothing, and for a reference to itself without a step into the arguments.
        """
        try:
            self._collect(self._schema)
            return self._of(self._schema, ())
        except RecursionError:
            raise SchemaFault("nested too deeply") from None

    def _collect(self, node: Json) -> None:
        if isinstance(node, dict):
            for name in ("$anchor", "$dynamicAnchor"):
                if isinstance(node.get(name), str):
                    self._anchors[node[name]] = node
            if isinstance(node.get("$id"), str):
                self._ids[node["$id"].rstrip("#")] = node
        for _, child in _parts(node):
            self._collect(child)

    def _of(self, node: Json, place: Place) -> tuple[int, int]:
        if not isinstance(node, dict | list):
            return 1, 0
        if id(node) in self._known:
            return self._known[id(node)] or (1, 1)
        self._known[id(node)] = None
        self._look_through(node, place)
        weight, returns = 1, 0
        for key, child in _parts(node):
            target = self._target(child, (*place, key)) if key in REFERENCES and isinstance(child, str) else child
            more, back = self._of(target, (*place, key))
            weight, returns = weight + more, returns + back
        self._known[id(node)] = weight, returns
        return weight, returns

    def _look_through(self, node: Json, place: Place) -> None:
        """Follows the subschemas that apply to the same value. Raises SchemaFault if they lead back to the node."""
        if not isinstance(node, dict) or self._sound.get(id(node)):
            return
        if id(node) in self._sound:
            raise SchemaFault("it refers to itself without end", place)
        self._sound[id(node)] = False
        for key, value in node.items():
            where = (*place, key)
            if key in REFERENCES and isinstance(value, str):
                self._look_through(self._target(value, where), where)
            elif key in ("not", "if", "then", "else"):
                self._look_through(value, where)
            elif key in ("allOf", "anyOf", "oneOf", "dependentSchemas"):
                for part, child in _parts(value):
                    self._look_through(child, (*where, part))
        self._sound[id(node)] = True

    def _target(self, reference: str, place: Place) -> Json:
        base, _, fragment = reference.partition("#")
        fragment = unquote(fragment)
        found: Any = self._ids.get(base) if base else self._schema
        if fragment and not fragment.startswith("/"):
            found = self._anchors.get(fragment)
        for part in fragment.split("/")[1:]:
            found = dict((str(key), child) for key, child in _parts(found)).get(part.replace("~1", "/").replace("~0", "~"))
        if found is None:
            raise SchemaFault(f"the reference {reference[:200]!r} leads to nothing inside the schema", place)
        return found


def _shortened(message: str) -> str:
    """Cuts the middle of a long message. The message begins with the quoted value and ends with the fault."""
    return message if len(message) <= SHOWN else f"{message[: SHOWN // 3]} … {message[-SHOWN // 2 :]}"


def _parts(node: Json) -> Iterable[tuple[str | int, Json]]:
    if isinstance(node, dict):
        return node.items()
    return enumerate(node) if isinstance(node, list) else ()
