"""Checks of read models against the log, and operators' commands, over HTTP and on the command line."""

import json
import os
from asyncio.subprocess import PIPE
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from domain.agent_runs import AgentRunRequested
from projections import runs, timers
from projections.engine.rebuild import jobs
from projections.registry import PROJECTIONS
from tests.integration.played_worker import PlayedWorker
from tests.integration.projection_kit import NO_OLD_MEMBER, OLD_MEMBER, Log, building, log_on, projecting, task
from tests.integration.system_kit import System, eventually, new_id, served
from tests.kit import forked
from tests.pace import within

RUNS, TIMERS = runs.PROJECTION, timers.PROJECTION
ROOT = Path(__file__).parents[2]


async def difference(log: Log, table: str = "run") -> dict[str, Any]:
    await log.ask(RUNS, "verify")
    build = await log.until_status("runs", "different", purpose="check")
    assert build.difference is not None
    found: dict[str, Any] = json.loads(build.difference)
    assert found["table"] == table and found["position"] == build.position
    return found


async def test_what_was_changed_by_hand_is_found(database_url: str) -> None:
    async with log_on(database_url) as log, projecting(log, RUNS), building(log, RUNS):
        known = sorted(await log.runs(450))  # more rows than are fetched at once
        await log.until("runs")
        await log.ask(RUNS, "verify")
        assert (await log.until_status("runs", "equal", purpose="check")).rows == 2 * 450, "a run and its step"

        await log.rows("UPDATE run SET status = 'failed' WHERE run_id = %s", known[300])
        found = await difference(log)
        assert (found["what"], found["key"], found["column"]) == ("changed", {"run_id": str(known[300])}, "status")
        assert (found["live"], found["log"]) == ("failed", "completed")
        await log.rows("UPDATE run SET status = 'completed'")

        await log.rows("UPDATE run_step SET worker_id = 'x' WHERE run_id = %s", known[449])
        found = await difference(log, "run_step")
        assert (found["column"], found["live"], found["log"]) == ("worker_id", "x", "w")
        await log.rows("UPDATE run_step SET worker_id = 'w'")

        await log.rows("DELETE FROM run WHERE run_id >= %s", known[449])
        found = await difference(log)
        assert (found["what"], found["key"]) == ("missing", {"run_id": str(known[449])})

        await log.ask(RUNS, "rebuild", swap=True)
        await log.until_status("runs", "swapped")
        stray = new_id()
        copy = "INSERT INTO run SELECT %s, tenant_id, project_id, status, position, created_at, view, degraded FROM run LIMIT 1"
        await log.rows(copy, stray)
        found = await difference(log)
        assert (found["what"], found["key"]) == ("surplus", {"run_id": str(stray)})
        assert await log.rows("SELECT 1 FROM pg_namespace WHERE nspname = 'verify_runs'") == []


async def test_a_check_runs_beside_everything_else(database_url: str) -> None:
    """Under appends the live rows change during the comparison: the snapshot and the position must belong together."""
    async with log_on(database_url) as log, projecting(log, RUNS), building(log, RUNS):
        await log.runs(50)

        async def append() -> None:
            while True:
                await log.run()

        async with task(append):
            for _ in range(5):
                await log.ask(RUNS, "verify")
                await log.until_status("runs", "equal", purpose="check")


# --- runs that are documents of the release before ----------------------------------------------------------------------

STORE = "UPDATE run SET view = convert_to(%s, 'UTF8') WHERE run_id = %s"
NEW_FIELDS = ("call_count", "priority")


async def documents_of_0_1_0(log: Log) -> dict[UUID, str]:
    """Stores all documents as 0.1.0 does: without fields that are new, in another order."""
    stored = {}
    for run_id, text in await log.rows("SELECT run_id, convert_from(view, 'UTF8') FROM run WHERE view IS NOT NULL"):
        document = json.loads(text)
        for part in (document, *document["steps"]):
            for name in NEW_FIELDS:
                part.pop(name, None)
        stored[run_id] = json.dumps(dict(sorted(document.items())))
        assert stored[run_id] != text
        await log.rows(STORE, stored[run_id], run_id)
    return stored


async def equal(log: Log) -> jobs.Build:
    await log.ask(RUNS, "verify")
    return await log.until_status("runs", "equal", purpose="check")


