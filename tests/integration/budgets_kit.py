"""What is asked of the routes of budgets, for tests of all routes."""

from typing import Any

import httpx2

from tests.integration.system_kit import System

_SPENT = {"limits": {"calls": 9_999}}
OF_BUDGETS: dict[str, list[dict[str, Any]]] = {
    "/v1/budgets": [
        {"scope": "tenant", "limits": {"money": "9"}, "time_zone": "UTC", "currency": "usd", "reason": "why"},
        {
            **_SPENT,
            "scope": "agent",
            "agent": "own",
            "on_spent": "ask",
            "ask": {"add": {"money": "1", "calls": 1}, "roles": ["owner"]},
        },
        {**_SPENT, "scope": "project", "project_id": "{project_id}"},
        {**_SPENT, "scope": "runs", "workflow": "own"},
    ],
    "/v1/budgets/{budget_id}/lift": [{"add": {"money": "1"}, "reason": "why"}],
}
"""Bodies of each operation, with every place for a text."""


async def use_budgets(shared: System, http: httpx2.AsyncClient) -> None:
    body = {"scope": "tenant", "limits": {"money": "25"}, "reason": "r"}
    again = {"Idempotency-Key": "set"}
    first, repeated = [await http.put("/v1/budgets", json=body, headers=again) for _ in range(2)]
    assert first.status_code == repeated.status_code == 200 and first.json() == repeated.json()
    place = f"/v1/budgets/{first.json()['id']}"
    lifted = await http.post(f"{place}/lift", json={"add": {"money": "0.5"}, "reason": "r"})
    assert lifted.status_code == 200, lifted.text
    found = (await http.get(place)).json()
    assert (found["limits"]["money"], found["today"]["limits"]["money"], found["today"]["left"]["money"]) == ("25", "25.5", "25.5")
    assert [one["name"] for one in (await http.get("/v1/budgets")).json()["data"]] == ["tenant"]
    assert (await http.delete(place)).status_code == 200
    await shared.worker().register("spender")
    run = (await http.post("/v1/runs", json={"agent": "spender", "budget": {"calls": 3}})).json()["run_id"]
    assert (await http.get(f"/v1/runs/{run}/budget")).json()["left"]["calls"] == 3
    at = {"Tidelog-Position": str(await shared.settled())}
    for by in ("day", "project", "agent", "tool", "run"):
        assert (await http.get("/v1/usage", params={"by": by}, headers=at)).json()["data"] == []
    for day in ("0", "44", "1790000000", "0001-01-01", "2026-13-01", "2026-1-1"):
        for side in ("since", "until"):
            assert (await http.get("/v1/usage", params={side: day})).json()["errors"][0]["pointer"] == f"/{side}", day
