"""Schedules on a whole server: over HTTP, by the SDK, on the command line, and the how-to as it stands there."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.integration.sdk_kit import outcome, running
from tests.integration.system_kit import System, eventually, new_id, served
from tests.integration.test_http_tools import is_refused
from tests.integration.test_sdk_tools import tidelog
from tidelog import Agent, Client, Context, PermanentError, TransientError
from tidelog.errors import ConflictError
from tidelog.schedules import start_of, when_of
from tidelog.testing import run_agent

PAGE = (Path(__file__).parents[2] / "docs/how-to/start-runs-by-the-clock.md").read_text("utf-8")
CODE = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^tidelog .*$", PAGE, re.MULTILINE)
ASKED = [command for command in COMMANDS if re.search(r"create nightly| preview | run-now | show ", command)]


class Reviewer(Agent):
    async def execute(self, ctx: Context) -> Any:
        return ctx.input


@pytest_asyncio.fixture
async def url(shared: System) -> AsyncIterator[str]:
    async with served(shared.container) as url:
        yield url


def name() -> str:
    return f"s{new_id().hex}"


async def shown(shared: System, schedule: str) -> dict[str, Any]:
    answer = await shared.http.get(f"/v1/schedules/{schedule}")
    return dict(answer.json()) if answer.status_code == 200 else {}


async def test_a_schedule_runs_is_paused_and_goes_on(shared: System, url: str) -> None:
    schedule = name()
    body = {
        "name": schedule, "when": {"every_s": 1}, "start": {"agent": "reviewer", "input_from": {"until": "due_at"}},
        "overlap": "queue",
    }  # fmt: skip
    async with running(url, Reviewer, key=shared.key):
        made = await shared.http.post("/v1/schedules", json=body, headers={"Idempotency-Key": schedule})
        assert made.status_code == 201 and made.headers["location"] == f"/v1/schedules/{schedule}"
        again = await shared.http.post("/v1/schedules", json=body, headers={"Idempotency-Key": schedule})
        assert (again.status_code, again.headers["idempotency-replayed"]) == (201, "true")
        assert (await shared.http.post("/v1/schedules", json=body)).json()["version"] >= 1

        async def two() -> Any:
            found = await shown(shared, schedule)
            return found if found.get("fired", 0) >= 2 else None

        found = await eventually(two, "two runs")
        paused = await shared.http.post(f"/v1/schedules/{schedule}/pause", json={"reason": "enough"})
        assert paused.status_code == 200
        fired = [one for one in found["recent"] if one["what"] == "fired"]
        run = await shared.http.get(f"/v1/runs/{fired[0]['run_id']}", headers={"Prefer": "wait=30"})
        assert run.json()["input"] == {"until": fired[0]["due_at"]} and run.json()["status"] == "completed"
        assert run.json()["actor"] == f"schedule:{schedule}"
    at = {"Tidelog-Position": paused.headers["tidelog-position"]}
    held = (await shared.http.get(f"/v1/schedules/{schedule}", headers=at)).json()
    assert (held["status"], held["reason"], held["next_at"], held["next_times"]) == ("paused", "enough", None, [])
    listed = (await shared.http.get("/v1/schedules", params={"status": "paused", "limit": 1000}, headers=at)).json()["data"]
    assert schedule in {one["name"] for one in listed}
    resumed = await shared.http.post(f"/v1/schedules/{schedule}/resume", json={})
    at = {"Tidelog-Position": resumed.headers["tidelog-position"]}
    assert len((await shared.http.get(f"/v1/schedules/{schedule}", headers=at)).json()["next_times"]) == 10
    assert (await shared.http.delete(f"/v1/schedules/{schedule}")).status_code == 200
    is_refused(await shared.http.delete(f"/v1/schedules/{schedule}"), 404, "not-found")


async def test_what_is_refused(shared: System) -> None:
    when, start = {"cron": "0 0 * * *"}, {"plan": {"kind": "sequential", "agents": ["nobody"]}}
    places = {}
    for body in (
        {"when": {"cron": "0 0 * *"}, "start": {"agent": "x"}},
        {"when": when, "start": {"agent": "x", "workflow": "y"}},
        {"when": when, "start": start},
        {"when": {"at": "2020-01-01T00:00:00Z"}, "start": start},
        {"when": when, "start": start, "start_at": "2030-01-01T00:00:00Z", "end_at": "2029-01-01T00:00:00Z"},
    ):
        answer = (await shared.http.post("/v1/schedules", json={"name": name(), **body})).json()
        places[answer["errors"][0]["pointer"]] = answer["code"]
    assert places == {
        "/when/cron": "invalid-request", "/start": "invalid-request", "/start/plan/steps/0/agent": "unknown-agent",
        "/when": "invalid-command", "/start_at": "invalid-command",
    }  # fmt: skip
    missing = name()
    for verb in ("pause", "resume", "run-now"):
        is_refused(await shared.http.post(f"/v1/schedules/{missing}/{verb}", json={}), 404, "not-found")
    is_refused(await shared.http.patch(f"/v1/schedules/{missing}", json={"overlap": "skip"}), 404, "not-found")
    is_refused(await shared.http.patch(f"/v1/schedules/{missing}", json={"overlap": None}), 422, "invalid-request")
    is_refused(await shared.http.get(f"/v1/schedules/{missing}"), 404, "not-found")
    for after in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"):
        is_refused(await shared.http.post("/v1/schedules:preview", json={"when": when, "after": after}), 422, "invalid-command")


async def test_the_sdk(shared: System, url: str) -> None:
    schedule = name()
    async with running(url, Reviewer, key=shared.key), Client(url, shared.key) as client:
        due = datetime.now(UTC) + timedelta(days=1)
        made = await client.schedules.create(
            schedule, when=when_of(at=due), start=start_of(agent="reviewer", input={"n": 1}), description="once", overlap="allow"
        )
        assert (made.status, made.starts) == ("active", "agent reviewer")
        assert made.next_at and abs(made.next_at - due) < timedelta(milliseconds=1)
        run_id = await client.schedules.run_now(schedule)
        assert (await client.wait(run_id)).result == {"n": 1}
        changed = await client.schedules.change(schedule, description=None, end_at=due + timedelta(days=1), version=2)
        assert (changed.description, changed.version, changed.last and changed.last.run_id) == (None, 3, run_id)
        with pytest.raises(ConflictError):
            await client.schedules.create(schedule, when=when_of(every_s=5), start=start_of(agent="reviewer"))
        assert [one.local for one in await client.schedules.preview(when_of(at=due), count=3)]
        assert schedule in [one.name async for one in client.schedules.list()]
        await client.schedules.remove(schedule, "enough")
    for wrong in ({}, {"cron": "* * * * *", "every_s": 1}):
        with pytest.raises(ValueError, match="exactly one"):
            when_of(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="exactly one"):
        start_of()
    with pytest.raises(ValueError, match="no time zone"):
        when_of(at=datetime(2026, 1, 1))  # noqa: DTZ001


class Watcher(Agent):
    """Fails once after it has made a schedule, which starts it again."""

    async def execute(self, ctx: Context) -> Any:
        if isinstance(ctx.input, dict) and "again" in ctx.input:
            return [await ctx.unschedule(ctx.input["again"]), await ctx.unschedule(ctx.input["again"])]
        made = await ctx.schedule(ctx.input, every_s=1, input={"again": ctx.input}, overlap="queue")
        if ctx.attempt == 1:
            raise TransientError("once more")
        with pytest.raises(PermanentError, match="no agent 'nobody-at-all'"):
            await ctx.schedule("refused", every_s=1, agent="nobody-at-all")
        return made.name


async def test_an_agent_schedules_itself_once_and_ends_it(shared: System, url: str) -> None:
    again = name()
    plan = {"kind": "graph", "steps": [{"key": "w", "agent": "watcher", "retry": {"max_attempts": 3, "initial_s": 0.01}}]}
    async with running(url, Watcher, key=shared.key), Client(url, shared.key) as client:
        run = await outcome(client, plan=plan, input=again)
        assert (run.status, run.result) == ("completed", f"watcher.{again}")

        async def ended() -> Any:
            runs = await client.list_runs(origin=f"schedule:watcher.{again}", status="completed")
            return [await client.get_run(found.run_id) for found in runs.data]

        first = (await eventually(ended, "the run of the schedule"))[-1]
        assert first.result == [True, False]
    events = [event for event in (await shared.http.get("/v1/events", params={"types": "schedule.created"})).json()["data"]]
    [made] = [event["data"] for event in events if event["data"]["name"] == f"watcher.{again}"]
    assert made["made_by"]["run_id"] == str(run.run_id) and made["by"] == f"agent_run:{made['made_by']['agent_run_id']}"
    entries = (await shared.http.get("/v1/audit", params={"limit": 200})).json()["data"]
    assert [one["operation"] for one in entries if one["target_id"] == f"watcher.{again}"] == ["remove", "create"]


async def test_the_page(shared: System, url: str, tmp_path: Path) -> None:
    """Its agent, some of its commands in their order, and its Python."""
    space: dict[str, Any] = {}
    exec(CODE[0], space)
    exec(CODE[1], space)
    exec(CODE[2], space)
    looked = await run_agent(space["Watcher"], input={"url": "https://example.org/soon"})
    assert looked.result.startswith("watcher.look-again: next at ") and list(looked.schedules) == ["look-again"]
    assert (await run_agent(space["Watcher"], input={"url": "https://example.org/"})).result == "https://example.org/ is there"
    told: list[str] = []
    async with running(url, space["Reviewer"], key=shared.key):
        for command in ASKED:
            code, out = await tidelog(url, shared.key, command, tmp_path)
            assert code == 0, (command, out)
            told.append(out)
        async with Client(url, shared.key) as client:
            await space["create"](client)
            await client.schedules.remove("weekly-report")
    by_command = dict(zip(ASKED, told, strict=True))
    preview = next(out for command, out in by_command.items() if " preview " in command)
    assert "2027-03-28T03:00:00+02:00" in preview
    shown_one = next(out for command, out in by_command.items() if command.startswith("tidelog schedules show"))
    assert "out of turn: run " in shown_one and "30 2 * * 1-5 (Europe/Berlin)" in shown_one
    assert (await shared.http.delete("/v1/schedules/nightly-review")).status_code == 200
