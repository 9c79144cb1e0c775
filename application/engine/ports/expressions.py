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


class NoExpressions:
    """Where no expression can be used."""

    def evaluate(self, expression: str, values: Mapping[str, Json], spent: Spent | None = None) -> Evaluated:
        return Evaluated(error="no expression can be evaluated here")

    def named(self, expression: str, values: Mapping[str, Json]) -> Mapping[str, Json]:
        return {}

    def look(self, expression: str, variables: Collection[str]) -> ExpressionLook:
        return ExpressionLook("no expression can be used here")


NO_EXPRESSIONS: Expressions = NoExpressions()
