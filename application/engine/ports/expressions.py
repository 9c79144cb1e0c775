"""The port of expressions: what a declaration says in an expression is checked when it is declared, and evaluated later."""

from collections.abc import Collection, Mapping
from typing import NamedTuple, Protocol

from domain.kernel import Evaluated, Json, Spent


class ExpressionLook(NamedTuple):
    """What can be known of an expression without any values."""

    fault: str | None
    """Why it cannot be used, with the place in the expression. None: it can."""
    names: frozenset[str] = frozenset()
    """The values that it names: `arguments` where it uses all of them, else `arguments.city`."""


class PathUse(NamedTuple):
    """A value that an expression names: a variable, and the fields that lead from it to the value."""

    path: tuple[str, ...]
    firm: int
    """So many of these names must be there. What comes after them is asked for with `has(…)` or `?`, and may be missing."""


class Compared(NamedTuple):
    """A value that an expression compares with a constant."""

    path: tuple[str, ...]
    operator: str
    """`==`, `!=`, `<`, `<=`, `>`, `>=`."""
    kind: str
    """Of the constant: `string`, `int`, `uint`, `double`, `bool`, `null`, `bytes`."""
    text: str | None
    """Of a constant that is a text."""


class ExpressionStudy(NamedTuple):
    """All that can be known of an expression without any values."""

    fault: str | None
    """As in `ExpressionLook`. Of an expression with a fault nothing else is known."""
    uses: tuple[PathUse, ...] = ()
    comparisons: tuple[Compared, ...] = ()
    kind: str = ""
    """Of the value: `bool`, `string`, `int`, `uint`, `double`, `null`, `list`, `map`, `timestamp`, `duration`, `bytes`, `type`.
    Empty: that is known with the values only."""
    always: bool | None = None
    """What a condition gives, whatever the values are. None: that depends on them, or the value is no condition."""
    path: tuple[str, ...] | None = None
    """The expression is nothing but this value."""


class Expressions(Protocol):
    def evaluate(self, expression: str, values: Mapping[str, Json], spent: Spent | None = None) -> Evaluated:
        """See `domain.kernel.Functions`."""
        ...

    def named(self, expression: str, values: Mapping[str, Json]) -> Mapping[str, Json]:
        """See `domain.kernel.Functions`."""
        ...

    def look(self, expression: str, variables: Collection[str]) -> ExpressionLook:
        """Checks an expression in which these variables may stand. Raises nothing."""
        ...

    def study(self, expression: str, variables: Collection[str]) -> ExpressionStudy:
        """The same, and all else that can be known. For whoever checks many expressions once: nothing is kept of it."""
        ...


class NoExpressions:
    """Where no expression can be used."""

    def evaluate(self, expression: str, values: Mapping[str, Json], spent: Spent | None = None) -> Evaluated:
        return Evaluated(error="no expression can be evaluated here")

    def named(self, expression: str, values: Mapping[str, Json]) -> Mapping[str, Json]:
        return {}

    def look(self, expression: str, variables: Collection[str]) -> ExpressionLook:
        return ExpressionLook("no expression can be used here")

    def study(self, expression: str, variables: Collection[str]) -> ExpressionStudy:
        return ExpressionStudy("no expression can be used here")


NO_EXPRESSIONS: Expressions = NoExpressions()
