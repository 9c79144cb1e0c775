"""Budgets over HTTP: what runs may spend, what is spent, and more of it by a person."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, BeforeValidator, ValidationError
from starlette.responses import Response

from api.http.conventions.answers import OF_COMMANDS, OF_LISTS, accepted, answer, next_link, page_answer
from api.http.conventions.audit import REASON, audited, reason_of
from api.http.conventions.bodies import Body, body_of
from api.http.conventions.idempotency import key_of, keyed_request, one_content
from api.http.conventions.narrowing import projects_of
from api.http.conventions.permissions import Reach, needs
from api.http.conventions.positions import POSITION, caught_up
from api.http.conventions.releases import must_all_know_budgets
from api.http.conventions.request import caller_of, command_request, container_of, principal_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from application.engine.ports.pages import MAX_LIMIT, decode_cursor, encode_cursor
from application.reads import UsageBy, UsageWanted
from application.views.budgets import AllowanceView, BudgetView, UsageView
from application.wording import told
from domain.access import Action
from domain.amounts import Currency, OnSpent, Why
from domain.budgets import Covered, Per, Scope, SetBudget, book_id_of
from domain.errors import InvalidCommand, NotFound
from domain.kernel import Name, ShortText
from domain.written_budgets import WrittenAmounts, WrittenAsking, WrittenLimits, asking_of

router = APIRouter(tags=["budgets"], route_class=DirectRoute)

SHOWN_DAYS = 30
"""Days of usage that are shown where nobody says since when."""


def _as_written(given: object) -> object:
    """Only days as people write them. A number would be taken as seconds, and no days of usage begin before the first year."""
    if isinstance(given, str) and not re.fullmatch(r"[12][0-9]{3}-[0-9]{2}-[0-9]{2}", given):
        raise ValueError("a day is written as 2026-11-30")
    return given


Day = Annotated[date | None, BeforeValidator(_as_written), Query(description="A day, as `2026-11-30`")]


class BudgetBody(Body):
    scope: Scope
    """`tenant`, `project`: all calls of a day. `agent`: those of an agent. `runs`: of each run that is given no budget."""
    per: Per | None = None
    """Null: `run` for the scope runs, else `day`."""
    project_id: UUID | None = None
    agent: Name | None = None
    workflow: Name | None = None
    limits: WrittenLimits
    on_spent: OnSpent = "stop"
    ask: WrittenAsking | None = None
    """`ask`: how people are asked for more."""
    time_zone: ShortText | None = None
    """Whose midnight begins a day. Null: as before, or UTC."""
    currency: Currency | None = None
    """The tenant's unit of money. Null: as before, or usd. It can be changed while there is no other budget."""
    reason: Why | None = None

    def covered(self) -> Covered:
        """Raises InvalidCommand."""
        per = self.per or ("run" if self.scope == "runs" else "day")
        try:
            return Covered(scope=self.scope, per=per, project_id=self.project_id, agent=self.agent, workflow=self.workflow)
        except ValidationError as error:
            raise InvalidCommand(told(error.errors(include_url=False)[0]), pointer="/scope") from None


class LiftBody(Body):
    add: WrittenAmounts
    """How much more may be spent, of the kinds that the budget limits."""
    reason: Why


class BudgetAccepted(openapi.Shown):
    id: UUID
    position: int
    version: int


class BudgetPage(BaseModel):
    data: list[BudgetView]
    next_cursor: str | None


class UsagePage(BaseModel):
    data: list[UsageView]
    next_cursor: str | None


@router.get("/v1/budgets", summary="Budgets, by name", responses={200: openapi.gives(BudgetPage, "Link")})
@needs(Action.BUDGETS_READ)
async def get_budgets(
    request: Request, limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100, cursor: str | None = None
) -> Response:
    """As the log has them, each with what is spent of it today. What runs were given at their start is shown by the runs."""
    after = decode_cursor(cursor) if cursor is not None else ""
    found = await container_of(request).budgets.list(principal_of(request).tenant_id, after=after, limit=limit + 1)
    page, more = list(found[:limit]), len(found) > limit
    next_cursor = encode_cursor(page[-1].name) if more else None
    return answer(BudgetPage(data=page, next_cursor=next_cursor), headers=next_link(request, next_cursor))


@router.get("/v1/budgets/{budget_id}", summary="A budget", responses={200: openapi.gives(BudgetView)})
@needs(Action.BUDGETS_READ)
async def get_budget(request: Request, budget_id: UUID) -> Response:
    return answer(await container_of(request).budgets.get(principal_of(request).tenant_id, budget_id))


@router.get(
    "/v1/runs/{run_id}/budget", summary="What a run may spend, and has spent", responses={200: openapi.gives(AllowanceView)}
)
@needs(Action.RUNS_READ, Reach.RUN)
async def get_run_budget(request: Request, run_id: UUID) -> Response:
    """With its child runs. A run without a budget of its own has none to show: 404."""
    found = await container_of(request).budgets.of_run(principal_of(request).tenant_id, run_id)
    if found is None:
        raise NotFound(f"the run {run_id} has no budget of its own")
    return answer(found)


