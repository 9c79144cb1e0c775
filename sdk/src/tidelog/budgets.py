"""`client.budgets`: what runs may spend, what calls have used, and more of it by a person."""

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from uuid_utils.compat import uuid7

from tidelog.audit import reason_header
from tidelog.models import Model
from tidelog.requests import parse

if TYPE_CHECKING:
    from tidelog.client import Client

OnSpent = Literal["stop", "degrade", "ask"]
UsageBy = Literal["day", "project", "agent", "tool", "run"]


class Amounts(Model):
    money: Decimal = Decimal(0)
    tokens: int = 0
    calls: int = 0


class Limits(Model):
    """What is not limited is None."""

    money: Decimal | None = None
    tokens: int | None = None
    calls: int | None = None
    wall_s: float | None = None


class Waiting(Model):
    """Calls that wait until there is more of a budget. `amounts`: what they may cost. `approval_id`: the question to people."""

    calls: int
    amounts: Amounts
    approval_id: UUID | None = None


class BudgetQuestion(Model):
    """What people are asked: more of a budget, as it was when the first call waited. `short`: what there is too little of. `asked`:
    what that call may cost. `add`: how much is given where the answer does not say how much."""

    allowance_id: UUID
    budget: str
    day: str | None = None
    run_id: UUID | None = None
    currency: str = "usd"
    short: str = ""
    limits: Limits
    spent: Amounts
    reserved: Amounts
    asked: Amounts
    add: Amounts


class Allowance(Model):
    """What a budget allows in one run, or on one day. `reserved`: what agent runs hold, for calls under way and for their next
    ones. `overrun`: what calls have cost more than their tools declared. `is_spent`: a call was refused since the last change."""

    id: UUID
    budget: str
    day: str | None = None
    run_id: UUID | None = None
    limits: Limits
    spent: Amounts
    reserved: Amounts
    left: Limits
    overrun: Amounts = Amounts()
    on_spent: str = "stop"
    currency: str = "usd"
    is_spent: bool = False
    waiting: Waiting | None = None


class BudgetInfo(Model):
    """A budget. `today`: what is spent of it today; None: it is one of each run, or nothing was drawn of it today."""

    id: UUID
    name: str
    scope: str
    per: str
    project_id: UUID | None = None
    agent: str | None = None
    workflow: str | None = None
    limits: Limits
    on_spent: str = "stop"
    ask: dict[str, Any] | None = None
    time_zone: str = "UTC"
    currency: str = "usd"
    by: str = ""
    reason: str | None = None
    today: Allowance | None = None


class Usage(Model):
    """What calls have used. The field that it is counted by is set."""

    day: date | None = None
    project_id: UUID | None = None
    agent: str | None = None
    tool: str | None = None
    run_id: UUID | None = None
    calls: int
    money: Decimal
    tokens: int


class _Accepted(Model):
    id: UUID


def money_text(money: "Decimal | float | int | str") -> str:
    """Money as the server takes it: at most six places. Raises ValueError."""
    text = format(Decimal(str(money)).normalize(), "f")
    whole, _, places = text.partition(".")
    if text.startswith("-") or not whole.isdecimal() or len(whole) > 9 or len(places) > 6:
        raise ValueError(f"not an amount of money with at most six places: {str(money)[:40]!r}")
    return text


def amounts_of(said: Mapping[str, Any]) -> dict[str, Any]:
    """Limits or amounts as the body of a request has them."""
    given = {name: value for name, value in said.items() if value is not None}
    given |= {"money": money_text(given["money"])} if "money" in given else {}
    return given | ({"ask": ask_of(given["ask"])} if "ask" in given else {})


def ask_of(said: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """How a budget asks, as the body of a request has it."""
    if said is None:
        return None
    return {**said, **({"add": amounts_of(said["add"])} if said.get("add") is not None else {})}


class ClientBudgets:
    """What runs may spend. Use it as `client.budgets`."""

    def __init__(self, client: "Client") -> None:
        self._client = client

    async def get(self, budget_id: UUID) -> BudgetInfo:
        """Raises NotFoundError."""
        return await self._client.one(BudgetInfo, f"/v1/budgets/{budget_id}")

    async def of_run(self, run_id: UUID) -> Allowance:
        """What a run may spend, with its child runs. Raises NotFoundError where it has no budget of its own."""
        return await self._client.one(Allowance, f"/v1/runs/{run_id}/budget")

    async def set(
        self,
        scope: Literal["tenant", "project", "agent", "runs"],
        *,
        per: Literal["day", "run"] | None = None,
        project_id: UUID | None = None,
        agent: str | None = None,
        workflow: str | None = None,
        money: Decimal | float | str | None = None,
        tokens: int | None = None,
        calls: int | None = None,
        wall_s: float | None = None,
        on_spent: OnSpent = "stop",
        ask: Mapping[str, Any] | None = None,
        time_zone: str | None = None,
        currency: str | None = None,
        reason: str | None = None,
        on_behalf_of: str | None = None,
    ) -> UUID:
        """Set the budget of a tenant, a project or an agent by day, of an agent by run, or of all runs that are given none.

        `ask`, with `on_spent="ask"`: how people are asked for more: `add` (amounts), `roles`, `deadline_s`, `default`.
        """
        body: dict[str, Any] = {
            "scope": scope, "per": per, "project_id": None if project_id is None else str(project_id), "agent": agent,
            "workflow": workflow, "on_spent": on_spent, "ask": ask_of(ask),
            "time_zone": time_zone, "currency": currency, "reason": reason,
            "limits": amounts_of({"money": money, "tokens": tokens, "calls": calls, "wall_s": wall_s}),
        }  # fmt: skip
        said = {name: value for name, value in body.items() if value is not None}
        answer = await self._client.send("PUT", "/v1/budgets", said, key=str(uuid7()), on_behalf_of=on_behalf_of)
        return parse(_Accepted, answer).id

    async def remove(self, budget_id: UUID, *, reason: str | None = None) -> None:
        """Its calls are counted no more. Raises NotFoundError."""
        await self._client.send("DELETE", f"/v1/budgets/{budget_id}", headers=reason_header(reason))

    async def lift(
        self,
        budget_id: UUID,
        *,
        money: Decimal | float | str | None = None,
        tokens: int | None = None,
        calls: int | None = None,
        reason: str,
        on_behalf_of: str | None = None,
    ) -> None:
        """Give more: of the budget of a day for today, or of a run by the `id` of its allowance. Raises NotFoundError."""
        body = {"add": amounts_of({"money": money, "tokens": tokens, "calls": calls}), "reason": reason}
        path = f"/v1/budgets/{budget_id}/lift"
        await self._client.send("POST", path, body, key=str(uuid7()), on_behalf_of=on_behalf_of)

    async def usage(
        self,
        by: UsageBy = "day",
        *,
        since: date | None = None,
        until: date | None = None,
        project_id: UUID | None = None,
        agent: str | None = None,
        tool: str | None = None,
        run_id: UUID | None = None,
    ) -> list[Usage]:
        """What calls have used, of the last 30 days unless `since` says otherwise. `until`: the last day."""
        asked = {"since": since, "until": until, "project_id": project_id, "agent": agent, "tool": tool, "run_id": run_id}
        params = {"by": by, **{name: str(value) for name, value in asked.items() if value is not None}}
        return [row async for row in self._client.every(Usage, "/v1/usage", params)]

    async def list(self) -> list[BudgetInfo]:
        return [budget async for budget in self._client.every(BudgetInfo, "/v1/budgets", {"limit": "1000"})]