async def test_documents_of_the_release_before_are_compared_by_what_they_say(database_url: str) -> None:
    async with log_on(database_url) as log, projecting(log, RUNS), building(log, RUNS):
        await log.rows(OLD_MEMBER)
        known = sorted([*await log.runs(3), await log.run(end=False)])
        await log.until("runs")
        await log.rows(NO_OLD_MEMBER)
        in_rows = await log.runs(2)
        await log.until("runs")
        stored = await documents_of_0_1_0(log)
        assert sorted(stored) == known

        check = await equal(log)
        assert check.rows == 4 + 2 * 2, "runs, and steps of those in rows"
        assert (jobs.view_of(check).difference, jobs.view_of(check).earlier_rows) == (None, 4)

        changed = stored[known[2]].replace('"worker_id": "w"', '"worker_id": "x"')
        await log.rows(STORE, changed, known[2])
        found = await difference(log)
        assert (found["what"], found["key"]) == ("changed", {"run_id": str(known[2])})
        assert (found["column"], found["live"], found["log"]) == ("view/steps/0/worker_id", "x", "w"), "the place in the document"
        view = jobs.view_of(await log.build("runs", "check"))
        assert isinstance(view.difference, dict) and "earlier_rows" not in view.difference and view.earlier_rows >= 3

        await log.rows(STORE, "{", known[2])
        found = await difference(log)
        assert (found["column"], found["live"]) == ("view", "{"), "a document that cannot be read"
        await log.rows(STORE, stored[known[2]], known[2])
        await log.rows("UPDATE run SET position = position + 1 WHERE run_id = %s", known[1])
        assert (await difference(log))["column"] == "position", "a column beside the document"
        await log.rows("UPDATE run SET position = position - 1 WHERE run_id = %s", known[1])
        await log.rows("UPDATE run SET view = NULL WHERE run_id = %s", known[3])
        assert (await difference(log))["key"] == {"run_id": str(known[3])}, "a document that is lost"
        await log.rows(STORE, stored[known[3]], known[3])
        await log.rows("UPDATE run_step SET worker_id = 'x' WHERE run_id = %s", in_rows[0])
        found = await difference(log, "run_step")
        assert (found["column"], found["live"], found["log"]) == ("worker_id", "x", "w")

        await log.ask(RUNS, "rebuild", swap=True)
        await log.until_status("runs", "swapped")
        assert await log.rows("SELECT count(*) FROM run WHERE view IS NOT NULL") == [(0,)]
        await log.rows(OLD_MEMBER)
        check = await equal(log)
        assert (check.rows, jobs.view_of(check).earlier_rows) == (2 * 6, 0), "runs in rows, also beside a process of 0.1.0"


# --- over HTTP and on the command line --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    stdout: str
    stderr: str


class CommandLine:
    """The real command, as a process of its own, against a real HTTP server."""

    def __init__(self, url: str, key: str) -> None:
        self._environment = {**os.environ, "TIDELOG_URL": url, "TIDELOG_API_KEY": key, "PYTHONPATH": str(ROOT)}

    async def __call__(self, *arguments: str, exit_code: int = 0) -> Said:
        child = await forked.tidelog(*arguments, env=self._environment, stdout=PIPE, stderr=PIPE)
        async with within(30):
            stdout, stderr = await child.communicate()
        said = Said(stdout.decode(), stderr.decode())
        assert child.returncode == exit_code, said
        return said

    async def json(self, *arguments: str, exit_code: int = 0) -> Any:
        return json.loads((await self(*arguments, "--json", exit_code=exit_code)).stdout)


async def act(system: System, worker: PlayedWorker) -> str:
    """Uses all read models: a retry with a timer, a tool call, a message, a run that ends and a run that does not end.

    The latter is a document, as 0.1.0 stores it.
    """
    run_id = await system.start("alpha", "beta")
    alpha = await worker.next("alpha")
    await alpha.call("k", "add", a=1)
    invocation = await worker.next("add", "tool")
    await invocation.fail("transient")
    await alpha.ok("send", key="m", to="beta", body={"x": 1})
    await alpha.complete({"done": True})
    await (await worker.next("beta")).complete(2)
    await system.ended(run_id)
    await system.sql(OLD_MEMBER)
    await system.start("gamma")
    await system.settled()
    await system.sql(NO_OLD_MEMBER)
    return run_id


