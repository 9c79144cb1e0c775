"""What `tidelog doctor` says of budgets of a day: of which nothing or little is left, and how to give more."""

from typing import Any, cast

import httpx2

from api.cli.diagnosis.asking import Asking
from api.cli.diagnosis.budgets import examine_budgets
from api.cli.diagnosis.findings import Diagnosis


class Answers:
    """A server that answers with one page."""

    def __init__(self, page: Any) -> None:
        self._page = page

    async def get(self, path: str, params: dict[str, Any]) -> Any:
        assert path == "/v1/budgets"
        if isinstance(self._page, Exception):
            raise self._page
        return self._page


def budget(name: str, limits: dict[str, Any], left: dict[str, Any], *, is_spent: bool = False) -> dict[str, Any]:
    kinds = {"money": None, "tokens": None, "calls": None, "wall_s": None}
    today = {"day": "2026-11-30", "limits": {**kinds, **limits}, "left": {**kinds, **left}, "is_spent": is_spent}
    return {"name": name, "currency": "usd", "today": today}


async def found(page: Any) -> list[tuple[str, str, str]]:
    diagnosis = Diagnosis()
    await examine_budgets(diagnosis, cast(Asking, Answers(page)))
    return [(one.status, one.detail, one.mend or "") for one in diagnosis.findings]


async def test_budgets_with_little_left_come_with_what_gives_more() -> None:
    page = [
        budget("agent:critic", {"calls": 10}, {"calls": 2}),
        budget("tenant", {"money": "25", "calls": 100}, {"money": "0.5", "calls": 90}, is_spent=True),
        budget("project:x", {"tokens": 100}, {"tokens": 21}),
        budget("agent:none", {"calls": 0}, {"calls": 0}),
        {"name": "runs", "currency": "usd", "today": None},
    ]
    assert await found({"data": page}) == [
        (
            "warning", "the budget tenant of 2026-11-30 is spent, and calls are refused: 0.5 of 25 usd, 90 of 100 calls left",
            "tidelog budgets lift tenant --add AMOUNT --reason TEXT gives more for today",
        ),
        (
            "warning", "the budget agent:none of 2026-11-30 is nearly spent: 0 of 0 calls left",
            "tidelog budgets lift agent:none --add AMOUNT --reason TEXT gives more for today",
        ),
        (
            "warning", "the budget agent:critic of 2026-11-30 is nearly spent: 2 of 10 calls left",
            "tidelog budgets lift agent:critic --add AMOUNT --reason TEXT gives more for today",
        ),
    ]  # fmt: skip
    many = await found({"data": [budget(f"agent:a{n}", {"calls": 10}, {"calls": 0}) for n in range(7)]})
    assert len(many) == 6 and many[-1][1] == "and 2 more have little left"


async def test_there_is_nothing_to_say_where_enough_is_left_or_nobody_may_ask() -> None:
    assert await found({"data": [budget("tenant", {"calls": 10}, {"calls": 9})]}) == [
        ("ok", "enough is left of each for today", "")
    ]
    assert await found({"data": []}) == await found(None) == []
    [(status, detail, _)] = await found(httpx2.ConnectError("away"))
    assert status == "note" and detail.startswith("not looked at: ConnectError")
    [(status, _, _)] = await found({"data": [{"name": "tenant"}]})
    assert status == "note"
