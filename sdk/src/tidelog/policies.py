"""What a tool declares about its calls. The server sees to it, over all workers and processes."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def said(self) -> dict[str, Any] | None:
        """As it goes over the wire. None: it says nothing."""
        return self.model_dump(mode="json", exclude_defaults=True) or None


class Breaker(_Part):
    """When calls stop for a while: after `failures` in a row, or when of at least `calls` in `window_s` seconds the share `rate`
    failed. After `open_s` seconds `probes` calls are tried; when all succeed, it closes.
    """

    failures: int | None = Field(default=5, ge=1, le=10_000)
    rate: float | None = Field(default=None, gt=0, le=1)
    calls: int = Field(default=20, ge=1, le=100_000)
    window_s: float = Field(default=30.0, ge=1, le=3600)
    open_s: float = Field(default=30.0, gt=0, le=86_400)
    probes: int = Field(default=1, ge=1, le=100)


class Rate(_Part):
    """At most `calls` begin within `per_s` seconds, over all workers."""

    calls: int = Field(ge=1, le=1_000_000)
    per_s: float = Field(default=1.0, gt=0, le=86_400)


class Compensation(_Part):
    """The tool that takes an effect back. `arguments`: name of its argument → CEL expression over `arguments` and `result` of the
    call; None: both, and `invocation_id`, as far as the tool has parameters of these names.

    `on_failure`: what becomes of the effects before this one where it cannot be taken back; "stop" leaves them until a person has
    spoken.
    """

    tool: str
    arguments: dict[str, str] | None = None
    on_failure: Literal["stop", "continue"] = "stop"


class Cost(_Part):
    """The most that a call costs, and what it counts as where the tool does not say (`ToolContext.usage`). `money`: in the tenant's
    unit, with at most six places, as text: "0.002"."""

    money: str | None = Field(default=None, pattern=r"^\d{1,9}(\.\d{1,6})?$")
    tokens: int | None = Field(default=None, ge=0, le=10**15)


class Policy(_Part):
    """breaker: calls stop for a while when the tool fails too often.
    max_parallel: calls at once, over all workers.
    rate: calls in a time, over all workers.
    fallbacks: names of tools that are called instead, in this order.
    compensation: the tool that takes the effect back.
    cache_s: seconds for which a result answers later calls with the same arguments. Only of idempotent tools.
    approval: True, or a CEL expression over `arguments`, `cost`, `tainted`, `tool`, `agent`, `run` and `on_behalf_of`: such a call
        begins only after a person has approved it.
    max_cost: the most that a call costs. Budgets set it aside before the call begins.
    """

    breaker: Breaker | None = None
    max_parallel: int | None = Field(default=None, ge=1, le=10_000)
    rate: Rate | None = None
    fallbacks: tuple[str, ...] = Field(default=(), max_length=5)
    compensation: Compensation | None = None
    cache_s: float | None = Field(default=None, gt=0, le=30 * 86_400)
    approval: Literal[True] | str | None = None
    max_cost: Cost | None = None
