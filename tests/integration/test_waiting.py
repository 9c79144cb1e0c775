"""Waits for a run's end, or for a position: a thousand waits cost about as much as one, and no wait fails because of the number."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID

import httpx2
import pytest

from adapters.embedded import EmbeddedServices
from adapters.postgres.log.feed import PostgresEventFeed
from api.assembly.pools import Waits
from application.workers.agent_runs import load_agent_run
from domain.agents import RegisterAgent, agent_id_of
from domain.errors import ProjectionBehind
from domain.kernel import RecordedEvent
from domain.runs import CancelRun
from domain.tenants import DEFAULT_TENANT_ID
from projections.engine.positions import Positions
from tests.integration.parts_kit import hold
from tests.integration.played_worker import PlayedWorker
from tests.integration.projection_kit import CountedDatabase
from tests.integration.system_kit import System, eventually, fresh_database, issue_key, running, served, streaming
from tests.integration.wire_kit import Wire, wired
from tests.pace import slowness, slowness_lately

Read = Callable[..., Coroutine[Any, Any, list[RecordedEvent]]]


async def start(http: httpx2.AsyncClient, prefer: str, **headers: str) -> httpx2.Response:
    return await http.post("/v1/runs", json={"agent": "alpha"}, headers={"Prefer": prefer, **headers})


async def registered(system: System) -> None:
    agent_id = agent_id_of(DEFAULT_TENANT_ID, "alpha")
    await system.command(RegisterAgent(agent_id=agent_id, name="alpha", version="1"))


async def started(system: System, count: int = 1, *, requests: Sequence[asyncio.Task[httpx2.Response]] = ()) -> list[UUID]:
    """The ids of all runs. None of the requests that start them may be answered before all have begun."""

    async def there() -> list[UUID]:
        assert not [one.result().text for one in requests if one.done()]
        found = [run_id for (run_id,) in await system.sql("SELECT originator_id FROM event WHERE topic = 'run.started'")]
        return found if len(found) == count else []

    return await eventually(there, f"{count} runs", timeout_s=120)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of all reads of the log, as they are made."""
    made: list[str] = []

    def noted(name: str, read: Read) -> Read:
        async def noting(self: PostgresEventFeed, *args: Any, **options: Any) -> list[RecordedEvent]:
            made.append(name)
            return await read(self, *args, **options)

        return noting

    for name in ("read_tenant", "read_roots"):
        monkeypatch.setattr(PostgresEventFeed, name, noted(name, getattr(PostgresEventFeed, name)))
    return made


async def test_a_thousand_who_wait_for_their_runs(database_url: str, nats_url: str, reads: list[str]) -> None:
    """Each request is answered with its run, and the number of reads does not grow with the number of waits."""
    count = 1_000
    async with running(database_url, nats_url, loops=("live", "relay", "projections"), database_pool_size=8) as system:
        await issue_key(system)
        await registered(system)
        assert (await system.http.get("/v1/agents")).status_code == 200  # now the key is known here
        began = time.monotonic()
        waiting = [asyncio.create_task(start(system.http, "wait=60")) for _ in range(count)]
        run_ids = await started(system, count, requests=waiting)
        reads.clear()
        await asyncio.gather(*(system.command(CancelRun(run_id=run_id, reason="enough")) for run_id in run_ids))
        answers = await asyncio.gather(*waiting)
        assert {answer.status_code for answer in answers} == {201}
        ends = [(answer.json()["run_id"], answer.json()["run"]) for answer in answers]
        assert all(run["run_id"] == run_id for run_id, run in ends)
        statuses = {run["status"] for _, run in ends}
        assert statuses == {"cancelled"} or (statuses <= {"cancelled", "running"} and time.monotonic() - began > 60), statuses
        assert reads.count("read_roots") < count / 5 and reads.count("read_tenant") == 0


