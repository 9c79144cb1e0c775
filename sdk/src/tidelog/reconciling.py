"""What a tool's `reconcile` function is, and what it answers."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tidelog.errors import DefinitionError


@dataclass(frozen=True, slots=True)
class Reconciled:
    """The answer of a `reconcile` function: whether a call of its tool took effect."""

    outcome: Literal["succeeded", "not_happened", "unknown"]
    result: Any = None

    @classmethod
    def succeeded(cls, result: Any = None) -> "Reconciled":
        """The call took effect, and this is its result: what the tool would have returned."""
        return cls("succeeded", result)

    @classmethod
    def not_happened(cls) -> "Reconciled":
        """The call had no effect and will have none: the tool is called again, with the same idempotency key."""
        return cls("not_happened")

    @classmethod
    def unknown(cls) -> "Reconciled":
        """It cannot be found out: a person is asked."""
        return cls("unknown")


def read_reconcile(function: Callable[..., Any], context: type, parameters: Mapping[str, Any], what: str) -> tuple[bool, list[str]]:
    """Whether a `reconcile` function takes the context first, and which of the tool's arguments it takes.

    Raises DefinitionError: it takes something else.
    """
    what = f"{what}: its reconcile function"
    try:
        declared = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise DefinitionError("invalid-signature", f"{what} has no signature: {error}") from error
    takes_context = bool(declared) and declared[0].name not in parameters and _may_be(declared[0], context)
    named = declared[1:] if takes_context else declared
    for parameter in named:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise DefinitionError("invalid-signature", f"{what}: {parameter} cannot be given by name; no *args, **kwargs or `/`")
        if parameter.name not in parameters and parameter.default is parameter.empty:
            raise DefinitionError("invalid-signature", f"{what}: the tool has no argument {parameter.name!r}")
    return takes_context, [parameter.name for parameter in named if parameter.name in parameters]


def _may_be(first: inspect.Parameter, context: type) -> bool:
    """Whether the first parameter is meant for the context. A text is the hint of a module whose annotations are not evaluated."""
    annotation = first.annotation
    if first.kind not in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD):
        return False
    if isinstance(annotation, str):
        return annotation.rpartition(".")[2] == context.__name__
    return annotation is context or annotation is inspect.Parameter.empty
