"""What a tool declares about its calls: when they stop, how many there are at once, what follows from a failure.

The declaration is data of its version. Whoever carries it out reads it from the version that the call named.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from domain.amounts import MOST, MoneyText, micros_of
from domain.kernel import Json, Name, Value

MOST_FALLBACKS = 5
MOST_EXPRESSION = 2_000
"""Characters of an expression."""

Expression = Annotated[str, StringConstraints(min_length=1, max_length=MOST_EXPRESSION, pattern=r"^[^\x00]+$")]

ArgumentName = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00]+$")]


class Breaker(Value):
    """When calls stop for a while. It opens after `failures` in a row, or when of at least `calls` in a window `rate` failed."""

    failures: int | None = Field(default=5, ge=1, le=10_000)
    """None: failures in a row alone do not open it."""
    rate: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    """Share of the calls of a window that failed. None: the share does not matter."""
    calls: int = Field(default=20, ge=1, le=100_000)
    """So many calls a window has at least before their share counts."""
    window_s: float = Field(default=30.0, ge=1, le=3600, allow_inf_nan=False)
    open_s: float = Field(default=30.0, gt=0, le=86_400, allow_inf_nan=False)
    """Seconds until calls are tried again."""
    probes: int = Field(default=1, ge=1, le=100)
    """Calls that are tried then. All must succeed."""


class Rate(Value):
    """At most `calls` begin within `per_s` seconds, over all workers."""

    calls: int = Field(ge=1, le=1_000_000)
    per_s: float = Field(default=1.0, gt=0, le=86_400, allow_inf_nan=False)


class Compensation(Value):
    """The tool that takes an effect back."""

    tool: Name
    arguments: dict[ArgumentName, Expression] | None = Field(default=None, max_length=50)
    """Name of an argument → CEL expression over `arguments`, `result` and `invocation_id` of the call. None: these three, as far as
    the tool declares parameters of these names."""
    on_failure: Literal["stop", "continue"] = "stop"
    """What becomes of the effects before this one where it cannot be taken back: `stop` leaves them until a person has spoken."""


class Cost(Value):
    """The most that one call of the tool costs, and what it counts as where its worker does not say what it has used."""

    money: MoneyText | None = None
    """In the tenant's unit: `0.002`."""
    tokens: int | None = Field(default=None, ge=0, le=MOST)

    @property
    def micros(self) -> int:
        return 0 if self.money is None else micros_of(self.money)


class ToolPolicy(Value):
    breaker: Breaker | None = None
    max_parallel: int | None = Field(default=None, ge=1, le=10_000)
    """Calls at once, over all workers."""
    rate: Rate | None = None
    fallbacks: tuple[Name, ...] = Field(default=(), max_length=MOST_FALLBACKS)
    """Tools that are called instead, in this order."""
    compensation: Compensation | None = None
    cache_s: float | None = Field(default=None, gt=0, le=30 * 86_400, allow_inf_nan=False)
    """Seconds for which a result answers later calls with the same arguments. Only of idempotent tools."""
    approval: Literal[True] | Expression | None = None
    """Whether a call begins only after a person has approved it: each one, or those for which a CEL expression is true
    (`domain.approval_rules.VARIABLES`). None: as the policies of the tenant say."""
    max_cost: Cost | None = None
    """None: a call costs nothing but being a call."""

    def said(self) -> Json:
        """As an event holds it: what says nothing is left out. None: nothing is said."""
        return self.model_dump(mode="json", exclude_defaults=True) or None


NO_POLICY = ToolPolicy()
_PARTS: dict[str, type[Value]] = {"breaker": Breaker, "rate": Rate, "compensation": Compensation, "max_cost": Cost}


def policy_of(stored: Json) -> ToolPolicy:
    """A policy of an event. Fields that this release does not know are left out: a newer process may have written them."""
    if stored is None:
        return NO_POLICY
    said = _known(ToolPolicy, stored)
    parts = {name: _known(part, said[name]) for name, part in _PARTS.items() if said.get(name) is not None}
    return ToolPolicy.model_validate({**said, **parts})


def _known(model: type[Value], stored: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in stored.items() if name in model.model_fields}


def faults_of_policy(name: str, idempotent: bool, policy: ToolPolicy) -> Iterator[tuple[str, str]]:
    """What a policy says wrongly beside the forms of its fields: JSON Pointers and descriptions."""
    if policy.cache_s is not None and not idempotent:
        yield "/policy/cache_s", "only results of an idempotent tool may answer later calls"
    if name in policy.fallbacks:
        yield "/policy/fallbacks", "a tool is no fallback of itself"
    if len(set(policy.fallbacks)) < len(policy.fallbacks):
        yield "/policy/fallbacks", "a fallback is named once"
    if policy.compensation is not None and policy.compensation.tool == name:
        yield "/policy/compensation/tool", "a tool does not take its own effect back"
    if policy.breaker is not None and policy.breaker.failures is None and policy.breaker.rate is None:
        yield "/policy/breaker", "a breaker needs `failures` or `rate`"
