"""Projections: rows are the fold of the log after every kind of failure. Also lists, filters and tenants."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
import structlog

from adapters.postgres.pool import connect, translate_errors
from application.engine.ports.checkpoints import Checkpoint, LostOwnership
from domain import projects
from domain.errors import Unavailable
from domain.kernel import RecordedEvent
from domain.tenants import DEFAULT_TENANT_ID
from projections import runs
from projections.engine import checkpoints
from projections.engine.catching_up import ReadModels
from projections.engine.runner import ProjectionRunner
from projections.kernel import Connection, Database, Projection, decoded
from projections.registry import PROJECTIONS
from tests.integration.played_worker import Claim, PlayedWorker
from tests.integration.projection_kit import Log, log_on
from tests.integration.system_kit import System, eventually, issue_key, new_id, running, stopped
from tests.pace import in_time

log = structlog.get_logger(__name__)


# --- the read model is the replay -------------------------------------------------------------------------------------


CLAIMED = ("agent_run.claimed", "invocation.attempt_started")
OVER = {f"{kind}.{end}" for kind in ("agent_run", "invocation") for end in ("completed", "succeeded", "failed", "cancelled")}


async def act(system: System, workers: list[PlayedWorker], random_: random.Random, runs_known: list[str]) -> None:
    """Does one random action of a client or a worker, sensible or not."""
    if not runs_known or random_.random() < 0.08:
        plans: list[dict[str, Any]] = [
            {"kind": "sequential", "agents": ["alpha", "beta"]},
            {"kind": "parallel", "agents": ["alpha", "beta"], "aggregator": "gamma"},
            {"kind": "graph", "steps": [{"key": "x", "agent": "alpha", "retry": {"max_attempts": 3, "initial_s": 0.01}}]},
        ]
        runs_known.append(await system.start(plan=random_.choice(plans)))
    run_id = random_.choice(runs_known[-4:])
    if random_.random() < 0.02:
        await system.http.post(f"/v1/runs/{run_id}/cancel")
        return
    events = await system.events(run_id)
    requested = [e for e in events if e.topic in ("agent_run.requested", "invocation.requested")]
    if not requested:
        return
    over = {e.stream_id for e in events if e.topic in OVER}
    if random_.random() < 0.7:  # what is over would be nearly all in the end, and nothing happens to it
        requested = [e for e in requested if e.stream_id not in over] or requested
    calls = [e for e in requested if e.topic == "invocation.requested"]  # half of the time: agents end their calls soon
    work = random_.choice(calls if calls and random_.random() < 0.5 else requested)
    worker = random_.choice(workers)
    newest = sum(e.stream_id == work.stream_id and e.topic in CLAIMED for e in events)
    kind, dispatch, attempt = work.topic.partition(".")[0], random_.choice([1, 1, 1, 2]), newest - (random_.random() < 0.1)
    key, error = random_.choice("abcde"), {"type": "T", "message": "m", "kind": random_.choice(["permanent", "transient"])}
    acts: list[tuple[str, dict[str, Any]]]
    if kind == "invocation":
        acts = [
            ("claim", {}), ("claim", {}), ("lose", {}), ("complete", {"result": {"n": random_.random()}}),
            ("fail", {"error": error}), ("resolve", {"result": "by hand", "reason": "seen"}),
        ]  # fmt: skip
    else:
        call = ("call", {"key": "c" + key, "tool": random_.choice(["add", "mail"]), "arguments": {}})
        acts = [
            ("claim", {}), ("claim", {}), ("lose", {}), ("record", {"key": "s" + key, "result": random_.random()}), call, call,
            ("send", {"key": "m" + key, "to": random_.choice(["alpha", "beta", "x"]), "body": 1}),
            ("set", {"key": "v" + key, "name": "n", "value": random_.random()}),
            ("complete", {"result": random_.random()}), ("fail", {"error": error}),
        ]  # fmt: skip
    verb, body = random_.choice(acts)
    work_id, of = str(work.stream_id), "tool" if kind == "invocation" else "agent"
    if verb == "resolve":
        response = await system.http.post(f"/v1/invocations/{work_id}/resolve", json=body)
        assert response.status_code in (200, 404, 409, 422), response.text
    elif verb == "claim":
        await worker.try_claim(work_id, of, dispatch)
    elif attempt > 0:
        claim = await worker.as_if_held(of, work_id, run_id, attempt)
        if verb == "lose":
            await claim.lose()
        else:
            assert (await claim.post(verb, **body)).status_code in (200, 403, 404, 409, 422)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_rows_are_the_replay_of_the_log_whatever_workers_do(system: System, worker: PlayedWorker, seed: int) -> None:
    random_, started = random.Random(seed), list[str]()
    workers = [worker, system.worker("worker-2")]
    missing = {"agent_run.completed", "run.failed", "invocation.succeeded", "message.sent"}
    for done in range(400):
        await asyncio.gather(*(act(system, workers, random_, started) for _ in range(4)))
        if done % 20 == 0:
            missing -= {event.topic for event in await system.events()}
        if done > 50 and not missing:
            break
    assert not missing, "what was done led to too little"
    await eventually(lambda: _without_timers(system), "the end of all retries")
    for run_id in started:
        await assert_exact(system, run_id)
    assert await system.sql("SELECT * FROM parked_event") == []
    await assert_open_work_is_what_the_log_says(system)


async def _without_timers(system: System) -> bool:
    """A timer may fire between the two looks: its row is gone then, and what it led to is not yet in the read models."""
    head = await system.settled()
    return await system.sql("SELECT 1 FROM timer") == [] and await system.settled() == head


async def assert_exact(system: System, run_id: str) -> None:
    expected = runs.replay(await system.events(run_id))
    [(status, position)] = await system.sql("SELECT status, position FROM run WHERE run_id = %s", UUID(run_id))
    async with system.container.database.connection() as connection:
        shown = (await runs.get_run(connection, DEFAULT_TENANT_ID, UUID(run_id))).value
    assert expected is not None and shown is not None
    assert shown.model_dump() == expected.model_dump()
    assert (status, position) == (expected.status, expected.position)
    unfinished = [step.key for step in expected.steps if step.status in ("pending", "scheduled", "running", "retrying")]
    assert expected.status == "running" or unfinished == []


async def assert_open_work_is_what_the_log_says(system: System) -> None:
    last: dict[UUID, tuple[str, str]] = {}
    for event in await system.events():
        kind, _, what = event.topic.partition(".")
        if kind in ("agent_run", "invocation"):
            if what in ("requested", "resumed", "requeued"):
                last[event.stream_id] = (kind, "open")
            elif what in ("retry_scheduled", "completed", "succeeded", "failed", "resolved", "cancelled", "became_ambiguous"):
                last[event.stream_id] = (kind, "closed")
    expected = {stream_id for stream_id, (_, state) in last.items() if state == "open"}
    assert {row[0] for row in await system.sql("SELECT work_id FROM open_work")} == expected


class OwnConnections:
    """The `Database` port with a connection for each use: a connection ends with its user, like the connections of a process."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        with translate_errors():
            async with await connect(self._database_url, role="projector") as connection:
                yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        async with self.connection() as connection, connection.pipeline(), connection.transaction():
            yield connection


