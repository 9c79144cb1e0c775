"""Budgets: what a tenant lets its runs spend, by day or by run. One stream for each tenant, the tenant's book of budgets.

What is spent of them stands in `domain.allowances`, a stream for each run and day.
"""

from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Literal, assert_never
from uuid import UUID
from zoneinfo import ZoneInfo

from immutables import Map
from pydantic import Field, model_validator

from domain.amounts import AS_USUAL, CURRENCY, BudgetAsking, BudgetLimits, Currency, OnSpent, Why, as_usual
from domain.errors import InvalidCommand, InvalidState, NotFound
from domain.kernel import Command, Decider, Event, Name, ShortText, Value, derive_id, replace
from domain.maps import PersistentMap
from domain.written_budgets import LONGEST_WALL_S, fault_of_asking

Scope = Literal["tenant", "project", "agent", "runs"]
"""Whose calls a budget counts. `tenant`, `project`: all of a day. `agent`: those of an agent, of a day or of each of its runs.
`runs`: the budget of each run that is given none at its start."""
Per = Literal["day", "run"]

MOST_BUDGETS = 1_000


class Covered(Value):
    """What a budget is for."""

    scope: Scope
    per: Per = "day"
    project_id: UUID | None = None
    agent: Name | None = None
    workflow: Name | None = None

    @model_validator(mode="after")
    def _fits(self) -> "Covered":
        if (self.scope == "agent") != (self.agent is not None):
            raise ValueError("`agent` goes with the scope agent")
        if self.scope == "project" and self.project_id is None:
            raise ValueError("the scope project needs a `project_id`")
        if self.project_id is not None and self.scope not in ("project", "runs"):
            raise ValueError("`project_id` goes with the scopes project and runs")
        if self.workflow is not None and self.scope != "runs":
            raise ValueError("`workflow` goes with the scope runs")
        if self.workflow is not None and self.project_id is not None:
            raise ValueError("give either `project_id` or `workflow`")
        if self.scope in ("tenant", "project") and self.per != "day":
            raise ValueError(f"a budget of the scope {self.scope} is one per day")
        if self.scope == "runs" and self.per != "run":
            raise ValueError("a budget of the scope runs is one per run")
        return self

    @property
    def name(self) -> str:
        """`tenant`, `project:<id>`, `agent:<name>`, `agent:<name>/run`, `runs`, `runs:project:<id>`, `runs:workflow:<name>`."""
        match self.scope:
            case "tenant":
                return "tenant"
            case "project":
                return f"project:{self.project_id}"
            case "agent":
                return f"agent:{self.agent}" + ("/run" if self.per == "run" else "")
            case "runs":
                of = f":project:{self.project_id}" if self.project_id else f":workflow:{self.workflow}" if self.workflow else ""
                return f"runs{of}"


class BudgetSet(Event):
    TOPIC = "budget.set"
    name: str
    scope: str
    per: str
    project_id: UUID | None = None
    agent: str | None = None
    workflow: str | None = None
    limits: BudgetLimits
    wall_s: float | None = None
    """Seconds that a run may last."""
    on_spent: OnSpent = "stop"
    asking: BudgetAsking = Field(default=AS_USUAL, exclude_if=as_usual)
    """`ask`: how people are asked."""
    time_zone: str = "UTC"
    """Whose midnight begins a day."""
    currency: str = CURRENCY
    by: str
    reason: str | None = None
    on_behalf_of: str | None = None


class BudgetRemoved(Event):
    TOPIC = "budget.removed"
    name: str
    by: str
    reason: str | None = None
    on_behalf_of: str | None = None


BudgetEvent = BudgetSet | BudgetRemoved


class SetBudget(Command):
    book_id: UUID
    covered: Covered
    limits: BudgetLimits
    wall_s: float | None = Field(default=None, gt=0, le=LONGEST_WALL_S, allow_inf_nan=False)
    on_spent: OnSpent = "stop"
    asking: BudgetAsking = AS_USUAL
    time_zone: ShortText | None = None
    """None: as it was, or UTC."""
    currency: Currency | None = None
    """None: that of the tenant."""
    by: str
    reason: Why | None = None
    on_behalf_of: str | None = None


class RemoveBudget(Command):
    book_id: UUID
    name: ShortText
    by: str
    reason: Why | None = None
    on_behalf_of: str | None = None


BudgetCommand = SetBudget | RemoveBudget


