"""The book of budgets: what a budget may cover, what a second one does, and which one a run has by default."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from domain import budgets
from domain.amounts import BudgetLimits
from domain.budgets import (
    MOST_BUDGETS,
    Book,
    BudgetRemoved,
    BudgetSet,
    Covered,
    RemoveBudget,
    SetBudget,
    allowance_of_agent,
    allowance_of_day,
    book_id_of,
    budget_id_of,
    day_of,
    is_time_zone,
)
from domain.errors import InvalidCommand, InvalidState, NotFound

ID, PROJECT = (UUID(f"01900000-0000-7000-8000-00000000000{n}") for n in range(2))
TENANT = Covered(scope="tenant")
ALL_RUNS = Covered(scope="runs", per="run")


def sets(covered: Covered = TENANT, **fields: Any) -> SetBudget:
    return SetBudget(book_id=ID, covered=covered, **{"limits": BudgetLimits(calls=3), "by": "key:a", **fields})


def event(covered: Covered = TENANT, **fields: Any) -> BudgetSet:
    said = covered.model_dump() | {"name": covered.name, "limits": BudgetLimits(calls=3), "by": "key:a"}
    return BudgetSet(**{**said, **fields})


def folded(*commands: Any) -> Book:
    state = Book()
    for command in commands:
        state = budgets.DECIDER.fold(state, budgets.decide(state, command))
    return state


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ({"scope": "tenant"}, "tenant"),
        ({"scope": "project", "project_id": PROJECT}, f"project:{PROJECT}"),
        ({"scope": "agent", "agent": "a"}, "agent:a"),
        ({"scope": "agent", "agent": "a", "per": "run"}, "agent:a/run"),
        ({"scope": "runs", "per": "run"}, "runs"),
        ({"scope": "runs", "per": "run", "project_id": PROJECT}, f"runs:project:{PROJECT}"),
        ({"scope": "runs", "per": "run", "workflow": "w"}, "runs:workflow:w"),
    ],
)
def test_each_budget_has_a_name(said: dict[str, Any], name: str) -> None:
    assert Covered(**said).name == name


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"scope": "agent"}, "`agent` goes with the scope agent"),
        ({"scope": "tenant", "agent": "a"}, "`agent` goes with the scope agent"),
        ({"scope": "project"}, "the scope project needs a `project_id`"),
        ({"scope": "tenant", "project_id": PROJECT}, "`project_id` goes with the scopes project and runs"),
        ({"scope": "tenant", "workflow": "w"}, "`workflow` goes with the scope runs"),
        ({"scope": "runs", "per": "run", "workflow": "w", "project_id": PROJECT}, "give either `project_id` or `workflow`"),
        ({"scope": "tenant", "per": "run"}, "a budget of the scope tenant is one per day"),
        ({"scope": "project", "project_id": PROJECT, "per": "run"}, "a budget of the scope project is one per day"),
        ({"scope": "runs"}, "a budget of the scope runs is one per run"),
    ],
)
def test_a_budget_covers_what_fits_together(said: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Covered(**said)
    assert refused.value.errors()[0]["msg"] == f"Value error, {why}"


def test_a_second_budget_takes_the_place_of_the_first() -> None:
    more = {"time_zone": "Europe/Berlin", "reason": "why", "on_behalf_of": "ada", "on_spent": "degrade"}
    assert budgets.decide(Book(), sets(**more)) == [event(**more)]
    state = folded(sets(**more))
    assert budgets.decide(state, sets(limits=BudgetLimits(money=5))) == [
        event(limits=BudgetLimits(money=5), time_zone="Europe/Berlin")
    ]
    assert budgets.decide(state, sets(time_zone="Europe/Berlin", on_spent="degrade", by="key:b")) == []
    assert (state.changes, [*state.budgets]) == (1, ["tenant"])


def test_a_budget_limits_something_that_it_can_limit() -> None:
    with pytest.raises(InvalidCommand, match="a budget limits something: money, tokens, calls or wall_s") as refused:
        budgets.decide(Book(), sets(limits=BudgetLimits()))
    assert refused.value.pointer == "/limits"
    with pytest.raises(InvalidCommand, match="`wall_s` is the time of a run: it goes with the scope runs") as refused:
        budgets.decide(Book(), sets(wall_s=5))
    assert refused.value.pointer == "/limits/wall_s"
    assert budgets.decide(Book(), sets(ALL_RUNS, limits=BudgetLimits(), wall_s=5)) == [
        event(ALL_RUNS, limits=BudgetLimits(), wall_s=5)
    ]
    with pytest.raises(InvalidCommand, match="no time zone has this name") as refused:
        budgets.decide(Book(), sets(time_zone="Mars/Base"))
    assert refused.value.pointer == "/time_zone"


def test_a_tenant_counts_money_in_one_unit() -> None:
    assert Book().unit == "usd"
    state = folded(sets(currency="eur"))
    assert state.unit == "eur" and folded(sets(currency="eur"), sets(currency="chf")).unit == "chf"
    with pytest.raises(InvalidCommand, match="this tenant counts money in eur") as refused:
        budgets.decide(state, sets(ALL_RUNS, currency="chf"))
    assert refused.value.pointer == "/currency"
    [second] = budgets.decide(state, sets(ALL_RUNS))
    assert second == event(ALL_RUNS, currency="eur")


def test_a_tenant_has_a_thousand_budgets() -> None:
    full = Book(budgets=Book().budgets.update({f"agent:a{n}": event() for n in range(MOST_BUDGETS)}))
    with pytest.raises(InvalidState, match="a tenant has at most 1,000 budgets"):
        budgets.decide(full, sets())
    assert budgets.decide(Book(budgets=full.budgets.delete("agent:a0")), sets())
    assert budgets.decide(full, sets(Covered(scope="agent", agent="a1")))


def test_what_is_removed_is_gone() -> None:
    removal = RemoveBudget(book_id=ID, name="tenant", by="key:a", reason="why", on_behalf_of="ada")
    assert budgets.decide(folded(sets()), removal) == [BudgetRemoved(name="tenant", by="key:a", reason="why", on_behalf_of="ada")]
    assert dict(folded(sets(), removal).budgets) == {} and folded(sets(), removal).changes == 2
    with pytest.raises(NotFound, match="there is no budget 'tenant'"):
        budgets.decide(Book(), removal)


def test_the_closest_budget_is_that_of_a_run() -> None:
    of_project, of_workflow = (
        Covered(scope="runs", per="run", project_id=PROJECT), Covered(scope="runs", per="run", workflow="w")
    )  # fmt: skip
    whole = folded(sets(ALL_RUNS), sets(of_project), sets(of_workflow))

    def name(book: Book, project_id: UUID, workflow: str | None) -> str | None:
        found = book.of_runs(project_id, workflow)
        return None if found is None else found.name

    assert name(whole, PROJECT, "w") == "runs:workflow:w"
    assert name(whole, PROJECT, "v") == name(whole, PROJECT, None) == f"runs:project:{PROJECT}"
    assert name(whole, ID, "v") == name(whole, ID, None) == "runs"
    assert name(Book(), PROJECT, "w") is None


def test_a_day_begins_at_the_midnight_of_the_zone() -> None:
    at = datetime(2026, 11, 30, 23, 30, tzinfo=UTC)
    assert [day_of(at, zone) for zone in ("UTC", "Europe/Berlin", "America/New_York", "Mars/Base")] == [
        "2026-11-30", "2026-12-01", "2026-11-30", "2026-11-30",
    ]  # fmt: skip
    assert is_time_zone("Europe/Berlin") and not is_time_zone("../etc/passwd") and not is_time_zone("")


def test_ids_follow_from_what_they_are_of() -> None:
    book_id = book_id_of(ID)
    ids = {
        book_id, budget_id_of(book_id, "tenant"), budget_id_of(book_id, "runs"), allowance_of_day(book_id, "2026-11-30"),
        allowance_of_day(book_id, "2026-12-01"), allowance_of_agent(ID, "a"), allowance_of_agent(ID, "b"),
    }  # fmt: skip
    assert len(ids) == 7
