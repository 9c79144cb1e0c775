"""Budgets and usage as people see them. Money is text with at most six places, in the unit of the tenant."""

from datetime import date
from typing import Literal
from uuid import UUID

from pydantic import BaseModel

from domain.allowances import Allowance, question_id_of
from domain.amounts import AS_USUAL, Amounts, BudgetAsking, BudgetLimits, BudgetQuestion, OnSpent, money_text
from domain.budgets import BudgetSet, Per, Scope


class AmountsView(BaseModel):
    money: str = "0"
    tokens: int = 0
    calls: int = 0


class LimitsView(BaseModel):
    """What is not limited is null."""

    money: str | None = None
    tokens: int | None = None
    calls: int | None = None
    wall_s: float | None = None


class AskView(BaseModel):
    """How people are asked for more, under `on_spent: ask`."""

    add: AmountsView | None = None
    roles: tuple[str, ...] = ()
    deadline_s: float | None = None
    default: Literal["deny", "approve"] = "deny"


class BudgetQuestionView(BaseModel):
    """What people are asked: more of a budget, as it was when the first call waited for it."""

    allowance_id: UUID
    budget: str
    day: str | None = None
    run_id: UUID | None = None
    currency: str
    short: str
    """What there is too little of: `money`, `tokens`, `calls`."""
    limits: LimitsView
    spent: AmountsView
    reserved: AmountsView
    asked: AmountsView
    """What the first call that waits may cost."""
    add: AmountsView
    """How much is given where the answer does not say how much."""


class WaitingView(BaseModel):
    """Calls that wait until there is more."""

    calls: int
    amounts: AmountsView
    """What they may cost, all together."""
    approval_id: UUID | None = None
    """The question to people."""


class AllowanceView(BaseModel):
    """What a budget allows in one run, or on one day."""

    id: UUID
    budget: str
    """The name of the budget: `run` for one that was given at the start of the run."""
    day: str | None = None
    run_id: UUID | None = None
    limits: LimitsView
    spent: AmountsView
    reserved: AmountsView
    """What agent runs hold: for their calls under way, and for their next ones."""
    left: LimitsView
    """Null: not limited."""
    overrun: AmountsView
    """What calls have cost more than their tools declared, of the kinds that are limited."""
    on_spent: OnSpent
    currency: str
    is_spent: bool
    """A call was refused since the last change."""
    waiting: WaitingView | None = None
    """Null: no call waits for more."""


class BudgetView(BaseModel):
    id: UUID
    name: str
    scope: Scope
    per: Per
    project_id: UUID | None = None
    agent: str | None = None
    workflow: str | None = None
    limits: LimitsView
    on_spent: OnSpent
    ask: AskView | None = None
    """Null: as all budgets ask, or it asks nobody."""
    time_zone: str
    currency: str
    by: str
    reason: str | None = None
    today: AllowanceView | None = None
    """Null: it is a budget of each run, or nothing was drawn of it today."""


class UsageView(BaseModel):
    """What calls have used. The field that it is counted by is set."""

    day: date | None = None
    project_id: UUID | None = None
    agent: str | None = None
    tool: str | None = None
    run_id: UUID | None = None
    calls: int
    money: str
    tokens: int


def amounts_view(amounts: Amounts) -> AmountsView:
    return AmountsView(money=money_text(amounts.money), tokens=amounts.tokens, calls=amounts.calls)


def limits_view(limits: BudgetLimits, wall_s: float | None = None) -> LimitsView:
    money = None if limits.money is None else money_text(limits.money)
    return LimitsView(money=money, tokens=limits.tokens, calls=limits.calls, wall_s=wall_s)


def allowance_view(allowance_id: UUID, allowance: Allowance) -> AllowanceView:
    opened, used = allowance.opened, allowance.used
    assert opened is not None
    left = BudgetLimits(**{kind: max(0, limit - getattr(used, kind)) for kind, limit in allowance.limits.kinds()})
    return AllowanceView(
        id=allowance_id, budget=opened.budget, day=opened.day, run_id=opened.run_id,
        limits=limits_view(allowance.limits, opened.wall_s), spent=amounts_view(allowance.spent),
        reserved=amounts_view(allowance.held), left=limits_view(left), overrun=amounts_view(allowance.overrun),
        on_spent=allowance.on_spent, currency=opened.currency, is_spent=allowance.told or allowance.time_over,
        waiting=waiting_view(allowance_id, allowance),
    )  # fmt: skip


def waiting_view(allowance_id: UUID, allowance: Allowance) -> WaitingView | None:
    line = allowance.line
    if not line.places:
        return None
    approval_id = question_id_of(allowance_id, line.asked) if line.is_open else None
    return WaitingView(calls=len(line.places), amounts=amounts_view(line.wanted), approval_id=approval_id)


def ask_view(asking: BudgetAsking) -> AskView | None:
    if asking == AS_USUAL:
        return None
    add = None if asking.add is None else amounts_view(asking.add)
    return AskView(add=add, roles=asking.roles, deadline_s=asking.deadline_s, default=asking.default)


def question_view(asked: BudgetQuestion) -> BudgetQuestionView:
    return BudgetQuestionView(
        allowance_id=asked.allowance.allowance_id, budget=asked.budget, day=asked.day, run_id=asked.run_id,
        currency=asked.currency, short=asked.kind, limits=limits_view(asked.limits), spent=amounts_view(asked.spent),
        reserved=amounts_view(asked.reserved), asked=amounts_view(asked.asked), add=amounts_view(asked.add),
    )  # fmt: skip


def budget_view(budget_id: UUID, budget: BudgetSet, today: AllowanceView | None) -> BudgetView:
    said = budget.model_dump(
        include={"name", "scope", "per", "project_id", "agent", "workflow", "on_spent", "time_zone", "currency"}
    )
    return BudgetView(
        id=budget_id, limits=limits_view(budget.limits, budget.wall_s), ask=ask_view(budget.asking), by=budget.by,
        reason=budget.reason, today=today, **said,
    )  # fmt: skip