@dataclass(frozen=True)
class Book:
    budgets: PersistentMap[str, BudgetSet] = field(default_factory=Map)
    currency: str | None = None
    """None: no budget was ever set."""
    changes: int = 0

    @property
    def unit(self) -> str:
        return self.currency or CURRENCY

    def of_runs(self, project_id: UUID, workflow: str | None) -> BudgetSet | None:
        """The budget of a run that is given none: that of its workflow, its project, or of all runs."""
        names = [f"runs:project:{project_id}", "runs"] if workflow is None else [
            f"runs:workflow:{workflow}", f"runs:project:{project_id}", "runs",
        ]  # fmt: skip
        return next((self.budgets[name] for name in names if name in self.budgets), None)


@lru_cache(maxsize=10_000)
def book_id_of(tenant_id: UUID) -> UUID:
    return derive_id(tenant_id, "budgets")


def budget_id_of(book_id: UUID, name: str) -> UUID:
    return derive_id(book_id, f"budget:{name}")


def allowance_of_day(budget_id: UUID, day: str) -> UUID:
    return derive_id(budget_id, f"day:{day}")


def allowance_of_agent(run_id: UUID, agent: str) -> UUID:
    """Of an agent in one run."""
    return derive_id(run_id, f"allowance:agent:{agent}")


def is_time_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except Exception:  # noqa: BLE001  # the library raises errors of several kinds for names that are none
        return False
    return True


def day_of(at: datetime, time_zone: str) -> str:
    """The calendar day of a moment in a zone. A zone that this machine does not know is taken as UTC."""
    return at.astimezone(_zone(time_zone)).date().isoformat()


@lru_cache(maxsize=100)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name) if is_time_zone(name) else ZoneInfo("UTC")


def decide(book: Book, command: BudgetCommand) -> list[Event]:
    match command:
        case SetBudget():
            return _set(book, command)
        case RemoveBudget():
            if command.name not in book.budgets:
                raise NotFound(f"there is no budget '{command.name}'")
            return [
                BudgetRemoved(name=command.name, by=command.by, reason=command.reason, on_behalf_of=command.on_behalf_of)
            ]  # fmt: skip
        case _:
            assert_never(command)


def _set(book: Book, command: SetBudget) -> list[Event]:
    covered, name = command.covered, command.covered.name
    if not any(command.limits.kinds()) and command.wall_s is None:
        raise InvalidCommand("a budget limits something: money, tokens, calls or wall_s", pointer="/limits")
    if command.wall_s is not None and covered.scope != "runs":
        raise InvalidCommand("`wall_s` is the time of a run: it goes with the scope runs", pointer="/limits/wall_s")
    fault_of_asking(command.limits, command.on_spent, command.asking)
    if command.time_zone is not None and not is_time_zone(command.time_zone):
        raise InvalidCommand("no time zone has this name", pointer="/time_zone")
    others = [key for key in book.budgets if key != name]
    if others and command.currency not in (None, book.unit):
        raise InvalidCommand(f"this tenant counts money in {book.unit}", pointer="/currency")
    before = book.budgets.get(name)
    if before is None and len(book.budgets) >= MOST_BUDGETS:
        raise InvalidState(f"a tenant has at most {MOST_BUDGETS:,} budgets")
    budget = BudgetSet(
        name=name, scope=covered.scope, per=covered.per, project_id=covered.project_id, agent=covered.agent,
        workflow=covered.workflow, limits=command.limits, wall_s=command.wall_s, on_spent=command.on_spent, asking=command.asking,
        time_zone=command.time_zone or (before.time_zone if before else "UTC"), currency=command.currency or book.unit,
        by=command.by, reason=command.reason, on_behalf_of=command.on_behalf_of,
    )  # fmt: skip
    return [] if before is not None and _said(before) == _said(budget) else [budget]


def _said(budget: BudgetSet) -> dict[str, object]:
    """What a budget says, without who said it."""
    return budget.model_dump(exclude={"by", "reason", "on_behalf_of"})


def evolve(book: Book, event: BudgetEvent) -> Book:
    match event:
        case BudgetSet():
            changed = book.budgets.set(event.name, event)
            return replace(book, budgets=changed, currency=event.currency, changes=book.changes + 1)
        case BudgetRemoved():
            left = book.budgets.delete(event.name) if event.name in book.budgets else book.budgets
            return replace(book, budgets=left, changes=book.changes + 1)
        case _:
            assert_never(event)


DECIDER: Decider[Book] = Decider("budgets", Book, decide, evolve)
