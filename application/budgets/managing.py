"""What people do with budgets: show, set, remove and lift them."""

from collections.abc import Sequence
from uuid import UUID

from application.budgets.books import Books
from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandOutcome, CommandRequest
from application.views.budgets import AllowanceView, BudgetView, allowance_view, budget_view
from domain import allowances, budgets, projects
from domain.allowances import Allowance, ChangeAllowance, LiftAllowance, OpenAllowance, Opening, allowance_of_run
from domain.amounts import Amounts
from domain.budgets import Book, BudgetSet, RemoveBudget, SetBudget, book_id_of, budget_id_of
from domain.errors import InvalidState, NotFound
from domain.kernel import Command
from domain.projects import Project, UnknownProject


class BudgetOffice:
    def __init__(self, commands: CommandLoop, books: Books) -> None:
        self._commands = commands
        self._books = books

    async def list(self, tenant_id: UUID, *, after: str, limit: int) -> Sequence[BudgetView]:
        """Budgets in the order of their names, after a name. As the log has them."""
        book = await self._book(tenant_id)
        names = sorted(name for name in book.budgets if name > after)[:limit]
        found = [book.budgets[name] for name in names]
        of_days = [self._books.of_today(tenant_id, budget).ref.allowance_id for budget in found if budget.per == "day"]
        await self._commands.meet(tenant_id, dict.fromkeys(of_days, allowances.DECIDER), fresh=True)
        return [await self._view(tenant_id, budget, fresh=False) for budget in found]

    async def unit(self, tenant_id: UUID) -> str:
        """The unit of the tenant's money."""
        return (await self._books.of(tenant_id)).unit

    async def get(self, tenant_id: UUID, budget_id: UUID) -> BudgetView:
        """Raises NotFound."""
        return await self._view(tenant_id, await self._budget(tenant_id, budget_id), fresh=True)

    async def of_run(self, tenant_id: UUID, run_id: UUID) -> AllowanceView | None:
        """What a run may spend, with its child runs. None: it has no budget of its own."""
        allowance_id = allowance_of_run(run_id)
        state = await self._allowance(tenant_id, allowance_id)
        return None if state.opened is None else allowance_view(allowance_id, state)

    async def set(self, request: CommandRequest, command: SetBudget) -> tuple[UUID, CommandOutcome]:
        """Sets a budget; of a day, that of today as well. Raises InvalidCommand, InvalidState, UnknownProject."""
        tenant_id, covered = request.tenant_id, command.covered
        if covered.project_id is not None:
            project: Project = (await self._commands.load(projects.DECIDER, tenant_id, covered.project_id)).state
            if project.created is None or project.removed:
                raise UnknownProject(f"there is no project {covered.project_id}", pointer="/project_id")
        book = await self._book(tenant_id)
        commands: tuple[Command, ...] = (command,)
        decided = budgets.DECIDER.decide(book, command)
        if decided and covered.per == "day":
            budget = decided[0]
            assert isinstance(budget, BudgetSet)
            cover = self._books.of_today(tenant_id, budget)
            place = {"allowance_id": cover.ref.allowance_id, "root_id": cover.ref.root_id}
            assert cover.opening is not None
            commands += (
                OpenAllowance(**place, opening=cover.opening),
                ChangeAllowance(**place, limits=budget.limits, on_spent=budget.on_spent, asking=budget.asking),
            )
        outcome = await self._commands.execute(request, *commands)
        return budget_id_of(command.book_id, covered.name), outcome

    async def remove(self, request: CommandRequest, budget_id: UUID, *, by: str, reason: str | None) -> CommandOutcome:
        """Its calls are counted no more. Raises NotFound."""
        budget = await self._budget(request.tenant_id, budget_id)
        command = RemoveBudget(
            book_id=book_id_of(request.tenant_id), name=budget.name, by=by, reason=reason, on_behalf_of=request.on_behalf_of
        )
        return await self._commands.execute(request, command)

    async def lift(self, request: CommandRequest, id: UUID, *, extra: Amounts, by: str, reason: str) -> tuple[UUID, CommandOutcome]:
        """Gives more: of a budget of a day, for today; of a run, by the id of its allowance. Raises NotFound, InvalidState."""
        allowance_id, root_id, opening = await self._lifted(request.tenant_id, id)
        command = LiftAllowance(
            allowance_id=allowance_id, root_id=root_id, extra=extra, by=by, reason=reason, on_behalf_of=request.on_behalf_of,
            opening=opening,
        )  # fmt: skip
        return allowance_id, await self._commands.execute(request, command)

    async def _lifted(self, tenant_id: UUID, id: UUID) -> tuple[UUID, UUID, Opening | None]:
        state = await self._allowance(tenant_id, id)
        if state.opened is not None:
            return id, state.opened.run_id or id, None
        budget = await self._budget(tenant_id, id)
        if budget.per == "run":
            raise InvalidState(f"the budget '{budget.name}' is one of each run: lift that of a run, by the id that the run shows")
        cover = self._books.of_today(tenant_id, budget)
        return cover.ref.allowance_id, cover.ref.root_id, cover.opening

    # --- what there is ----------------------------------------------------------------------------------------------------

    async def _book(self, tenant_id: UUID) -> Book:
        book: Book = (await self._commands.load(budgets.DECIDER, tenant_id, book_id_of(tenant_id))).state
        return book

    async def _budget(self, tenant_id: UUID, budget_id: UUID) -> BudgetSet:
        book_id = book_id_of(tenant_id)
        for name, budget in (await self._book(tenant_id)).budgets.items():
            if budget_id_of(book_id, name) == budget_id:
                return budget
        raise NotFound(f"there is no budget {budget_id}")

    async def _allowance(self, tenant_id: UUID, allowance_id: UUID, *, fresh: bool = True) -> Allowance:
        state: Allowance = (await self._commands.load(allowances.DECIDER, tenant_id, allowance_id, fresh=fresh)).state
        return state

    async def _view(self, tenant_id: UUID, budget: BudgetSet, *, fresh: bool) -> BudgetView:
        today = None
        if budget.per == "day":
            allowance_id = self._books.of_today(tenant_id, budget).ref.allowance_id
            state = await self._allowance(tenant_id, allowance_id, fresh=fresh)
            today = None if state.opened is None else allowance_view(allowance_id, state)
        return budget_view(budget_id_of(book_id_of(tenant_id), budget.name), budget, today)
