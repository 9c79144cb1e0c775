"""Breakers of tools as people see them."""

from pydantic import BaseModel

from application.engine.ports.views import ListedRow, Timestamp
from domain.breakers import Status, ToolBreaker
from domain.kernel import Json


class BreakerView(ListedRow):
    tool: str
    state: Status
    """What callers obey."""
    since: Timestamp | None = None
    """Null: it has always been closed, as far as anybody remembers."""
    tried_at: Timestamp | None = None
    """When calls are tried again. Null: it is closed, or a person says when."""
    because: str | None = None
    """Why it opened: `failures` in a row, `rate`, or a `probe` that failed."""
    failures: int | None = None
    calls: int | None = None
    """Of the window in which it opened."""
    error: str | None = None
    """The last failure before it opened."""
    forced: str | None = None
    """`open` or `closed`, if a person holds it so."""
    by: str | None = None
    """Who does."""
    on_behalf_of: str | None = None
    reason: str | None = None
    version: int
    """Version of the breaker's stream."""


class CountsView(BaseModel):
    calls: int
    """Of the present window, without those that do not count."""
    failures: int
    in_a_row: int
    """Failures since the last success."""


class ToolBreakerView(BreakerView):
    policy: Json = None
    """What the tool declares of it (`policy.breaker`). Null: nothing; only a person opens it."""
    counts: CountsView | None = None
    """Null: nothing was counted since the newest change."""


def view_of(tool: str, breaker: ToolBreaker) -> BreakerView:
    forced, opened = breaker.forced, breaker.opened
    view = BreakerView(
        tool=tool, state=breaker.in_force, since=breaker.since, tried_at=breaker.tried_at, version=breaker.changes
    )  # fmt: skip
    if opened is not None:
        view.because, view.failures, view.calls, view.error = opened.because, opened.failures, opened.calls, opened.error
    if forced is not None:
        view.forced, view.by, view.on_behalf_of, view.reason = forced.state, forced.by, forced.on_behalf_of, forced.reason
    return view
