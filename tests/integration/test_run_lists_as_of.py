"""Lists of runs as of a position: equal to what the read model listed when it was there, for every position of a log."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from uuid_utils.compat import uuid7

from application.engine.ports.log import NewEvent, StreamAppend, one_command
from application.reads import RunsWanted
from domain import runs
from domain.errors import PayloadTooLarge, ProjectionBehind
from domain.failures import Failure
from domain.kernel import Command, RecordedEvent
from domain.registry import REGISTRY
from domain.tenants import DEFAULT_TENANT_ID
from projections import moments
from projections.run_terms import PROJECTION as RUN_TERMS
from projections.runs import PROJECTION, RunQueries, walks
from tests.integration.projection_kit import (
    NO_OLD_MEMBER,
    OLD_MEMBER,
    Log,
    all_pages,
    at_every_position,
    handled,
    in_random_order,
    log_on,
)
from tests.integration.system_kit import System, request_of, served
from tidelog import Client

PROJECTS = (UUID(int=1), UUID(int=2))
OUTCOMES = ("running", "paused", "completed", "failed", "cancelled", "degraded")
FILTERS = [
    *({"status": status, "project_id": None} for status in (None, *OUTCOMES)),
    *({"status": status, "project_id": PROJECTS[0]} for status in (None, "running", "paused", "failed", "degraded")),
    *({"status": status, "agent": "b"} for status in (None, *OUTCOMES)),
    *({"status": status, "agent": "b", "project_id": PROJECTS[0]} for status in (None, "completed")),
    *({"status": status, "agent": "a", "metadata": [("to_be", "failed")]} for status in (None, "running", "failed")),
]
ERROR = Failure(type="KeyError", message="'ticket'")


@pytest_asyncio.fixture
async def log(database_url: str) -> AsyncIterator[Log]:
    async with log_on(database_url) as log:
        yield log


def life(outcome: str, project_id: UUID) -> list[Command]:
    """The commands of a run that ends so."""
    run_id = uuid7()
    plan = runs.parallel(("a", "b"), None) if outcome == "degraded" else runs.sequential(("a", "b"))
    a, b = (runs.agent_run_id_of(run_id, key) for key in ("a", "b"))
    start = runs.StartRun(run_id=run_id, project_id=project_id, plan=plan, metadata={"to_be": outcome})
    first = runs.CompleteStep(run_id=run_id, step="a", agent_run_id=a)
    match outcome:
        case "running":
            high = runs.ChangePriority(run_id=run_id, priority="high")
            return [
                start,
                high,
                runs.PauseRun(run_id=run_id),
                first,
                high.model_copy(update={"priority": "low"}),
                runs.ResumeRun(run_id=run_id),
            ]
        case "paused":
            return [start, first, runs.PauseRun(run_id=run_id, reason="look first", by="key:ann")]
        case "cancelled":
            return [start, first, runs.CancelRun(run_id=run_id)]
        case "completed":
            last = runs.CompleteStep(run_id=run_id, step="b", agent_run_id=b)
            return [start, first, runs.PauseRun(run_id=run_id), last, runs.ResumeRun(run_id=run_id)]
        case _:
            return [start, first, runs.FailStep(run_id=run_id, step="b", agent_run_id=b, error=ERROR)]


async def listed(reads: RunQueries, position: int | None, limit: int, **filters: Any) -> list[dict[str, Any]]:
    return await all_pages(reads, position, limit, lambda before: RunsWanted(limit, before, **filters))


@pytest.mark.parametrize(("looked_at", "documents"), [(20_000, False), (4, True)])
async def test_lists_at_every_position_are_those_of_then(
    log: Log, monkeypatch: pytest.MonkeyPatch, looked_at: int, documents: bool
) -> None:
    """Also where a page looks at few runs, and where runs are documents of 0.1.0."""
    reads = RunQueries(log.database)
    await in_random_order(log, looked_at, [life(outcome, project) for outcome in OUTCOMES for project in PROJECTS])
    middle = await log.feed.head() // 2

    async def change_members(recorded: RecordedEvent) -> None:
        if documents and recorded.position == 1:
            await log.rows(OLD_MEMBER)
        elif documents and recorded.position == middle:
            await log.rows(NO_OLD_MEMBER)

    async def every_list() -> list[list[dict[str, Any]]]:
        return [await listed(reads, None, 1_000, **filters) for filters in FILTERS]

    await handled(log, RUN_TERMS)  # is ahead of the runs
    then = await at_every_position(log, PROJECTION, every_list, change_members)
    [(stored,)] = await log.rows("SELECT count(view) FROM run")
    assert documents == bool(stored)
    assert all(any(lists[place] for lists in then.values()) for place in range(len(FILTERS))), "each filter found something"
    monkeypatch.setattr(moments, "LOOKED_AT", looked_at)
    monkeypatch.setattr(walks, "LOOKED_AT", looked_at)
    for position, lists in list(then.items())[:: 2 if documents else 1]:
        for filters, expected in zip(FILTERS, lists, strict=True):
            limit = 100 if position % 5 else 3
            assert await listed(reads, position, limit, **filters) == expected, (position, filters, limit)


async def test_runs_of_one_time_do_not_hide_those_before_them(log: Log) -> None:
    """Runs that started in one append have one time. As of the first of them, a page is not filled with the others."""
    started = runs.RunStarted(project_id=PROJECTS[0], plan=runs.sequential(("a",)))
    event = NewEvent(started.TOPIC, started.VERSION, REGISTRY.encode(started))
    ids = [uuid7() for _ in range(5)]
    streams = tuple(StreamAppend(run_id, run_id, 0, (event,)) for run_id in ids)
    request = request_of()
    await log.store.append(one_command(DEFAULT_TENANT_ID, request.command_id, streams, request.metadata()))
    await handled(log, PROJECTION)
    page = await RunQueries(log.database).list_as_of(DEFAULT_TENANT_ID, 1, RunsWanted(1))
    assert [run.run_id for run in page.data] == ids[:1] and page.next_cursor is None


async def test_a_list_of_a_position_that_is_not_there_or_costs_too_much_is_refused(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await log.run(end=False)
    await log.run()
    head = await log.feed.head()
    reads = RunQueries(log.database)
    with pytest.raises(ProjectionBehind):
        await reads.list_as_of(DEFAULT_TENANT_ID, head, RunsWanted(10))
    await handled(log, PROJECTION)
    monkeypatch.setattr(moments, "MAX_EVENTS", 9)
    with pytest.raises(PayloadTooLarge, match="limit"):
        await reads.list_as_of(DEFAULT_TENANT_ID, head - 1, RunsWanted(10))
    with_first = await reads.list_as_of(DEFAULT_TENANT_ID, 8, RunsWanted(10))
    assert [run.run_id for run in with_first.data] == [first], "a run that is as it was costs no counting"


async def test_the_list_over_http_and_the_sdk(shared: System) -> None:
    """By position and by time, page by page, with filters; the answer has the position. The read model is waited for."""
    player = shared.worker("of-then")
    await player.register("of-then")
    first = await shared.start("of-then")
    middle = (await shared.http.get(f"/v1/runs/{first}/events")).json()["data"][-1]
    claim = await player.next("of-then")
    await claim.complete(1)
    second = await shared.start("of-then")
    third = await shared.http.post("/v1/runs", json={"agent": "of-then"})
    position = third.json()["position"]
    now = await shared.http.get("/v1/runs", params={"as_of": position, "limit": 2})
    assert (now.status_code, now.headers["tidelog-position"]) == (200, str(position))
    assert [run["run_id"] for run in now.json()["data"]] == [third.json()["run_id"], second]
    following = await shared.http.get("/v1/runs" + now.headers["link"].split(">")[0][1:])
    assert following.json()["data"][0]["run_id"] == first and following.json()["data"][0]["status"] == "completed"
    at = middle["position"]
    for as_of in (str(at), middle["time"][:-1] + "999Z"):
        then = await shared.http.get("/v1/runs", params={"as_of": as_of, "limit": 1})
        [run] = then.json()["data"]
        assert (run["run_id"], run["status"], run["position"], run["finished_at"]) == (first, "running", at, None)
        ended = await shared.http.get("/v1/runs", params={"as_of": as_of, "status": "completed"})
        assert first not in [run["run_id"] for run in ended.json()["data"]]
    assert (await shared.http.get("/v1/runs", params={"as_of": 0})).json() == {"data": [], "next_cursor": None}
    for wrong in ("yesterday", "-1"):
        assert (await shared.http.get("/v1/runs", params={"as_of": wrong})).status_code == 422
    async with served(shared.container) as url, Client(url, shared.key) as client:
        page = await client.list_runs(as_of=at, status="running", limit=1)
        assert [str(run.run_id) for run in page.data] == [first]