async def test_only_the_end_of_a_run_wakes_those_who_wait_for_it(system: System, worker: PlayedWorker, reads: list[str]) -> None:
    await system.events()
    waiting = asyncio.create_task(start(system.http, "wait=60"))
    [run_id] = await started(system)
    alpha = await worker.next("alpha")
    for number in range(10):
        await alpha.ok("record", key=f"step{number}", result=number)
    head = await system.settled()

    async def heard() -> bool:
        return system.container.live.position >= head

    await eventually(heard)
    assert reads.count("read_roots") == 0, "nothing has ended"
    await alpha.complete("done")
    answer = await waiting
    assert answer.json()["run"]["status"] == "completed" and answer.json()["run"]["result"] == "done"
    assert answer.json()["run_id"] == str(run_id) and reads.count("read_roots") == 0, "the process has appended all of it itself"
    read = await system.http.get(f"/v1/runs/{run_id}", headers={"Prefer": "wait=60"})
    assert read.json() == answer.json()["run"] and reads.count("read_roots") == 1


async def test_a_run_that_ended_before_is_not_waited_for(system: System, worker: PlayedWorker) -> None:
    """A repeat under the client's own id comes after the end of the run: no event will wake it."""
    body = {"agent": "alpha", "run_id": "01a22225-45d1-7341-b15d-2148f85b53ce"}
    await system.http.post("/v1/runs", json=body)
    await (await worker.next("alpha")).complete(1)
    await system.ended(body["run_id"])
    began = time.monotonic()
    again = await system.http.post("/v1/runs", json=body, headers={"Prefer": "wait=60"})
    assert again.status_code == 201 and again.json()["run"]["status"] == "completed" and time.monotonic() - began < 30


async def test_a_run_is_read_at_its_end(system: System, worker: PlayedWorker, reads: list[str]) -> None:
    """Without the read model: the answer of the wait shows the end, however far the read model is."""
    run_id = await system.start("alpha")
    alpha = await worker.next("alpha")
    path, wish = f"/v1/runs/{run_id}", {"Prefer": "wait=60"}
    await system.run(run_id)  # the read model has it
    system.tasks["projections"].cancel()
    waiting = asyncio.create_task(system.http.get(path, headers=wish))

    async def watched() -> bool:
        return bool(system.container.live.watched(UUID(run_id)))

    await eventually(watched)
    await alpha.complete("done")
    answer = await waiting
    run = answer.json()
    assert (answer.status_code, run["status"], run["result"]) == (200, "completed", "done")
    assert (answer.headers["etag"], answer.headers["tidelog-position"]) == (f'"v{run["version"]}"', str(run["position"]))
    assert answer.headers["preference-applied"] == "wait=60" and reads.count("read_roots") == 2
    assert (await system.http.get(path, headers=wish)).json() == run, "a run that has ended is not waited for"
    nobodys = await system.http.get(f"/v1/runs/{UUID(int=7)}", headers=wish)
    assert (nobodys.status_code, nobodys.json()["code"]) == (404, "not-found")


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("wait=1", 1),
        ('wait="1"', 1),
        ("wait=1;foo=bar", 1),
        ("respond-async, WAIT = 1", 1),
        ("wait=0", 0),
        ("wait=soon", 0),
        ("wait", 0),
    ],
)
async def test_forms_of_the_wish(system: System, worker: PlayedWorker, prefer: str, seconds: int) -> None:
    answer = await start(system.http, prefer)
    assert answer.status_code == 201 and ("run" in answer.json()) == bool(seconds)
    assert answer.headers.get("preference-applied") == (f"wait={seconds}" if seconds else None)


# --- after the append, never an error ---------------------------------------------------------------------------------


@asynccontextmanager
async def behind_a_wire(services: EmbeddedServices, **settings: Any) -> AsyncIterator[tuple[System, Wire]]:
    async with (
        fresh_database(services) as database_url,
        wired(database_url) as (wire, url),
        running(url, services.nats_url, **settings) as system,
    ):
        await issue_key(system)
        await registered(system)
        system.database_url = database_url
        yield system, wire


