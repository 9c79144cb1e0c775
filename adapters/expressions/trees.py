"""The tree of a checked expression: read from the bytes in which the library hands it out (`cel.expr.CheckedExpr`).

The library tells nothing else of an expression's inside. The format is protobuf, of which this reads the fields that it needs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

Wire = dict[int, list[int | bytes]]


class UnknownForm(Exception):
    """The library has handed out what this module cannot read."""


@dataclass(frozen=True, slots=True)
class Constant:
    text: str | None
    """Of a text. None: another kind of value."""
    length: int
    """Bytes of a text or of bytes."""
    kind: str = ""
    is_true: bool = False


@dataclass(frozen=True, slots=True)
class Ident:
    name: str


@dataclass(frozen=True, slots=True)
class Select:
    operand: "Node"
    field: str
    is_test: bool
    """`has(operand.field)`"""


@dataclass(frozen=True, slots=True)
class CallNode:
    function: str
    arguments: tuple["Node", ...]
    """With the target of a method as the first."""


@dataclass(frozen=True, slots=True)
class Several:
    """A list or a map that is written in the expression."""

    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Comprehension:
    """What a macro becomes: the accumulator goes over the range."""

    variables: tuple[str, ...]
    range: "Node"
    accumulator: str
    begin: "Node"
    condition: "Node"
    step: "Node"
    result: "Node"


Node = Constant | Ident | Select | CallNode | Several | Comprehension
T = TypeVar("T", int, bytes)

_ANY_VALUE, _EXPR = 2, 4
_CONSTANT, _IDENT, _SELECT, _CALL, _LIST, _STRUCT, _COMPREHENSION = range(3, 10)
_STRING, _BYTES, _BOOL = 6, 7, 2
_KINDS = {1: "null", _BOOL: "bool", 3: "int", 4: "uint", 5: "double", _STRING: "string", _BYTES: "bytes"}
NAMESPACES = frozenset({"math", "optional"})
"""Namespaces of functions, which the tree has as the target of a call."""


def tree_of(serialized: bytes) -> Node:
    """Raises UnknownForm."""
    try:
        return _node(_found(_found(serialized, _ANY_VALUE), _EXPR))
    except (IndexError, KeyError, StopIteration, TypeError, UnicodeDecodeError, RecursionError) as error:
        raise UnknownForm(f"{type(error).__name__}: {error}") from error


def _node(data: bytes) -> Node:
    fields = _fields(data)
    kind = next(number for number in fields if _CONSTANT <= number <= _COMPREHENSION)
    inner = _fields(_one(fields, kind, bytes))
    match kind:
        case 3:
            return _constant(inner)
        case 4:
            return Ident(_text(inner, 1))
        case 5:
            return Select(_node(_one(inner, 1, bytes)), _text(inner, 2), 3 in inner)
        case 6:
            return _call(inner)
        case 7:
            return Several(tuple(_node(part) for part in _all(inner, 1)))
        case 8:
            if _text(inner, 1):
                raise UnknownForm(f"a message {_text(inner, 1)}")
            return Several(tuple(_entries(inner)))
        case _:
            variables = tuple(name for name in (_text(inner, 1), _text(inner, 8)) if name)
            range_, begin, condition, step, result = (_node(_one(inner, number, bytes)) for number in (2, 4, 5, 6, 7))
            return Comprehension(variables, range_, _text(inner, 3), begin, condition, step, result)


def _constant(inner: Wire) -> Constant:
    if _STRING in inner:
        text = _text(inner, _STRING)
        return Constant(text, len(text.encode()), "string")
    kind = next((_KINDS[number] for number in inner if number in _KINDS), "")
    is_true = _BOOL in inner and inner[_BOOL][0] == 1
    return Constant(None, len(_one(inner, _BYTES, bytes)) if _BYTES in inner else 0, kind, is_true)


def _call(inner: Wire) -> CallNode:
    function, arguments = _text(inner, 2), [_node(part) for part in _all(inner, 3)]
    if 1 in inner:
        target = _node(_one(inner, 1, bytes))
        if isinstance(target, Ident) and target.name in NAMESPACES:
            return CallNode(f"{target.name}.{function}", tuple(arguments))
        arguments.insert(0, target)
    return CallNode(function, tuple(arguments))


def _entries(inner: Wire) -> Iterator[Node]:
    for part in _all(inner, 2):
        entry = _fields(part)
        if 3 in entry:
            yield _node(_one(entry, 3, bytes))
        yield _node(_one(entry, 4, bytes))


def _text(fields: Wire, number: int) -> str:
    return _one(fields, number, bytes).decode() if number in fields else ""


def _one(fields: Wire, number: int, kind: type[T]) -> T:
    found = fields[number][0]
    if not isinstance(found, kind):
        raise TypeError(number)
    return found


def _all(fields: Wire, number: int) -> Iterator[bytes]:
    for found in fields.get(number, ()):
        if isinstance(found, bytes):
            yield found


def _fields(data: bytes) -> Wire:
    """Number of a field → its values, in order."""
    fields: Wire = {}
    place = 0
    end = len(data)
    while place < end:
        tag = data[place]
        if tag < 0x80:  # most are
            place += 1
        else:
            tag, place = _varint(data, place)
        value: int | bytes
        match tag & 7:
            case 0:
                value, place = _varint(data, place)
            case 1:
                value, place = 0, place + 8
            case 2:
                length = data[place]
                if length < 0x80:
                    place += 1
                else:
                    length, place = _varint(data, place)
                value, place = data[place : place + length], place + length
            case 5:
                value, place = 0, place + 4
            case _:
                raise UnknownForm(f"wire type {tag & 7}")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _found(data: bytes, number: int) -> bytes:
    """The message in one field. The others, such as all types and places of an expression, are not looked into."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        if tag & 7 != 2:
            _, place = _varint(data, place)
            continue
        length, place = _varint(data, place)
        if tag >> 3 == number:
            return data[place : place + length]
        place += length
    raise KeyError(number)


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7


