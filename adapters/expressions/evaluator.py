"""Checking and evaluating expressions with the library `cel-expr-python`, which is cel-cpp.

The library is loaded with the first expression. Where there is none for the platform, an expression is refused with the reason.
"""

import re
from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from adapters.expressions import costs, studies, trees
from adapters.expressions.json_values import NoJson, json_of
from application.engine.ports.expressions import ExpressionLook, ExpressionStudy
from domain.kernel import Evaluated, Json, Spent

MAX_BYTES = 2_048
"""Bytes of an expression."""
MOST_KEPT = 1_000
"""Compiled expressions. One of 2 kB takes about 100 kB, most take 5."""
MOST_VARIABLES = 16
"""Sets of variables for which expressions are compiled."""
SHOWN = 500
"""Characters of an error that are told."""
MISSING = (
    "expressions need the package cel-expr-python, which is not there for this platform or this Python "
    "(there are builds for Linux with glibc and for macOS): install tidelog-server[expressions]"
)


MOST_DOUBLING = 2
"""Macros that the library writes out with what they stand on twice: each doubles the expression."""
_DOUBLING = re.compile(r"\bopt(?:Flat)?Map\b")
_UNUSABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")


class UnusableExpression(Exception):
    """The expression cannot be used."""


class Compiled(NamedTuple):
    program: Any
    tree: trees.Node
    names: frozenset[str]


class CelExpressions:
    """The port `Expressions`. Compiled expressions are kept, the least recently used one is dropped first."""

    def __init__(self) -> None:
        self._environments: OrderedDict[tuple[str, ...], Any] = OrderedDict()
        self._kept: OrderedDict[tuple[str, tuple[str, ...]], Compiled] = OrderedDict()

    def look(self, expression: str, variables: Collection[str]) -> ExpressionLook:
        try:
            return ExpressionLook(None, self._compiled(expression, tuple(sorted(variables))).names)
        except UnusableExpression as fault:
            return ExpressionLook(str(fault))

    def study(self, expression: str, variables: Collection[str]) -> ExpressionStudy:
        given = tuple(sorted(variables))
        try:
            program, tree = self._checked(expression, given)
        except UnusableExpression as fault:
            return ExpressionStudy(str(fault))
        study = studies.study_of(tree, frozenset(given), _kind_of(program))
        if study.uses or study.kind != "bool" or study.always is not None:
            return study
        found = self.evaluate(expression, dict.fromkeys(given))  # a condition of constants
        return study._replace(always=found.value if isinstance(found.value, bool) else None)

    def evaluate(self, expression: str, values: Mapping[str, Json], spent: Spent | None = None) -> Evaluated:
        try:
            compiled = self._compiled(expression, tuple(sorted(values)))
            named = _named(compiled.names, values)
            cost = costs.of(compiled.tree, named, 0.0 if spent is None else spent.units)
            if spent is not None:
                spent.units += cost
            return _evaluated(compiled.program, named)
        except (UnusableExpression, costs.TooExpensive, NoJson) as error:
            return Evaluated(error=str(error))

    def named(self, expression: str, values: Mapping[str, Json]) -> Mapping[str, Json]:
        try:
            compiled = self._compiled(expression, tuple(sorted(values)))
        except UnusableExpression:
            return {}
        named: dict[str, Json] = {}
        for path in sorted(trees.paths_of(compiled.tree, frozenset(values))):
            value: Json = values
            for part in path:
                if not isinstance(value, Mapping) or part not in value:
                    break
                value = value[part]
            else:
                named[".".join(path)] = dict(value) if isinstance(value, Mapping) else value
        return named

    def _compiled(self, expression: str, variables: tuple[str, ...]) -> Compiled:
        key = (expression, variables)
        compiled = self._kept.get(key)
        if compiled is not None:
            self._kept.move_to_end(key)
            return compiled
        compiled = self._kept[key] = self._compile(expression, variables)
        if len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return compiled

    def _compile(self, expression: str, variables: tuple[str, ...]) -> Compiled:
        program, tree = self._checked(expression, variables)
        return Compiled(program, tree, trees.names_of(tree, frozenset(variables)))

    def _checked(self, expression: str, variables: tuple[str, ...]) -> tuple[Any, trees.Node]:
        """The program and the tree of an expression that can be used. Raises UnusableExpression."""
        size = len(expression.encode(errors="replace"))
        if size > MAX_BYTES:
            raise UnusableExpression(f"an expression has at most {MAX_BYTES:,} bytes, this one has {size:,}")
        if not expression.isprintable() and any(
            (ord(c) < 32 and c not in "\t\n\r") or 0xD800 <= ord(c) < 0xE000 for c in expression
        ):
            raise UnusableExpression("an expression has no control characters and no lone surrogates")
        if len(_DOUBLING.findall(expression)) > MOST_DOUBLING:
            raise UnusableExpression(f"an expression has `optMap` and `optFlatMap` at most {MOST_DOUBLING} times")
        environment = self._environment(variables)
        try:
            program = environment.compile(expression)
            tree = trees.tree_of(program.serialize())
        except trees.UnknownForm as error:
            raise UnusableExpression(f"the expression uses what expressions cannot use here: {error}") from None
        except Exception as error:  # noqa: BLE001  # the library raises RuntimeError, and others for what it cannot convert
            raise UnusableExpression(_told(error)) from None
        functions = trees.functions_of(tree)
        unknown = sorted(functions - costs.KNOWN)
        if unknown:
            raise UnusableExpression(f"there is no function {unknown[0]!r} for expressions here")
        for pattern in trees.patterns_of(tree) if "matches" in functions else ():
            try:
                costs.steps_of(pattern)
            except costs.TooExpensive as error:
                raise UnusableExpression(str(error)) from None
        return program, tree

    def _environment(self, variables: tuple[str, ...]) -> Any:
        environment = self._environments.get(variables)
        if environment is None:
            try:
                from cel_expr_python import cel
                from cel_expr_python.ext import ext_math, ext_optional, ext_strings
            except ImportError:
                raise UnusableExpression(MISSING) from None
            extensions = [ext_strings.ExtStrings(), ext_math.ExtMath(), ext_optional.ExtOptional()]
            declared = dict.fromkeys(variables, cel.Type.DYN)
            environment = self._environments[variables] = cel.NewEnv(variables=declared, extensions=extensions)
            if len(self._environments) > MOST_VARIABLES:
                self._environments.popitem(last=False)
        return environment