SHORT_LIFE_S = 0.08
NAMES = [projection.name for projection in PROJECTIONS]


async def test_a_runner_that_dies_anywhere_leaves_exact_rows(database_url: str, nats_url: str) -> None:
    async with running(database_url, nats_url, loops=["live", "relay", "sagas", "timers"]) as system:
        # The projector is killed again and again while the log grows, and started anew each time.
        random_, deaths, longest, reached = random.Random(11), 0, SHORT_LIFE_S, 0
        stop, subscription = asyncio.Event(), system.subscription

        async def projector() -> None:
            nonlocal deaths, longest, reached
            while not stop.is_set():
                task = asyncio.create_task(ProjectionRunner(PROJECTIONS, OwnConnections(database_url), subscription).run())
                await asyncio.sleep(random_.uniform(0.0, longest))
                await stopped(task)
                deaths += 1
                [(position,)] = await system.sql("SELECT coalesce(min(position), 0) FROM checkpoint WHERE name = ANY (%s)", NAMES)
                longest = SHORT_LIFE_S if position > reached else min(longest * 1.3, 2.0)  # on a slow machine work takes longer
                reached = position
            last = ProjectionRunner(PROJECTIONS, system.container.database, subscription)
            system.tasks["projections"] = asyncio.create_task(last.run(), name="projector")

        dying = asyncio.create_task(projector())
        await issue_key(system)
        worker = system.worker()
        await worker.register("alpha", "beta", "gamma", tools=["add", "mail"])
        started: list[str] = []
        for _ in range(40):
            await asyncio.gather(*(act(system, [worker], random_, started) for _ in range(4)))
        stop.set()
        await dying
        await eventually(lambda: _without_timers(system))
        assert deaths > 5
        for run_id in started:
            await assert_exact(system, run_id)
        await assert_open_work_is_what_the_log_says(system)
        assert await system.sql("SELECT * FROM parked_event") == []


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
        async with log.database.connection() as connection:  # the root of the broken event has further events
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
        assert await system.container.feed.head() == head, "something was written"
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
        assert taken.status_code == 403 and await system.container.feed.head() == head
        foreign = await other.post("/v1/runs", json={"agent": "alpha", "project_id": project})
        assert (foreign.status_code, foreign.json()["code"]) == (404, "unknown-project")
    assert {event.tenant_id for event in await system.events(run_id)} == {DEFAULT_TENANT_ID}
