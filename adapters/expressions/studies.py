"""What can be known of an expression before it is evaluated: the values that it names, and how; what it compares them with; whether
a condition has a value whatever comes in."""

from collections.abc import Iterator

from adapters.expressions.trees import CallNode, Comprehension, Constant, Ident, Node, Select, walk
from application.engine.ports.expressions import Compared, ExpressionStudy, PathUse

_OPERATORS = {"_==_": "==", "_!=_": "!=", "_<_": "<", "_<=_": "<=", "_>_": ">", "_>=_": ">="}
_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_ANY = frozenset({"_?_:_", "_[_]", "_[?_]", "_?._", "or", "orValue", "value", "dyn", "optional.of", "optional.ofNonZeroValue"})
"""Functions whose values have the kind of an operand. The library takes an unknown kind for a known one beside it."""
KINDS = frozenset({
    "bool", "string", "int", "uint", "double", "null", "list", "map", "timestamp", "duration", "bytes", "type",
})  # fmt: skip


def study_of(tree: Node, variables: frozenset[str], kind: str) -> ExpressionStudy:
    """`kind`: as the library tells it. One that is not among `KINDS` counts as unknown."""
    whole = _path_of(tree)
    named = whole if whole is not None and whole.path[0] in variables else None
    return ExpressionStudy(
        None,
        tuple(dict.fromkeys(_uses(tree, variables))),
        tuple(dict.fromkeys(_comparisons(tree, variables))),
        kind if kind in KINDS and not (isinstance(tree, CallNode) and tree.function in _ANY) else "",
        _always(tree),
        None if named is None or named.firm < len(named.path) else named.path,
    )


def _path_of(node: Node) -> PathUse | None:
    """The names that lead to a field of a variable, and how many of them must be there. None: the node is something else."""
    match node:
        case Ident(name):
            return PathUse((name,), 1)
        case Select(operand, field, is_test):
            before, is_firm = _path_of(operand), not is_test
        case CallNode("_[_]", (operand, Constant(str() as field))):
            before, is_firm = _path_of(operand), True
        case CallNode("_?._" | "_[?_]", (operand, Constant(str() as field))):
            before, is_firm = _path_of(operand), False
        case _:
            return None
    if before is None:
        return None
    firm = before.firm + 1 if is_firm and before.firm == len(before.path) else before.firm
    return PathUse((*before.path, field), firm)


def _uses(node: Node, variables: frozenset[str]) -> Iterator[PathUse]:
    found = _path_of(node)
    if found is not None:
        if found.path[0] in variables:
            yield found
        return
    match node:
        case Comprehension():
            yield from _uses(node.range, variables)
            yield from _uses(node.begin, variables)
            inside = variables - {*node.variables, node.accumulator}
            for part in (node.condition, node.step):
                yield from _uses(part, inside)
            yield from _uses(node.result, variables - {node.accumulator})
        case Select(operand, _, _):
            yield from _uses(operand, variables)
        case Constant() | Ident():
            return
        case CallNode(_, parts):
            for part in parts:
                yield from _uses(part, variables)
        case _:
            for part in node.parts:
                yield from _uses(part, variables)


def _comparisons(tree: Node, variables: frozenset[str]) -> Iterator[Compared]:
    """Only outside of macros, where each name is a variable of the expression."""
    nodes = list(walk(tree))
    if any(isinstance(node, Comprehension) for node in nodes):
        return
    for node in nodes:
        if not isinstance(node, CallNode) or node.function not in _OPERATORS:
            continue
        operator = _OPERATORS[node.function]
        one, other = node.arguments
        if isinstance(one, Constant):
            one, other, operator = other, one, _TURNED.get(operator, operator)
        found = _path_of(one) if isinstance(other, Constant) else None
        if isinstance(other, Constant) and found is not None and found.path[0] in variables:
            yield Compared(found.path, operator, other.kind, other.text)


def _always(node: Node) -> bool | None:
    match node:
        case Constant(kind="bool"):
            return node.is_true
        case CallNode("!_", (operand,)):
            value = _always(operand)
            return None if value is None else not value
        case CallNode("_&&_", (one, other)):
            values = (_always(one), _always(other))
            return False if False in values else True if values == (True, True) else None
        case CallNode("_||_", (one, other)):
            values = (_always(one), _always(other))
            return True if True in values else False if values == (False, False) else None
        case CallNode("_?_:_", (condition, one, other)):
            chosen = _always(condition)
            if chosen is not None:
                return _always(one if chosen else other)
            values = (_always(one), _always(other))
            return values[0] if values[0] == values[1] else None
        case CallNode("_==_" | "_!=_" as function, (Constant() as one, Constant() as other)):
            return (one.text == other.text) is (function == "_==_") if one.kind == other.kind == "string" else None
        case _:
            return None
