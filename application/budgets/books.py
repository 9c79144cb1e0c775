"""The books of budgets of the tenants that this process knows. A change is heard of at once, so asking is a look into memory."""

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from itertools import islice
from typing import NamedTuple, Protocol
from uuid import UUID

from application.engine.commands.loop import CommandLoop
from domain import allowances, budgets, runs
from domain.agent_runs import AgentRunRequested
from domain.allowances import Allowance, Opening, allowance_of_run
from domain.amounts import AllowanceRef
from domain.budgets import Book, BudgetSet, allowance_of_agent, allowance_of_day, book_id_of, budget_id_of, day_of
from domain.errors import InvalidCommand
from domain.http_requests import Fault
from domain.written_budgets import WrittenBudget, asking_of

TOPICS = frozenset(event.TOPIC for event in (budgets.BudgetSet, budgets.BudgetRemoved))


OLD_S = 1.0
"""Seconds for which a book is taken as it was read, where nobody says that it has changed."""
MOST_KNOWN = 10_000
"""Books that a process knows. Then the one goes that it read longest ago."""
MOST_SHARES = 1_000
"""Allowances of today that are looked at for `shares`."""


class _Known(NamedTuple):
    book: Book
    read_at: float
    unwatch: Callable[[], None] | None


class BudgetWatch(Protocol):
    """How somebody hears of new events of a stream: `LiveFeed.call`."""

    def __call__(self, stream_id: UUID, topics: frozenset[str], told: Callable[[object], None], /) -> Callable[[], None]: ...


class Cover(NamedTuple):
    """An allowance that counts a call."""

    ref: AllowanceRef
    opening: Opening | None
    """How it is opened. None: it was, when its run began."""


