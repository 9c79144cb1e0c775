"""Retrying runs: the page that tells how, and what people see and say over HTTP, with the SDK and on the command line."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from adapters.embedded import EmbeddedServices
from tests.integration.sdk_kit import KEY, Server, running, serving, worker_process
from tests.integration.system_kit import empty_work_queue, eventually, fresh_database
from tests.pages import block
from tidelog import Agent, Client, Context, PermanentError
from tidelog.errors import ConflictError, NotFoundError
from tidelog.plans import agent, each, graph, run

PAGE = "docs/how-to/retry-what-failed.md"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(services: EmbeddedServices, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    await empty_work_queue(services.nats_url)
    folder = tmp_path_factory.mktemp("server")
    async with fresh_database(services) as url, serving(url, services.nats_url, folder) as server:
        yield server


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    async with Client(server.url, KEY) as client:
        yield client


async def retried(client: Client, run_id: UUID, reason: str = "mended", **more: Any) -> None:
    """Retries a run as soon as what it left behind has ended."""

    async def said() -> bool:
        try:
            await client.retry_run(run_id, reason, **more)
        except ConflictError as refused:
            assert refused.code == "still-ending", refused
            return False
        return True

    await eventually(said, "the run goes on")


async def same_as_replayed(client: Client, run_id: UUID) -> dict[str, Any]:
    """The run as the read model has it, which is what a replay of its events gives."""

    async def found() -> dict[str, Any] | None:
        now: dict[str, Any] = await client._get(f"/v1/runs/{run_id}", {})
        then = await client._get(f"/v1/runs/{run_id}", {"as_of": str(now["position"])})
        again = await client._get(f"/v1/runs/{run_id}", {})
        assert then == now or again != now, "the read model is not what the events say"
        return now if then == now else None

    shown: dict[str, Any] = await eventually(found, "the run as replayed")
    return shown


async def test_the_page_says_what_happens(server: Server, client: Client, tmp_path: Path) -> None:
    (tmp_path / "imports.py").write_text(block(PAGE, "orders"))
    async with worker_process(server.url, tmp_path):
        started = await client.start_run(agents=["importer", "reporter"], wait_s=30)
        assert started.run is not None and started.run.status == "failed"
        failed = await same_as_replayed(client, started.run_id)
        (tmp_path / "mended").touch()
        await retried(client, started.run_id, "the last order was mended")
        run = await client.wait(started.run_id, 30)
        events = [event async for event in client.events(started.run_id)]
    assert (run.status, run.retries, run.error, run.step("reporter").result) == ("completed", 1, None, "3 orders")
    assert (tmp_path / "import.log").read_text().split("\n") == ["imported 1", "imported 2", "imported 3", ""]
    assert [event.type for event in events].count("run.retried") == 1 and events[-1].type == "run.completed"
    shown = await same_as_replayed(client, started.run_id)
    assert (shown["steps"][0]["attempt"], shown["steps"][0]["error"], shown["call_count"]) == (2, None, 3)
    before = await client._get(f"/v1/runs/{started.run_id}", {"as_of": str(failed["position"])})
    assert before == failed, "the past stays"
    now, then = {"as_of": str(shown["position"])}, {"as_of": str(failed["position"])}
    for status, when, known in (
        ("failed", then, True),
        ("completed", then, False),
        ("failed", now, False),
        ("completed", now, True),
    ):
        listed = (await client._get("/v1/runs", {"status": status, **when}))["data"]
        found = [row for row in listed if row["run_id"] == str(started.run_id)]
        assert bool(found) is known, (status, when)
        if found:
            assert (found[0]["status"], found[0]["retries"]) == (status, 1 if when is now else 0)


FAILS: set[Any] = set()


class Picky(Agent):
    async def execute(self, ctx: Context) -> Any:
        if ctx.input in FAILS:
            raise PermanentError(f"not {ctx.input}")
        return ctx.input


async def test_parts_and_child_runs_go_on_and_are_shown_as_they_are(server: Server, client: Client) -> None:
    FAILS.update({"two", "child"})
    plan = graph(
        each(agent("picky", key="items"), "input.items", max_parallel=2),
        run(graph(agent("picky", key="inner")), key="child", input_from="input.child"),
    )
    async with running(server.url, Picky):
        started = await client.start_run(plan=plan, input={"items": ["one", "two", "three"], "child": "child"}, wait_s=30)
        assert started.run is not None and started.run.status == "failed"
        await same_as_replayed(client, started.run_id)
        FAILS.discard("two")
        await retried(client, started.run_id)
        await client.wait(started.run_id, 30)
        await same_as_replayed(client, started.run_id)
        FAILS.clear()
        await retried(client, started.run_id)
        await client.wait(started.run_id, 30)
    shown = await same_as_replayed(client, started.run_id)
    assert (shown["status"], [step["result"] for step in shown["steps"]]) == ("completed", [["one", "two", "three"], "child"])
    [child] = await client.children(started.run_id)
    assert (await same_as_replayed(client, child.run_id))["retries"] >= 1
    with pytest.raises(ConflictError) as refused:
        await client.retry_run(child.run_id, "by itself")
    assert refused.value.code == "run-of-parent"
    with pytest.raises(ConflictError, match="no step of it has failed"):
        await client.retry_run(started.run_id, "once more")
    with pytest.raises(NotFoundError):
        await client.retry_run(UUID(int=1), "there is none")

    async def trail() -> list[Any] | None:
        found = await client._get("/v1/audit", {"action": "runs.retry"})
        of_run = [(e["reason"], e["result"]) for e in found["data"] if e["target_id"] == str(started.run_id)]
        return of_run if ("once more", "refused") in of_run else None

    told = await eventually(trail, "the audit trail")
    assert told.count(("mended", "done")) == 2, "the reason of each retry is in the audit trail"