def _named(names: frozenset[str], values: Mapping[str, Json]) -> dict[str, Json]:
    """Only the values that an expression names: each of them becomes one of the library at each evaluation."""
    named: dict[str, Json] = {}
    for name in sorted(names):
        variable, _, field = name.partition(".")
        value = values[variable]
        if not field or not isinstance(value, Mapping):
            named[variable] = dict(value) if isinstance(value, Mapping) else value
        elif variable not in named:
            named[variable] = {field: value[field]} if field in value else {}
        elif variable not in names and field in value:
            named[variable][field] = value[field]
    return named


def _evaluated(program: Any, values: Mapping[str, Json]) -> Evaluated:
    try:
        result = program.eval(data=values)
        kind = result.type().name()
        if kind == "ERROR":
            return Evaluated(error=_told(result.value()))
    except Exception as error:  # noqa: BLE001  # as the library has it: RuntimeError for its bounds, others for conversions
        return Evaluated(error=_told(error))
    if kind == "TYPE":
        raise NoJson("the result is a type: make a text or a test of it")
    try:
        value = result.plain_value()
    except Exception:  # noqa: BLE001  # it cannot make a Python value of an `optional`
        raise NoJson(_MISSING_VALUE) from None
    return Evaluated(json_of(value))


def _kind_of(program: Any) -> str:
    name = str(program.return_type().name()).partition("<")[0]
    return "" if name == "DYN" else name.lower()


_MISSING_VALUE = "the result has a value that may be missing: end it with `.orValue(…)`"
_CODES = re.compile(r"^(?:[A-Z_]+: )?(?:ERROR: )?(?:<input>:)?| \[[A-Z_]+\]$")
_OTHERS = {
    "construction from null": "a text in the values has a lone surrogate",
    "out of range for": "a number in the values is larger than 64 bits",
    "Unable to convert function return value": _MISSING_VALUE,
    "recursion": "the expression is nested too deeply: at most 32 levels, and as many terms of a sum",
    "Iteration budget": "it takes too many steps over lists: at most 10,000",
}
"""Words of the library that only its authors understand, and what they mean."""


def _told(error: object) -> str:
    """The library's own words, without its codes."""
    text = str(error)
    for word, meaning in _OTHERS.items():
        if word in text:
            return meaning
    text = _CODES.sub("", text).replace("\nERROR: <input>:", "\n")
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"