@pytest.mark.parametrize("how", ["refuses", "falls silent"])
async def test_a_run_that_was_recorded_is_answered_although_the_database_goes(
    services: EmbeddedServices, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("application.runs.await_end.LAST_READ_S", 1.0)
    async with behind_a_wire(services) as (system, wire):
        seconds = min(60, round(2 * await slowness_lately()))  # the database must be away before the wait is over
        waiting = asyncio.create_task(start(system.http, f"wait={seconds}", **{"Idempotency-Key": "k"}))

        async def recorded() -> Any:
            return await system.sql("SELECT originator_id FROM event WHERE topic = 'run.started'")

        [(run_id,)] = await eventually(recorded)
        # The writer writes one batch after the other: with the answer to this one it has the answer to the start.
        assert (await system.http.post("/v1/projects", json={"name": "after"})).status_code == 201
        if how == "refuses":
            await wire.cut()
        else:
            wire.mute()
        answer = await waiting
        assert answer.status_code == 201 and answer.json().keys() == {"run_id", "position", "version"}, answer.text
        assert answer.json()["run_id"] == str(run_id) and answer.headers["tidelog-position"] == str(answer.json()["position"])
        await (wire.mend() if how == "refuses" else wire.unmute())

        async def found() -> httpx2.Response | None:
            again = await start(system.http, "wait=0", **{"Idempotency-Key": "k"})
            assert again.status_code in (201, 503), again.text
            return again if again.status_code == 201 else None

        again = await eventually(found)
        assert again.json()["run_id"] == str(run_id) and again.headers["idempotency-replayed"] == "true"
        assert await recorded() == [(run_id,)]


async def test_a_defect_in_the_view_leaves_the_answer_alone(
    system: System, worker: PlayedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(view: object, recorded: RecordedEvent) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("projections.replays.evolve_view", broken)
    answer = await start(system.http, "wait=1")
    assert answer.status_code == 201 and answer.json().keys() == {"run_id", "position", "version"}


async def test_a_claim_that_was_recorded_is_answered_although_nothing_can_be_read(database_url: str, nats_url: str) -> None:
    """A claim rests on the states that its append rested on. The repeated claim gets the same answer."""
    async with running(database_url, nats_url, given={"waits": Waits(commands_s=1.0)}) as system:
        await issue_key(system)
        worker = system.worker()
        await worker.register("alpha")
        run_id = await system.start("alpha")
        work = await worker.take("alpha")
        await load_agent_run(system.container.commands, DEFAULT_TENANT_ID, UUID(work.work_id))  # now it is in the cache
        async with AsyncExitStack() as stack:
            await hold(stack, system, "command_database")
            answered = await worker.claim(work.work_id, claim="one")
            assert "agent_run.claimed" in await system.topics(run_id)
        claim = await worker.claim(work.work_id, claim="one")
        assert claim.attempt == 1 and claim.body["agent"] == "alpha"
        assert {**claim.body, "n": 0} == {**answered.body, "n": 0}
        assert (await system.topics(run_id)).count("agent_run.claimed") == 1


# --- positions --------------------------------------------------------------------------------------------------------


async def test_questions_do_not_grow_with_those_who_wait_for_a_position(system: System) -> None:
    database = CountedDatabase(system.container.database)
    positions = Positions(database)
    head = await system.settled()
    waiting = [asyncio.create_task(positions.until(name, head + 1, 60)) for name in ("projects", "runs") for _ in range(1_000)]
    seconds = await slowness()  # the database must have answered before they are over
    late = [asyncio.create_task(positions.until("projects", head + 1_000_000, seconds)) for _ in range(1_000)]
    for answer in await asyncio.gather(*late, return_exceptions=True):
        assert isinstance(answer, ProjectionBehind) and f"is at position {head}, not yet" in answer.message
    assert database.asked < 500, "3,000 waited for a second"
    await system.http.post("/v1/projects", json={"name": "p"})
    await asyncio.gather(*waiting)

    async def at_rest() -> bool:
        return not positions.asking

    await eventually(at_rest, "the end of the questions: nobody waits")
    await positions.close()


async def test_who_waits_for_a_position_without_a_database_is_told(services: EmbeddedServices) -> None:
    async with behind_a_wire(services, read_timeout_s=60.0) as (system, wire):
        waiting = [asyncio.create_task(system.http.get("/v1/runs", headers={"Tidelog-Position": "999999"})) for _ in range(20)]
        await asyncio.sleep(0)
        await wire.cut()
        for answer in await asyncio.gather(*waiting):
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        await wire.mend()


async def test_a_flood_of_waits_for_a_position_leaves_room_for_others(database_url: str, nats_url: str) -> None:
    patience_s = min(60, 3 * await slowness())  # the setting allows no more
    async with running(database_url, nats_url, read_timeout_s=patience_s, database_pool_size=8) as system:
        await issue_key(system)
        await registered(system)
        assert (await system.http.get("/v1/agents")).status_code == 200  # now the key is known here
        system.tasks["projections"].cancel()
        late = {"Tidelog-Position": (await start(system.http, "wait=0")).headers["tidelog-position"]}
        beyond = {"Tidelog-Position": "999999999999"}
        flood = [asyncio.create_task(system.http.get("/v1/runs", headers=late)) for _ in range(1_500)]
        nonsense = [asyncio.create_task(system.http.get("/v1/runs", headers=beyond)) for _ in range(1_500)]
        while not all(task.done() for task in flood + nonsense):
            read, posted = await asyncio.gather(
                system.http.get("/v1/runs"), start(system.http, "wait=0", **{"Idempotency-Key": "k"})
            )
            assert (read.status_code, posted.status_code) == (200, 201)
        assert {task.result().status_code for task in flood} == {504}
        assert {task.result().status_code for task in nonsense} == {410}


# --- streams of a run -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["completed", "cancelled"])
async def test_reads_do_not_grow_with_the_streams_of_a_run(
    system: System, worker: PlayedWorker, reads: list[str], end: str
) -> None:
    count = 40
    run_id = await system.start("alpha")
    alpha = await worker.next("alpha")
    async with served(system.container) as url, AsyncExitStack() as stack:
        path = f"/v1/runs/{run_id}/events"
        streams = [await stack.enter_async_context(streaming(url, system.key, path)) for _ in range(count)]
        for stream in streams:
            assert (await stream.next()).event == "run.started"

        async def listening() -> bool:
            return system.container.live.listeners == count

        await eventually(listening)
        reads.clear()
        for number in range(10):
            await alpha.ok("record", key=f"step{number}", result=number)
        for stream in streams:
            while (await stream.next()).event != "agent_run.step_recorded":
                pass
        assert reads == [], "what happens is told to all of them by the one reader of the log"
        if end == "completed":
            await alpha.complete("done")
        else:
            await system.http.post(f"/v1/runs/{run_id}/cancel")
        ends = await asyncio.gather(*(stream.rest() for stream in streams))
        told = {tuple(event.event for event in events) for events in ends}
        assert len(told) == 1, "all are told the same"
        [events] = told
        assert events[-1] == "end" and f"run.{end}" in events and ("agent_run.cancelled" in events) == (end == "cancelled")
        assert reads == [], "the events themselves tell the end"


async def test_runs_are_replayed_page_by_page_and_only_for_their_tenant(
    system: System, worker: PlayedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.replays.PAGE", 3)
    tenant_id, _ = await system.tenant("other")
    run_ids = [await system.start("alpha", "beta") for _ in range(3)]
    for _ in run_ids:
        await (await worker.next("alpha")).complete(1)
    await system.settled()
    shown: Sequence[dict[str, Any]] = [await system.run(run_id) for run_id in run_ids]
    replays = system.container.replays
    found = await asyncio.gather(*(replays.now(DEFAULT_TENANT_ID, UUID(run_id)) for run_id in run_ids))
    assert [run.view.model_dump(mode="json") | {"result": run.view.result} for run in found if run] == shown
    assert await asyncio.gather(*(replays.now(tenant_id, UUID(run_id)) for run_id in run_ids)) == [None] * 3