@router.put(
    "/v1/budgets",
    summary="Set a budget",
    responses={200: openapi.gives(BudgetAccepted, *OF_COMMANDS)},
    openapi_extra=openapi.body(
        BudgetBody,
        {"scope": "tenant", "limits": {"money": "25"}},
        {"scope": "agent", "agent": "writer", "per": "run", "limits": {"calls": 20}, "on_spent": "degrade"},
        {"scope": "tenant", "limits": {"money": "25"}, "on_spent": "ask", "ask": {"add": {"money": "5"}, "deadline_s": 3600}},
        takes=("Idempotency-Key", "Tidelog-On-Behalf-Of"),
    ),
)
@needs(Action.BUDGETS_SET)
async def put_budget(request: Request) -> Response:
    """There is one budget for what it covers: a second one takes the place of the first. It counts for calls from now on."""
    body, caller, container = await body_of(request, BudgetBody), caller_of(request), container_of(request)
    tenant_id, key, covered = principal_of(request).tenant_id, key_of(request, body), body.covered()
    await must_all_know_budgets(request)
    command = SetBudget(
        book_id=book_id_of(tenant_id), covered=covered, limits=body.limits.limits(), wall_s=body.limits.wall_s,
        on_spent=body.on_spent, asking=asking_of(body.ask), time_zone=body.time_zone, currency=body.currency, by=caller.actor,
        reason=body.reason, on_behalf_of=caller.on_behalf_of,
    )  # fmt: skip
    async with audited(request, Action.BUDGETS_SET, "budget", covered.name, operation="set", reason=body.reason) as entry:
        with one_content(key):
            budget_id, outcome = await container.budgets.set(entry.along(keyed_request(request, key)), command)
    return accepted(outcome, outcome.versions[command.book_id], {"id": str(budget_id)}, status=200)


@router.delete(
    "/v1/budgets/{budget_id}",
    summary="Remove a budget",
    responses={200: openapi.gives(BudgetAccepted, *OF_COMMANDS)},
    openapi_extra=openapi.takes_headers("Tidelog-On-Behalf-Of", REASON),
)
@needs(Action.BUDGETS_SET)
async def delete_budget(request: Request, budget_id: UUID) -> Response:
    """What runs were given stays theirs."""
    caller = caller_of(request)
    async with audited(request, Action.BUDGETS_SET, "budget", budget_id, operation="remove") as entry:
        asked = entry.along(command_request(request))
        outcome = await container_of(request).budgets.remove(asked, budget_id, by=caller.actor, reason=reason_of(request))
    version = outcome.versions[book_id_of(principal_of(request).tenant_id)]
    return accepted(outcome, version, {"id": str(budget_id)}, status=200)


@router.post(
    "/v1/budgets/{budget_id}/lift",
    summary="Give more of a budget: for today, or for a run",
    responses={200: openapi.gives(BudgetAccepted, *OF_COMMANDS)},
    openapi_extra=openapi.body(
        LiftBody,
        {"add": {"money": "5"}, "reason": "The report must be out today."},
        takes=("Idempotency-Key", "Tidelog-On-Behalf-Of"),
    ),
)
@needs(Action.BUDGETS_LIFT)
async def post_lift(request: Request, budget_id: UUID) -> Response:
    """`budget_id`: of a budget of a day, or the `id` of what a run may spend. Tomorrow the budget is as it was set."""
    body, caller, container = await body_of(request, LiftBody), caller_of(request), container_of(request)
    key = key_of(request, body)
    await must_all_know_budgets(request)
    async with audited(request, Action.BUDGETS_LIFT, "budget", budget_id, reason=body.reason) as entry:
        with one_content(key):
            lifted, outcome = await container.budgets.lift(
                entry.along(keyed_request(request, key)), budget_id, extra=body.add.amounts(), by=caller.actor, reason=body.reason
            )
    return accepted(outcome, outcome.versions[lifted], {"id": str(lifted)}, status=200)


@router.get(
    "/v1/usage",
    summary="What calls have used",
    responses={200: openapi.gives(UsagePage, *OF_LISTS)},
    openapi_extra=openapi.takes_headers(POSITION),
)
@needs(Action.BUDGETS_READ, Reach.LIMITED)
async def get_usage(
    request: Request,
    by: UsageBy = "day",
    since: Day = None,
    until: Day = None,
    project_id: UUID | None = None,
    agent: Name | None = None,
    tool: Name | None = None,
    run_id: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
    cursor: str | None = None,
) -> Response:
    """Of calls that say what they used, or whose tools declare what they cost. Days are those of UTC; of runs they do not count."""
    after = None if cursor is None else _key(by, decode_cursor(cursor))
    last = until or datetime.now(UTC).date()
    first = since or last - timedelta(days=SHOWN_DAYS - 1)
    within = projects_of(request)
    if project_id is not None:
        within = [project_id] if within is None or project_id in within else []
    await caught_up(request, "usage")
    wanted = UsageWanted("run" if run_id else by, first, last, limit, after, agent, tool, run_id, within)
    return page_answer(request, UsagePage, await container_of(request).reads.usage.usage(principal_of(request).tenant_id, wanted))


def _key(by: UsageBy, text: str) -> str:
    """Raises InvalidCommand for a cursor of another list."""
    try:
        if by == "day":
            date.fromisoformat(text)
        elif by in ("project", "run"):
            UUID(text)
        elif "\x00" in text:
            raise ValueError("NUL")
    except ValueError:
        raise InvalidCommand("not a cursor of this list", pointer="/cursor") from None
    return text
