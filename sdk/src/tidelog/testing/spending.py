"""Budgets in the kit: what an agent's calls may cost, and what becomes of one that a budget has too little for.

What a call costs is what its tool says (`ToolContext.usage`), or else its `max_cost`, which is set aside before the call begins.
What the server decides stands in its `domain/allowances`; the kit cannot import it, and knows one budget alone.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from tidelog.failures import ErrorReport
from tidelog.policies import Policy
from tidelog.tools import Tool
from tidelog.used import Used


@dataclass(frozen=True, slots=True)
class Spent:
    """A sum. `money`: in the tenant's unit."""

    money: Decimal = Decimal(0)
    tokens: int = 0
    calls: int = 0

    def plus(self, other: "Spent") -> "Spent":
        return Spent(self.money + other.money, self.tokens + other.tokens, self.calls + other.calls)


@dataclass(frozen=True, slots=True)
class ShortCall:
    """A call that a budget has too little for. `kind`: what there is too little of. `needs`: what it may cost. `left`: of each
    kind."""

    tool: str
    key: str
    kind: str
    needs: Spent
    left: dict[str, Decimal | int]


Given = Mapping[str, Any] | bool | None
Give = Callable[[ShortCall], Given | Awaitable[Given]]
"""The people who are asked under `ask`: amounts (`money`, `tokens`, `calls`) that they give more, True for as much again as the
budget was, or None or False for nothing."""


@dataclass(frozen=True)
class TestBudget:
    """What the calls of an agent may cost, for `run_agent(..., budget=...)`. What is None is not limited."""

    __test__ = False

    money: Decimal | str | None = None
    tokens: int | None = None
    calls: int | None = None
    on_spent: Literal["stop", "degrade", "ask"] = "stop"
    give: Give | None = None


class BudgetStopError(Exception):
    """A budget has stopped the agent, as it would fail the run on a server, whatever the agent's code makes of it."""


class BudgetAskError(Exception):
    """A call waits for more of a budget, and the test has nobody who could give it. On a server the run would wait for a person."""

    def __init__(self, call: ShortCall) -> None:
        super().__init__(
            f"the call {call.key!r} of {call.tool} waits: the budget has too little {call.kind} left. On a server people are asked "
            'now. Play them: TestBudget(..., on_spent="ask", give=lambda call: True)'
        )
        self.call = call


@dataclass
class Spending:
    """What the calls of a journal have spent, and what is set aside for those under way."""

    budget: TestBudget = field(default_factory=TestBudget)
    spent: Spent = field(default_factory=Spent)
    given: Spent = field(default_factory=Spent)
    under_way: dict[str, Spent] = field(default_factory=dict)
    used: dict[str, Used] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def begin(self, tool: Tool[..., Any], key: str) -> ErrorReport | None:
        """Sets aside what the call may cost. Returns what it fails with. Raises BudgetStopError, BudgetAskError."""
        if key in self.under_way:
            return None
        needs = _most(tool)
        while (kind := self._short(needs)) is not None:
            if self.under_way:  # what they do not use comes back
                self._changed.clear()
                await self._changed.wait()
                continue
            call = ShortCall(tool.name, key, kind, needs, self._left())
            message = f"the budget has too little {kind} left for the call {key!r} of {tool.name}"
            if self.budget.on_spent == "degrade":
                return ErrorReport(type="BudgetExceeded", message=message, kind="permanent")
            if self.budget.on_spent == "stop" or not await self._asked(call):
                raise BudgetStopError(message)
        self.under_way[key], self.used[key] = needs, Used()
        return None

    def end(self, tool: Tool[..., Any], key: str, *, rate_limited: bool) -> None:
        most = self.under_way.pop(key, None)
        if most is None:
            return
        said = self.used.pop(key).said()
        cost = Spent(calls=1) if rate_limited else most
        if said:
            cost = Spent(Decimal(said.get("money", 0)), said.get("tokens", 0), 1)
        self.spent = self.spent.plus(cost)
        self._changed.set()

    async def _asked(self, call: ShortCall) -> bool:
        """Whether people gave more."""
        if self.budget.give is None:
            raise BudgetAskError(call)
        answer = self.budget.give(call)
        said = await answer if inspect.isawaitable(answer) else answer
        if not said:
            return False
        first = {kind: limit for kind, limit in self._limits(Spent()).items() if kind == call.kind}
        more = first if said is True else dict(said)
        given = Spent(Decimal(str(more.get("money", 0))), int(more.get("tokens", 0)), int(more.get("calls", 0)))
        if not any(getattr(given, kind) > 0 for kind in self._limits(Spent())):
            raise ValueError("give more of what the budget limits: " + ", ".join(self._limits(Spent())))
        self.given = self.given.plus(given)
        return True

    def _limits(self, given: Spent) -> dict[str, Decimal | int]:
        of = {"money": None if self.budget.money is None else Decimal(str(self.budget.money)), "tokens": self.budget.tokens}
        found: dict[str, Decimal | int] = {}
        for kind, limit in {**of, "calls": self.budget.calls}.items():
            if limit is not None:
                found[kind] = limit + getattr(given, kind)
        return found

    def _left(self) -> dict[str, Decimal | int]:
        used = self.spent
        for each in self.under_way.values():
            used = used.plus(each)
        return {kind: limit - getattr(used, kind) for kind, limit in self._limits(self.given).items()}

    def _short(self, needs: Spent) -> str | None:
        return next((kind for kind, left in self._left().items() if getattr(needs, kind) > left), None)


class ShareOfSpending(Spending):
    """What one agent of a plan spends of what all may: calls of different agents may have one key."""

    def __init__(self, shared: Spending, name: str) -> None:
        super().__init__(shared.budget)
        self.shared, self.name = shared, name

    async def begin(self, tool: Tool[..., Any], key: str) -> ErrorReport | None:
        refused = await self.shared.begin(tool, f"{self.name}/{key}")
        if refused is None:
            self.used[key] = self.shared.used[f"{self.name}/{key}"]
        return refused

    def end(self, tool: Tool[..., Any], key: str, *, rate_limited: bool) -> None:
        before = self.shared.spent
        self.shared.end(tool, f"{self.name}/{key}", rate_limited=rate_limited)
        self.used.pop(key, None)
        now = self.shared.spent
        more = Spent(now.money - before.money, now.tokens - before.tokens, now.calls - before.calls)
        self.spent = self.spent.plus(more)


def _most(tool: Tool[..., Any]) -> Spent:
    cost = tool.policy.max_cost if isinstance(tool.policy, Policy) else None
    if cost is None:
        return Spent(calls=1)
    return Spent(Decimal(cost.money or 0), cost.tokens or 0, 1)
