"""What an evaluation costs at most, known before it. The library has few bounds of its own, and none that can be set.

The cost is counted over the tree of the expression with the values that it is to be evaluated over. Units are about a tenth of a
microsecond; each constant was measured. A function that is not listed here cannot be used: nobody knows what it costs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from adapters.expressions.trees import CallNode, Comprehension, Constant, Ident, Node, Select, Several
from domain.kernel import Json

MOST = 420_000
"""Units of one evaluation: about 40 ms."""
MOST_ITEMS = 1_000
"""Items of a list or a map that a macro goes over."""
BYTES_OF_UNIT = 64
"""A text weighs one, and one more for each so many bytes."""
ADDITION = 0.32
"""Units of `+` for each item of its operands: a list or a text is copied."""
MAX_DEPTH = 100
"""Levels of the values. What is stored has at most 80."""
MAX_PATTERN = 200
"""Characters of a regular expression."""

TESTS = frozenset({"_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "@in", "startsWith", "endsWith"})
"""They look at each part of their operands once."""
SEARCHES = frozenset({"contains", "indexOf", "lastIndexOf"})
PLAIN = frozenset({
    "_-_", "_*_", "_/_", "_%_", "!_", "-_", "_&&_", "_||_", "@not_strictly_false", "size", "int", "uint", "double", "bool", "type",
    "duration", "timestamp", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getFullYear", "getHours",
    "getMilliseconds", "getMinutes", "getMonth", "getSeconds", "charAt", "hasValue", "optional.none", "math.@max", "math.@min",
    "math.ceil", "math.floor", "math.round", "math.trunc", "math.abs", "math.sign", "math.isNaN", "math.isInf", "math.isFinite",
    "math.sqrt",
})  # fmt: skip
"""Their results weigh nothing."""
COPIES = frozenset({
    "string", "bytes", "dyn", "lowerAscii", "upperAscii", "trim", "reverse", "substring", "quote", "join", "optional.of",
    "optional.ofNonZeroValue", "or", "orValue", "value",
})  # fmt: skip
"""Their results weigh as much as their operands, at most."""
PICKS = frozenset({"_[_]", "_[?_]", "_?._"})
OTHERS = frozenset({"_+_", "_?_:_", "matches", "replace", "split", "format"})
KNOWN = TESTS | SEARCHES | PLAIN | COPIES | PICKS | OTHERS


class TooExpensive(Exception):
    """An evaluation could take too long, or too much memory. The text says what to do about it."""


class _Nothing:
    """The value is not known before the evaluation."""


NOTHING = _Nothing()


class Weight(NamedTuple):
    """How large a value is, at most."""

    all: float
    items: float
    """Of a list or a map; of a text, its weight."""
    item: float
    """The weight of the heaviest item."""
    value: Any = NOTHING
    """The value itself, if it is known."""


ONE = Weight(1, 1, 1)


class Scale:
    """Weighs values. Those inside are remembered, and no more is looked at than an evaluation may cost."""

    def __init__(self) -> None:
        self._known: dict[int, Weight] = {}
        self._left: float = MOST // 2

    def of(self, value: Json, level: int = 0) -> Weight:
        """Raises TooExpensive for a value that is too large, or nested too deeply."""
        if isinstance(value, str):
            weight = self._seen(_of_text(value))
            return Weight(weight, weight, weight, value)
        if not isinstance(value, dict | list):
            self._seen(1)
            return ONE
        known = self._known.get(id(value))
        if known is None:
            known = self._known[id(value)] = self._of_items(value, level)
        return known

    def _of_items(self, value: dict[str, Json] | list[Json], level: int) -> Weight:
        if level > MAX_DEPTH:
            raise TooExpensive(f"the values are nested more than {MAX_DEPTH} levels deep")
        self._seen(1)
        keys = [self._seen(_of_text(key)) for key in value] if isinstance(value, dict) else []
        items = [self.of(item, level + 1).all for item in (value.values() if isinstance(value, dict) else value)]
        return Weight(1 + sum(keys) + sum(items), len(value), max(*keys, *items, 1, 1), value)

    def _seen(self, weight: float) -> float:
        self._left -= weight
        if self._left < 0:
            raise TooExpensive("the values that it names are too large")
        return weight


def _of_text(text: str) -> float:
    return 1 + len(text) // BYTES_OF_UNIT


def of(tree: Node, values: Mapping[str, Json], spent: float = 0.0) -> float:
    """The units that an evaluation costs at most. Raises TooExpensive where there are not so many left."""
    scale = Scale()
    counting = Counting(scale, {name: scale.of(value) for name, value in values.items()})
    counting.cost = 2 * sum([weight.all for weight in counting.scope.values()])  # each value becomes one of the library
    result = counting.of(tree)
    cost = counting.cost + result.all
    if cost + spent > MOST:
        raise TooExpensive(_TOO_MUCH if cost > MOST else _TOGETHER)
    return cost


_TOGETHER = "it could take too long together with the other expressions: use smaller values"
_TOO_MUCH = "it could take too long over values of this size: use smaller values, or fewer steps over lists"


@dataclass
class Counting:
    scale: Scale
    scope: dict[str, Weight]
    cost: float = 0

    def of(self, node: Node) -> Weight:
        """The weight of the node's value. Adds what the node costs."""
        self.cost += 1
        match node:
            case Constant():
                weight = 1 + node.length // BYTES_OF_UNIT
                return Weight(weight, weight, weight, node.text if node.text is not None else NOTHING)
            case Ident(name):
                return self.scope.get(name, ONE)
            case Select(operand, field, is_test):
                found = self._picked(self.of(operand), field)
                return ONE if is_test else found
            case Several(parts):
                weights = [self.of(part) for part in parts]
                return Weight(1 + sum([w.all for w in weights]), len(weights), max([w.all for w in weights], default=0))
            case Comprehension():
                return self._comprehension(node)
            case CallNode():
                return self._call(node)

    def _call(self, call: CallNode) -> Weight:
        of = [self.of(argument) for argument in call.arguments]
        both, name = sum([weight.all for weight in of]), call.function
        if name in PICKS:
            return self._picked(of[0], of[1].value)
        if name == "_+_":
            self.cost += ADDITION * (of[0].items + of[1].items)
            return Weight(both, of[0].items + of[1].items, max(of[0].item, of[1].item))
        if name == "_?_:_":
            return Weight(*(max(one, other) for one, other in zip(of[1][:3], of[2][:3], strict=True)))
        if name in TESTS:
            self.cost += min(both, 2 * min(of[0].all, of[1].all)) if name in ("_==_", "_!=_") else both
            return ONE
        if name in SEARCHES:
            self.cost += 2 + 0.1 * both + _search(of)
            return ONE
        if name == "matches":
            self.cost += _match(of)
            return ONE
        if name == "split":
            self.cost += _search(of) + 32 * of[0].all
            items: float = BYTES_OF_UNIT * of[0].all
            if isinstance(of[0].value, str) and isinstance(of[1].value, str) and of[1].value:
                items = of[0].value.count(of[1].value) + 1
            return Weight(items + of[0].all, items, of[0].all)
        if name == "replace":
            self.cost += _search(of) + 4 * of[0].all + (all_ := of[0].all * (1 + BYTES_OF_UNIT * of[2].all))
            return Weight(all_, all_, all_)
        if name == "format":
            both += 16 * (1 + of[0].all * BYTES_OF_UNIT / 2)
            self.cost += both
            return Weight(both, both, both)
        if name in COPIES:
            self.cost += both
            whole = both if name != "join" else both + of[0].items * (of[1].all if len(of) > 1 else 0)
            return Weight(whole, max(weight.items for weight in of), max(weight.item for weight in of))
        self.cost += 1
        return ONE

    def _picked(self, of: Weight, field: Any) -> Weight:
        """A field of a value, or an item."""
        if isinstance(of.value, dict) and isinstance(field, str):
            return self.scale.of(of.value[field]) if field in of.value else ONE
        return Weight(of.item, of.item, of.item)

    def _comprehension(self, node: Comprehension) -> Weight:
        over = self.of(node.range)
        if over.items > MOST_ITEMS:
            raise TooExpensive(f"a list or map of more than {MOST_ITEMS:,} items is gone over: give a shorter one")
        begin = self.of(node.begin)
        before, outside = self.cost, self.scope
        item = Weight(over.item, over.item, over.item)
        self.scope = outside | dict.fromkeys(node.variables, item) | {node.accumulator: begin}
        self.of(node.condition)
        grown = self.of(node.step)
        growth = Weight(*(max(0, after - first) for after, first in zip(grown[:3], begin[:3], strict=True)))
        # Each turn adds to the accumulator as the turns before have left it: half as large as at the end, on the average. Only the
        # step can name the accumulator, so the rest costs the same in each turn, and is counted once.
        turn = self.cost - before + 3 + ADDITION * growth.items * over.items / 2
        self.cost = before + turn * over.items
        end = Weight(begin.all + over.items * growth.all, begin.items + over.items * growth.items, grown.item)
        self.scope = outside | {node.accumulator: end}
        result = self.of(node.result)
        self.scope = outside
        if self.cost > MOST:
            raise TooExpensive(_TOO_MUCH)
        return result


