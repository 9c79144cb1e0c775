"""A budget of a day that two api processes draw from, while processes are killed: no more than it has is spent, and no run
waits for ever. `make chaos ARGS="-k budgets_and_kills"` kills workers, too, and more often.
"""

import asyncio
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from adapters.embedded import EmbeddedServices
from domain import allowances
from domain.allowances import Allowance
from tests.chaos.checks.snapshot import read_snapshot
from tests.chaos.faults_kit import seeded
from tests.chaos.fleet import Balancer, Fleet
from tests.chaos.storm import KILLS
from tests.chaos.test_kills import AGENTS, END_TIMEOUT_S
from tests.integration.system_kit import empty_work_queue
from tests.pace import ANSWER_S, until

pytestmark = pytest.mark.chaos

SHORT_KILLS, RUNS_OF_A_KILL, CALLS_OF_A_RUN = 2, 6, 2
OVER = {"completed", "failed", "cancelled"}


async def asked(http: httpx2.AsyncClient, method: str, path: str, body: Any = None) -> Any:
    """The answer, for which the request is repeated as often as it takes: its process may be killed."""
    key, until_s = str(uuid4()), time.monotonic() + END_TIMEOUT_S
    while True:
        try:
            answer = await http.request(method, path, json=body, headers={"Idempotency-Key": key})
            if answer.status_code < 300:
                return answer.json()
            assert answer.status_code in (408, 409, 429, 503), answer.text
        except (httpx2.TransportError, httpx2.TimeoutException):
            assert time.monotonic() < until_s
        await asyncio.sleep(0.1)


async def test_two_apis_and_kills_spend_no_more_than_the_budget_of_the_day(
    services: EmbeddedServices, database_url: str, tmp_path: Path
) -> None:
    chance, kills = seeded(), KILLS // 5 or SHORT_KILLS
    limit = kills * RUNS_OF_A_KILL * CALLS_OF_A_RUN * 2 // 3
    await empty_work_queue(services.nats_url)
    async with Fleet(services, database_url, tmp_path, AGENTS, apis=2, engines=1) as fleet:
        headers = {"Authorization": f"Bearer {fleet.key}"}
        balancer = Balancer(fleet.urls)
        async with httpx2.AsyncClient(base_url=fleet.urls[0], headers=headers, transport=balancer, timeout=ANSWER_S) as http:
            await asked(http, "PUT", "/v1/budgets", {"scope": "tenant", "limits": {"calls": limit}})
            parts = [*fleet.apis, *fleet.engines] + (fleet.workers if KILLS else [])
            runs: list[str] = []
            for number in range(kills):
                starts = (asked(http, "POST", "/v1/runs", {"agent": "gatherer"}) for _ in range(RUNS_OF_A_KILL))
                runs += [run["run_id"] for run in await asyncio.gather(*starts)]
                await asyncio.sleep(chance.uniform(0.0, 0.4))
                part = parts[number % len(parts)] if not KILLS else chance.choice(parts)
                await part.kill()
                await part.start()
            states = [await ended(http, run_id) for run_id in runs]
            today: dict[str, Any] = {}

            async def given_back() -> bool:
                """What calls of ended runs have set aside is settled when they have ended, too."""
                today.update((await asked(http, "GET", "/v1/budgets"))["data"][0]["today"])
                return bool(today["reserved"]["calls"] == 0)

            await until(given_back, END_TIMEOUT_S)
        snapshot = await read_snapshot(database_url)
    assert today["limits"]["calls"] == limit >= today["spent"]["calls"] and today["overrun"]["calls"] == 0, today
    [facts] = snapshot.streams("allowance.").values()
    state = Allowance()
    for fact in facts:
        state = allowances.DECIDER.evolve(state, fact.event)
        assert state.used.calls <= limit, fact
    outcomes = {status for status, _ in states}
    assert outcomes == {"completed", "failed"}, states
    assert all("BudgetExceeded" in why for status, why in states if status == "failed"), states


async def ended(http: httpx2.AsyncClient, run_id: str) -> tuple[str, str]:
    """How a run ends, and why."""
    found: dict[str, Any] = {}

    async def over() -> bool:
        found.update(await asked(http, "GET", f"/v1/runs/{run_id}"))
        return found["status"] in OVER

    await until(over, END_TIMEOUT_S)
    return found["status"], str(found.get("error") or found.get("steps"))