def names_of(node: Node, variables: frozenset[str]) -> frozenset[str]:
    """The values that an expression names: `a.b` for a field of a variable, `a` where all of the variable is used."""
    return frozenset(".".join(path[:2]) for path in paths_of(node, variables))


def paths_of(node: Node, variables: frozenset[str]) -> frozenset[tuple[str, ...]]:
    """The values that an expression names, each as the names that lead to it."""
    return frozenset(_paths(node, variables))


def path_of(node: Node) -> tuple[str, ...] | None:
    """The names that lead to a field of a variable. None: the node is something else."""
    match node:
        case Ident(name):
            return (name,)
        case Select(operand, field, _):
            before = path_of(operand)
        case CallNode("_[_]" | "_?._" | "_[?_]", (operand, Constant(str() as field))):
            before = path_of(operand)
        case _:
            return None
    return None if before is None else (*before, field)


def _paths(node: Node, variables: frozenset[str]) -> Iterator[tuple[str, ...]]:
    path = path_of(node)
    if path is not None:
        if path[0] in variables:
            yield path
        return
    match node:
        case Select(operand, _, _):
            yield from _paths(operand, variables)
        case CallNode(_, parts) | Several(parts):
            for part in parts:
                yield from _paths(part, variables)
        case Comprehension():
            yield from _paths(node.range, variables)
            yield from _paths(node.begin, variables)
            inside = variables - {*node.variables, node.accumulator}
            for part in (node.condition, node.step):
                yield from _paths(part, inside)
            yield from _paths(node.result, variables - {node.accumulator})


def walk(node: Node) -> Iterator[Node]:
    """The node, and all below it, in the order of the expression."""
    left = [node]
    while left:
        found = left.pop()
        yield found
        match found:
            case Select(operand, _, _):
                left.append(operand)
            case CallNode(_, parts) | Several(parts):
                left += reversed(parts)
            case Comprehension():
                left += (found.result, found.step, found.condition, found.begin, found.range)


def functions_of(tree: Node) -> frozenset[str]:
    return frozenset(node.function for node in walk(tree) if isinstance(node, CallNode))


def patterns_of(tree: Node) -> Iterator[str | None]:
    """The regular expressions of a tree. None for one that is no text in the expression."""
    for node in walk(tree):
        if isinstance(node, CallNode) and node.function == "matches":
            pattern = node.arguments[1]
            yield pattern.text if isinstance(pattern, Constant) else None