def _search(of: list[Weight]) -> float:
    """The search for a text in a text looks at each byte of the one for each byte of the other, at the worst."""
    text, sought = of[0].all * BYTES_OF_UNIT, of[1].all * BYTES_OF_UNIT
    return 0.0003 * text * sought


def _match(of: list[Weight]) -> float:
    """A regular expression takes its steps for each byte of the text, at the worst."""
    pattern = of[1].value
    return 2 + 0.11 * of[0].all * BYTES_OF_UNIT * steps_of(pattern)


def steps_of(pattern: str | None) -> int:
    """Steps of a regular expression, at most. Raises TooExpensive for one that nobody writes by hand."""
    if pattern is None:
        raise TooExpensive("a regular expression is a text in the expression itself")
    if len(pattern) > MAX_PATTERN:
        raise TooExpensive(f"a regular expression has at most {MAX_PATTERN} characters")
    steps = len(pattern)
    for piece in pattern.split("{")[1:]:
        counts = [int(number) for number in piece.partition("}")[0].split(",") if number.isdecimal() and number.isascii()]
        steps *= max(1, *counts) if counts else 1
    steps += 1_000 * (pattern.count("\\p") + pattern.count("\\P"))
    if steps > 100_000:
        raise TooExpensive("the regular expression repeats too much")
    return steps