class Books:
    def __init__(self, commands: CommandLoop, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._commands = commands
        self._clock = clock
        self._known: dict[UUID, _Known] = {}
        self._stale: set[UUID] = set()
        self._watch: BudgetWatch | None = None

    def hear_by(self, watch: BudgetWatch) -> None:
        """From now on the books that are read are followed."""
        self._watch = watch
        self._known.clear()

    async def of(self, tenant_id: UUID) -> Book:
        """The book of a tenant. Reads the log for the first time, and after a change. Raises Unavailable."""
        known, now = self._known.get(tenant_id), time.monotonic()
        if known is not None and tenant_id not in self._stale and (self._watch is not None or now < known.read_at + OLD_S):
            return known.book
        unwatch = None if known is None else known.unwatch
        if self._watch is not None and known is None:
            unwatch = self._watch(book_id_of(tenant_id), TOPICS, lambda _: self._stale.add(tenant_id))
        self._stale.discard(tenant_id)
        try:
            book: Book = (await self._commands.load(budgets.DECIDER, tenant_id, book_id_of(tenant_id))).state
        except BaseException:
            if known is not None:
                self._stale.add(tenant_id)
            elif unwatch is not None:
                unwatch()
            raise
        before = self._known.get(tenant_id)
        if before is not None and before.unwatch is not unwatch and before.unwatch is not None:  # two have read it side by side
            before.unwatch()
        elif before is None and len(self._known) >= MOST_KNOWN:
            self._forget(next(iter(self._known)))
        self._known[tenant_id] = _Known(book, now, unwatch)
        return book

    def _forget(self, tenant_id: UUID) -> None:
        known = self._known.pop(tenant_id)
        self._stale.discard(tenant_id)
        if known.unwatch is not None:
            known.unwatch()

    def shares(self) -> dict[str, float]:
        """Scope → how much of its limit that allowance of today has given out which has given out most, as far as this process
        knows: 0.9 of one whose calls have spent or hold nine tenths. Reads nothing."""
        found: dict[str, float] = {}
        of_days = (
            (tenant_id, budget)
            for tenant_id, known in self._known.items()
            for budget in known.book.budgets.values()
            if budget.per == "day"
        )
        for tenant_id, budget in islice(of_days, MOST_SHARES):
            allowance_id = self.of_today(tenant_id, budget).ref.allowance_id
            loaded = self._commands.known(allowances.DECIDER, tenant_id, allowance_id)
            state: Allowance = Allowance() if loaded is None else loaded.state
            used = [getattr(state.used, kind) / limit if limit else 1.0 for kind, limit in state.limits.kinds()]
            found[budget.scope] = max([found.get(budget.scope, 0.0), *used])
        return found

    async def default_of(self, tenant_id: UUID, project_id: UUID, workflow: str | None) -> runs.RunBudget | None:
        """The budget of a run that is given none at its start. None: it has none. Raises Unavailable."""
        return default_of_runs(await self.of(tenant_id), project_id, workflow)

    async def covering(self, tenant_id: UUID, requested: AgentRunRequested) -> tuple[Cover, ...]:
        """The allowances that count the calls of an agent run; those of days first. Empty: no budget does. Raises Unavailable."""
        book = await self.of(tenant_id)
        of_runs = tuple(
            Cover(AllowanceRef(allowance_id=allowance_of_run(run_id), root_id=run_id), None) for run_id in requested.budgets
        )  # fmt: skip
        if not book.budgets:
            return of_runs
        names = ["tenant", f"agent:{requested.agent}", f"agent:{requested.agent}/run"]
        if any(name.startswith("project:") for name in book.budgets):
            run = await self._commands.load(runs.DECIDER, tenant_id, requested.run_id, fresh=False)
            names.insert(1, f"project:{run.state.project_id}")
        found = (book.budgets.get(name) for name in names)
        return (*(self._cover(tenant_id, budget, requested) for budget in found if budget is not None), *of_runs)

    async def of_day(self, tenant_id: UUID, run_id: UUID | None = None) -> tuple[Cover, ...]:
        """The allowances of today that count a call which no agent makes: those of the tenant and of the project of a run. Raises
        Unavailable."""
        book = await self.of(tenant_id)
        names = ["tenant"] if "tenant" in book.budgets else []
        if run_id is not None and any(name.startswith("project:") for name in book.budgets):
            run = await self._commands.load(runs.DECIDER, tenant_id, run_id, fresh=False)
            names.append(f"project:{run.state.project_id}")
        return tuple(self.of_today(tenant_id, book.budgets[name]) for name in names if name in book.budgets)

    def _cover(self, tenant_id: UUID, budget: BudgetSet, requested: AgentRunRequested) -> Cover:
        if budget.per == "run":
            allowance_id = allowance_of_agent(requested.run_id, requested.agent)
            opening = opening_of(tenant_id, budget, run_id=requested.run_id)
            return Cover(AllowanceRef(allowance_id=allowance_id, root_id=requested.run_id), opening)
        return self.of_today(tenant_id, budget)

    def of_today(self, tenant_id: UUID, budget: BudgetSet) -> Cover:
        day = day_of(self._clock(), budget.time_zone)
        allowance_id = allowance_of_day(budget_id_of(book_id_of(tenant_id), budget.name), day)
        return Cover(AllowanceRef(allowance_id=allowance_id, root_id=allowance_id), opening_of(tenant_id, budget, day=day))


async def fault_of_unit(commands: CommandLoop, tenant_id: UUID, written: WrittenBudget | None, place: str = "") -> list[Fault]:
    """What is wrong with the unit of a budget that a definition has, with its place in the definition. Raises Unavailable."""
    try:
        await given_budget(commands, tenant_id, written, place=place)
    except InvalidCommand as error:
        return [(error.pointer or place, error.message)]
    return []


async def given_budget(
    commands: CommandLoop, tenant_id: UUID, written: WrittenBudget | None, *, of: str | None = None, place: str = ""
) -> runs.RunBudget | None:
    """The budget of a run as it is written elsewhere than in the request of its start. Costs nothing where none is.

    `place`: where the definition has it, for the refusal. Raises InvalidCommand, Unavailable.
    """
    if written is None:
        return None
    book: Book = (await commands.load(budgets.DECIDER, tenant_id, book_id_of(tenant_id), fresh=False)).state
    return budget_of(written, book.unit, of=of, place=place)


def budget_of(written: WrittenBudget, unit: str, *, of: str | None = None, place: str = "") -> runs.RunBudget:
    """`unit`: of the tenant's money. `of`: the name of what says so for all its runs. None: the start of the run does.

    Raises InvalidCommand for a budget in another unit.
    """
    if written.currency not in (None, unit):
        raise InvalidCommand(f"this tenant counts money in {unit}", pointer=f"{place}/budget/currency")
    return runs.RunBudget(
        limits=written.limits(), wall_s=written.wall_s, on_spent=written.on_spent, asking=asking_of(written.ask), budget=of,
        currency=unit,
    )  # fmt: skip


def default_of_runs(book: Book, project_id: UUID, workflow: str | None) -> runs.RunBudget | None:
    """The budget of a run that is given none at its start. None: it has none."""
    found = book.of_runs(project_id, workflow)
    if found is None:
        return None
    return runs.RunBudget(
        limits=found.limits, wall_s=found.wall_s, on_spent=found.on_spent, asking=found.asking, budget=found.name,
        currency=found.currency,
    )  # fmt: skip


def opening_of(tenant_id: UUID, budget: BudgetSet, *, day: str | None = None, run_id: UUID | None = None) -> Opening:
    return Opening(
        budget=budget.name, budget_id=budget_id_of(book_id_of(tenant_id), budget.name), day=day, run_id=run_id,
        project_id=budget.project_id, limits=budget.limits, on_spent=budget.on_spent, asking=budget.asking,
        currency=budget.currency,
    )  # fmt: skip


def names(covers: Iterable[Cover]) -> tuple[AllowanceRef, ...]:
    return tuple(cover.ref for cover in covers)
