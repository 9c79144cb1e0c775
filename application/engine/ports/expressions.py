"""The port of expressions: what a declaration says in an expression is checked when it is declared, and evaluated later."""

from collections.abc import Collection
from typing import NamedTuple, Protocol

from domain.kernel import Functions


class Look(NamedTuple):
    """What can be known of an expression without any values."""

    fault: str | None
    """Why it cannot be used, with the place in the expression. None: it can."""
    names: frozenset[str] = frozenset()
    """The values that it names: `arguments` where it uses all of them, else `arguments.city`."""


class Expressions(Functions, Protocol):
    def look(self, expression: str, variables: Collection[str]) -> Look:
        """Checks an expression in which these variables may stand. Raises nothing."""
        ...
