"""Projections: the runner and its failures, read models by name, lists, filters and tenants."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
import structlog

from application.engine.ports.checkpoints import Checkpoint, LostOwnership
from domain import projects
from domain.errors import Unavailable
from domain.kernel import RecordedEvent
from domain.tenants import DEFAULT_TENANT_ID
from projections.engine import checkpoints
from projections.engine.catching_up import ReadModels
from projections.engine.positions import Positions
from projections.engine.runner import ProjectionRunner
from projections.kernel import Connection, Database, Projection, decoded
from projections.registry import PROJECTIONS
from tests.integration.played_worker import Claim, PlayedWorker
from tests.integration.projection_kit import Log, log_on
from tests.integration.system_kit import System, eventually, new_id, stopped
from tests.kit.memory import MemoryPositionCalls
from tests.pace import in_time

log = structlog.get_logger(__name__)


# --- the runner -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def working(runner: ProjectionRunner) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(runner.run())
    try:
        yield task
    finally:
        await stopped(task)


async def seen(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    """A read model that shows an event that was applied twice: it inserts a row without a check."""
    for event in batch:
        project: projects.ProjectCreated = decoded(event)
        if project.name.startswith("bad"):
            raise ArithmeticError(f"cannot take {project.name}")
        if project.name.startswith("sql"):
            await connection.execute("INSERT INTO no_such_table VALUES (1)")
        await connection.execute("INSERT INTO seen VALUES (%s, %s)", (event.position, project.name))


SEEN = Projection("seen", frozenset({"project.created"}), ("seen",), seen)
PROJECTS = next(projection for projection in PROJECTIONS if projection.name == "projects")


async def test_what_breaks_a_handler_is_parked_with_what_follows_it(database_url: str) -> None:
    async with log_on(database_url, page=7) as log:
        async with log.database.connection() as connection:
            await connection.execute("CREATE TABLE seen (position bigint, name text)")
        [_, broken, _, _] = await log.create("a", "bad", "b", "sql")
        async with working(ProjectionRunner((SEEN, PROJECTS), log.database, log)):
            await log.until("seen")
        [follower, _] = await log.create("follower", "c")
        async with await psycopg.AsyncConnection.connect(log.url) as connection:  # the root of the broken event has further events
            await connection.execute("UPDATE event SET root_id = %s WHERE originator_id = %s", [broken, follower])
        async with working(ProjectionRunner((SEEN, PROJECTS), log.database, log)):  # the runner keeps the waiting roots
            await log.until("seen")
            await log.until("projects")
        parked = await log.rows("SELECT consumer, position, topic, error FROM parked_event ORDER BY position")
        assert [(consumer, position) for consumer, position, _, _ in parked] == [("seen", 2), ("seen", 4), ("seen", 5)]
        assert parked[0][3] == "ArithmeticError: cannot take bad"
        assert "no_such_table" in parked[1][3], "the cause, not what the pipeline did after it"
        assert "earlier event of the same root" in parked[2][3]
        assert await log.rows("SELECT name FROM seen ORDER BY position") == [("a",), ("b",), ("c",)]
        assert len(await log.rows("SELECT 1 FROM project")) == 6, "other projections take no notice"
        assert await checkpoints_of(log) == {"seen": 6, "projects": 6}


async def test_a_read_model_that_is_asked_for_moves_alone_and_takes_each_event_once(database_url: str) -> None:
    calls = MemoryPositionCalls()
    async with log_on(database_url) as log:
        await log.rows("CREATE TABLE seen (position bigint, name text)")
        positions = Positions(log.database, calls)

        async def write(number: int) -> None:
            for turn in range(8):
                await log.create("bad" if (number, turn) == (0, 3) else f"p{number}.{turn}")
                asked = ("seen", "projects")[(number + turn) % 2]
                await positions.until(asked, await log.feed.head(), 60)

        async with working(ProjectionRunner((SEEN, PROJECTS), log.database, log, calls)):
            await asyncio.gather(*(write(number) for number in range(4)))
            for name in ("seen", "projects"):
                await log.until(name)
        await positions.close()
        names = {f"p{number}.{turn}" for number in range(4) for turn in range(8)} - {"p0.3"}
        assert sorted(await log.rows("SELECT name FROM seen")) == sorted((name,) for name in names)
        assert await log.rows("SELECT consumer, count(*) FROM parked_event GROUP BY consumer") == [("seen", 1)]
        assert await log.rows("SELECT count(*), count(DISTINCT name) FROM project") == [(32, 32)]
        assert await checkpoints_of(log) == {"seen": 32, "projects": 32}


async def checkpoints_of(log: Log) -> dict[str, int]:
    async with log.database.connection() as connection:
        return await checkpoints.positions(connection)


async def test_a_new_read_model_catches_up_while_the_others_go_on(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an upgrade a new read model begins at the start of the log. The others do not wait for it."""
    monkeypatch.setattr("projections.engine.catching_up.FAR_BEHIND", 20)
    may_go_on = asyncio.Event()

    async def slowly(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
        if batch[-1].position > 10:
            await may_go_on.wait()

    new = Projection("new", frozenset({projects.ProjectCreated.TOPIC}), (), slowly)
    known = [projection for projection in PROJECTIONS if projection.name == "projects"]
    async with log_on(database_url, page=5) as log:
        await log.create(*(f"p{number}" for number in range(30)))
        async with log.database.connection() as connection:
            await checkpoints.take(connection, ["projects"])
            await connection.execute("UPDATE checkpoint SET position = 30 WHERE name = 'projects'")
        task = asyncio.create_task(ReadModels([new, *known], log.database, log).run())
        try:
            for number in range(3):
                await log.create(f"q{number}")

            async def position_of(name: str) -> int:
                async with log.database.connection() as connection:
                    return (await checkpoints.positions(connection)).get(name, 0)

            async def at_head(name: str) -> bool:
                return await position_of(name) == 33

            await eventually(lambda: at_head("projects"), "the read model that was there")
            assert await position_of("new") <= 15
            may_go_on.set()
            await eventually(lambda: at_head("new"), "the new read model")
            await log.create("last")
            for name in ("new", "projects"):
                await eventually(lambda name=name: reached(position_of(name), 34), name)
        finally:
            await stopped(task)


async def reached(position: Awaitable[int], wanted: int) -> bool:
    return await position == wanted


async def test_a_second_runner_takes_over_and_the_first_one_ends(database_url: str) -> None:
    async with log_on(database_url, page=7) as log:
        await log.create("a")
        first = ProjectionRunner((PROJECTS,), log.database, log)
        async with working(first) as old:
            await log.until("projects")
            async with working(ProjectionRunner((PROJECTS,), log.database, log)) as new:
                await eventually(lambda: _epoch(log, 2))
                await log.create(*"bcdefghij")
                await log.until("projects")
                with pytest.raises(LostOwnership):
                    await in_time(old, 10)
                assert not new.done()
        assert sorted(await log.rows("SELECT name FROM project")) == [(name,) for name in "abcdefghij"]
        assert await log.rows("SELECT * FROM parked_event") == []


async def _epoch(log: Log, epoch: int) -> bool:
    return await log.rows("SELECT epoch FROM checkpoint") == [(epoch,)]


class LosesAnswers:
    """The real database, but the answers to some commits are lost: the commits took place, and the caller gets an error."""

    def __init__(self, database: Database, random_: random.Random) -> None:
        self._database, self._random, self.lost = database, random_, 0

    def connection(self) -> contextlib.AbstractAsyncContextManager[Connection]:
        return self._database.connection()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        async with self._database.transaction() as connection:
            yield connection
        if self._random.random() < 0.4:
            self.lost += 1
            raise Unavailable("the answer was lost")


async def test_a_commit_whose_answer_was_lost_is_not_repeated(database_url: str) -> None:
    async with log_on(database_url, page=7) as log:
        async with log.database.connection() as connection:
            await connection.execute("CREATE TABLE seen (position bigint, name text)")
        names = [f"{'bad' if i % 9 == 4 else 'p'}{i}" for i in range(40)]
        await log.create(*names)
        database = LosesAnswers(log.database, random.Random(5))
        async with working(ProjectionRunner((SEEN, PROJECTS), database, log)) as task:
            await log.until("projects")
            await log.until("seen")
            assert not task.done()
        assert database.lost > 5
        good = [(i + 1, name) for i, name in enumerate(names) if not name.startswith("bad")]
        assert await log.rows("SELECT position, name FROM seen ORDER BY position") == good
        assert len(await log.rows("SELECT * FROM parked_event")) == len(names) - len(good)


async def test_a_saga_checkpoint_moves_on_after_a_lost_answer(database_url: str) -> None:
    async with log_on(database_url, page=7) as log:
        port = checkpoints.PostgresCheckpoints(log.database)
        mine = await port.take(["sagas:0"])
        moved = await port.advance(mine, 5)
        assert moved == await port.advance(mine, 5) == {"sagas:0": Checkpoint(5, mine["sagas:0"].epoch)}
        with pytest.raises(LostOwnership):
            await port.advance(mine, 7)
        await port.take(["sagas:0"])
        with pytest.raises(LostOwnership):
            await port.advance(moved, 6)


# --- queries ----------------------------------------------------------------------------------------------------------


async def pages(system: System, path: str, limit: int, **query: Any) -> list[list[dict[str, Any]]]:
    """Reads all pages of a list by its cursors. The `Link` header must lead to the same page."""
    head = str(await system.container.feed.head())
    found, url = [], str(system.http.build_request("GET", path, params={"limit": limit, **query}).url)
    while True:
        response = await system.http.get(url, headers={"Tidelog-Position": head})
        assert response.status_code == 200, response.text
        page = response.json()
        found.append(page["data"])
        if page["next_cursor"] is None:
            assert "link" not in response.headers
            return found
        assert f"cursor={page['next_cursor']}" in response.headers["link"]
        link = response.links["next"]["url"]
        assert link.startswith("?"), "the reference holds under each name and path by which a proxy serves the server"
        url = str(response.url.join(link))


async def test_lists_come_in_pages(system: System, worker: PlayedWorker) -> None:
    project = (await system.http.post("/v1/projects", json={"name": "second", "metadata": {"x": 1}})).json()["project_id"]
    started = [await system.start("alpha", **({"project_id": project} if i % 3 == 0 else {})) for i in range(7)]
    for run_id in started[:2]:
        await system.http.post(f"/v1/runs/{run_id}/cancel")
    await system.settled()
    for limit in (1, 3, 7, 50):
        listed = await pages(system, "/v1/runs", limit)
        assert [run["run_id"] for page in listed for run in page] == started[::-1]
        assert all(len(page) <= limit for page in listed) and (len(listed) == 1 or all(listed))
    cancelled = await pages(system, "/v1/runs", 1, status="cancelled")
    assert [run["run_id"] for page in cancelled for run in page] == started[1::-1]
    [in_project] = await pages(system, "/v1/runs", 10, project_id=project)
    assert [run["run_id"] for run in in_project] == started[::-3]
    [both] = await pages(system, "/v1/runs", 10, project_id=project, status="cancelled")
    assert [(run["run_id"], run["agents"], run["status"]) for run in both] == [(started[0], ["alpha"], "cancelled")]
    assert await pages(system, "/v1/runs", 10, project_id=new_id()) == [[]]

    assert [[a["name"] for a in page] for page in await pages(system, "/v1/agents", 2)] == [["alpha", "beta"], ["gamma"]]
    assert [t["name"] for page in await pages(system, "/v1/tools", 1) for t in page] == ["add", "mail"]
    assert [p["name"] for page in await pages(system, "/v1/projects", 1) for p in page] == ["default", "second"]


async def test_a_registration_again_is_a_new_revision(system: System, worker: PlayedWorker) -> None:
    offer = {"name": "alpha", "version": "2", "description": "new", "capabilities": ["write", "read"], "input_schema": {"x": 1}}
    tool = {"name": "add", "parameters": {"type": "object"}, "timeout_s": 5, "max_attempts": 7, "idempotent": True}
    for _ in range(2):
        await worker.register(offer, tools=[tool])
    [shown] = await pages(system, "/v1/agents", 10, capability="write")
    assert [{**offer, "revision": 2}] == [{key: agent[key] for key in (*offer, "revision")} for agent in shown]
    assert await pages(system, "/v1/agents", 10, capability="fly") == [[]]
    [tools] = await pages(system, "/v1/tools", 10)
    assert [{**tool, "revision": 2}] == [{k: t[k] for k in (*tool, "revision")} for t in tools if t["name"] == "add"]


async def test_messages_in_the_order_they_were_sent(system: System, worker: PlayedWorker) -> None:
    run_id = await system.start("alpha", "beta")
    alpha = await worker.next("alpha")
    for i in range(5):
        await alpha.ok("send", key=f"m{i}", to="beta", body=i)
    listed = await pages(system, f"/v1/runs/{run_id}/messages", 2)
    assert [[message["body"] for message in page] for page in listed] == [[0, 1], [2, 3], [4]]


# --- tenants ----------------------------------------------------------------------------------------------------------


REPORTS: dict[str, dict[str, Any]] = {
    "record": {"key": "k", "result": 1}, "call": {"key": "k2", "tool": "add", "arguments": {}}, "send": {"key": "k3", "to": "beta"},
    "receive": {"key": "k4"}, "get": {"key": "k5", "name": "n"}, "set": {"key": "k6", "name": "n", "value": 1}, "more": {},
    "complete": {}, "fail": {"error": {"type": "T", "message": "m"}}, "return": {},
}  # fmt: skip


async def test_a_second_tenant_sees_and_changes_nothing(system: System, worker: PlayedWorker) -> None:
    run_id = await system.start("alpha", "beta")
    alpha = await worker.next("alpha")
    invocation_id = await alpha.call("k", "add", a=1)
    await alpha.ok("send", key="m", to="beta", body="secret")
    project = (await system.http.post("/v1/projects", json={"name": "mine"})).json()["project_id"]
    await system.settled()
    _, key = await system.tenant("other")
    head = await system.container.feed.head()
    async with system.client(key) as other:
        assert [p["name"] for p in (await other.get("/v1/projects")).json()["data"]] == ["default"]
        for path in ("/v1/runs", "/v1/agents", "/v1/tools", "/v1/invocations", f"/v1/invocations?run_id={run_id}"):
            assert (await other.get(path)).json() == {"data": [], "next_cursor": None}
        events = (await other.get("/v1/events", params={"limit": 1000})).json()["data"]
        assert [event["type"] for event in events] == ["tenant.created", "project.created", "tenant.api_key_issued"]
        assert (await other.get("/v1/events", params={"root_id": run_id})).json()["data"] == []
        mine = (await system.events(run_id))[0]
        for path in (
            f"/v1/runs/{run_id}", f"/v1/runs/{run_id}?as_of={head}", f"/v1/runs/{run_id}/events", f"/v1/runs/{run_id}/messages",
            f"/v1/events/{mine.position}", f"/v1/invocations/{invocation_id}",
        ):  # fmt: skip
            assert (await other.get(path)).status_code == 404, path
        stream = await other.get(f"/v1/runs/{run_id}/events", headers={"Accept": "text/event-stream"})
        assert stream.status_code == 404
        error = {"type": "T", "message": "m"}
        attempts: list[tuple[str, dict[str, Any]]] = [
            (f"/v1/runs/{run_id}/cancel", {}),
            ("/v1/runs", {"agent": "alpha"}),
            ("/v1/runs", {"agent": "alpha", "project_id": project}),
            (f"/v1/agent-runs/{alpha.work_id}/complete", {"attempt": 1}),
            (f"/v1/agent-runs/{alpha.work_id}/fail", {"attempt": 1, "error": error}),
            (f"/v1/invocations/{invocation_id}/complete", {"attempt": 1}),
            (f"/v1/invocations/{invocation_id}/fail", {"attempt": 1, "error": error}),
            (f"/v1/invocations/{invocation_id}/resolve", {"result": 1, "reason": "seen"}),
        ]
        for path, body in attempts:
            assert (await other.post(path, json=body)).status_code in (403, 404), path
        assert [event for event in await system.events() if event.position > head] == [], "something was written"
        # A tenant with agents of its own still cannot take the id of another tenant's run.
        foreigner = system.worker(http=other)
        await foreigner.register("alpha")
        for report, fields in REPORTS.items():  # with the very token of the worker
            refused = await Claim(foreigner, "agent", alpha.work_id, alpha.body).post(report, **fields)
            assert (refused.status_code, refused.json()["code"]) == (403, "invalid-token"), report
        assert await foreigner.try_claim(alpha.work_id) is None and await foreigner.try_claim(invocation_id, "tool") is None
        await system.settled()
        head = await system.container.feed.head()
        taken = await other.post("/v1/runs", json={"agent": "alpha", "run_id": run_id})
        assert taken.status_code == 409 and await system.container.feed.head() == head
        foreign = await other.post("/v1/runs", json={"agent": "alpha", "project_id": project})
        assert (foreign.status_code, foreign.json()["code"]) == (404, "unknown-project")
    assert {event.tenant_id for event in await system.events(run_id)} == {DEFAULT_TENANT_ID}