async def test_an_operator_commands_a_running_server(system: System, worker: PlayedWorker) -> None:
    run_id = await act(system, worker)
    async with served(system.container) as url:
        await commands(system, CommandLine(url, system.key), run_id)
    _, foreign = await system.tenant("other")
    async with system.client(foreign) as other:
        for method, path in (("GET", ""), ("GET", "/runs"), ("GET", "/sagas/parked"), ("POST", "/runs/rebuild")):
            refused = await other.request(method, f"/v1/projections{path}")
            assert (refused.status_code, refused.json()["code"]) == (403, "forbidden"), path


async def commands(system: System, tidelog: CommandLine, run_id: str) -> None:
    checks = await tidelog.json("verify")
    assert {check["projection"]: check["status"] for check in checks} == {p.name: "equal" for p in PROJECTIONS}
    assert sum(check["rows"] for check in checks) > 8
    assert {check["projection"]: check["earlier_rows"] for check in checks if check["earlier_rows"]} == {"runs": 1}
    told = (await tidelog("verify", "--projection", "runs")).stdout.splitlines()
    assert len(told) == 2 and told[0].startswith("runs: equal, ")
    assert (
        told[1].startswith("  runs that are still documents of an earlier release: 1.")
        and "`tidelog projections rebuild runs`" in told[1]
    )
    rebuilt = await tidelog.json("projections", "rebuild", "runs")
    assert rebuilt["build"]["status"] == "swapped" and rebuilt["build"]["progress"] == 1 and rebuilt["previous"]["position"]
    before = await system.run(run_id)
    await system.sql("UPDATE run SET status = 'lost' WHERE run_id = %s", run_id)
    wrong = await tidelog("verify", "--projection", "runs", exit_code=1)
    assert f"run_id = {run_id}: status differ" in wrong.stdout and "table: lost" in wrong.stdout
    assert "runs: swapped" not in wrong.stdout and "not what the log says: runs" in wrong.stderr
    said = await tidelog("projections", "rollback", "runs")
    assert said.stdout == "runs: rollback swapped\n"
    assert await system.run(run_id) == before
    assert (await tidelog.json("projections", "rebuild", "messages", "--no-swap"))["build"]["status"] == "ready"
    listed = (await tidelog("projections", "list")).stdout
    assert "rebuild ready" in listed and "rollback swapped" in listed
    assert (await tidelog("projections", "parked")).stdout == "No events are parked.\n"
    assert (await system.http.post("/v1/projections/messages/swap", json={})).status_code == 202

    async def swapped() -> bool:
        return bool((await system.http.get("/v1/projections/messages")).json()["build"]["status"] == "swapped")

    await eventually(swapped)
    assert (await system.http.delete("/v1/projections/messages/previous")).json()["previous"] is None
    assert "no earlier version" in (await tidelog("projections", "rollback", "messages", exit_code=1)).stderr
    for path, status, code in (
        ("x/rebuild", 404, "not-found"),
        ("runs/cancel", 409, "invalid-state"),
        ("sagas/swap", 404, "not-found"),
    ):
        refused = await system.http.post(f"/v1/projections/{path}", json={})
        assert (refused.status_code, refused.json()["code"]) == (status, code), path
    consumers = (await system.http.get("/health/ready")).json()["consumers"]
    assert consumers.keys() >= {p.name for p in PROJECTIONS} and not [name for name in consumers if "@" in name]


async def test_what_does_not_follow_from_the_log_is_not_compared(database_url: str) -> None:
    """The process that fires timers writes one column of their table, and a release before left another one empty."""
    async with log_on(database_url) as log, projecting(log, TIMERS), building(log, TIMERS):
        run_id = new_id()
        requested = AgentRunRequested(run_id=run_id, step="s", agent="a", agent_version=None, timeout_s=3_600)
        await log.append(run_id, (new_id(), 0, [requested]))
        await log.until("timers")
        await log.rows("UPDATE timer SET set_at = NULL, no_later_than = now()")
        await log.ask(TIMERS, "verify")
        assert (await log.until_status("timers", "equal", purpose="check")).rows == 1
        await log.rows("UPDATE timer SET due_at = due_at + interval '1 second'")
        await log.ask(TIMERS, "verify")
        build = await log.until_status("timers", "different", purpose="check")
        assert json.loads(build.difference or "")["column"] == "due_at"
