"""A tool with a `reconcile` function: what it may take, and what it may answer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tidelog import Reconciled, ToolContext, tool
from tidelog.errors import DefinitionError, NotJsonError
from tidelog.tools import InvalidArgumentsError, Tool

CONTEXT = ToolContext(Path(), "the-key", 2)


def with_reconcile(function: Any, **options: Any) -> Tool[..., Any]:
    @tool("mail.send", reconcile=function, **options)
    def send(to: str, times: int = 1) -> None:
        """Send."""

    return send


async def everything(ctx: ToolContext, to: str, times: int) -> Reconciled:
    return Reconciled.succeeded([ctx.idempotency_key, to, times])


def no_context(times: int) -> Reconciled:
    return Reconciled.succeeded(times)


def nothing() -> Reconciled:
    return Reconciled.unknown()


def by_text(ctx: "ToolContext", to: str, more: int = 7) -> Reconciled:
    return Reconciled.succeeded([ctx.attempt, to, more])


def untyped(ctx):  # type: ignore[no-untyped-def]
    return Reconciled.succeeded(ctx.attempt)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (everything, Reconciled.succeeded(["the-key", "ann", 1])),
        (no_context, Reconciled.succeeded(1)),
        (nothing, Reconciled.unknown()),
        (by_text, Reconciled.succeeded([2, "ann", 7])),
        (untyped, Reconciled.succeeded(2)),
        (Reconciled.not_happened, Reconciled.not_happened()),
    ],
)
async def test_it_gets_what_it_names(function: Callable[..., Any], expected: Reconciled) -> None:
    asked = with_reconcile(function)
    assert asked.describe().reconcile_timeout_s == 30.0
    assert await asked.ask({"to": "ann"}, CONTEXT) == expected


def test_without_one_the_definition_says_nothing_of_it() -> None:
    assert tool("a.b")(lambda: None).describe().reconcile_timeout_s is None
    assert with_reconcile(nothing, reconcile_timeout_s=2).describe().reconcile_timeout_s == 2.0


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (lambda other, more: None, {}, "the tool has no argument 'more'"),
        (lambda *args: None, {}, "cannot be given by name"),
        (lambda to, /: None, {}, "cannot be given by name"),
        (7, {}, "reconcile must be a function"),
        (nothing, {"reconcile_timeout_s": 0}, "over 0 and at most 3600"),
        (nothing, {"reconcile_timeout_s": 3601}, "over 0 and at most 3600"),
        (nothing, {"reconcile_timeout_s": "5"}, "over 0 and at most 3600"),
    ],
)
def test_what_it_cannot_be(function: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        with_reconcile(function, **options).describe()


async def test_what_it_cannot_answer() -> None:
    with pytest.raises(TypeError, match="must return a Reconciled, not bool"):
        await with_reconcile(lambda: True).ask({"to": "ann"}, CONTEXT)
    with pytest.raises(NotJsonError):
        await with_reconcile(lambda: Reconciled.succeeded(object())).ask({"to": "ann"}, CONTEXT)
    with pytest.raises(InvalidArgumentsError):
        await with_reconcile(nothing).ask({"to": 1}, CONTEXT)
