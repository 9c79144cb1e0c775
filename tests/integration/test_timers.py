"""Durable timers: retries, time-outs, and the reconciler that puts lost work on the queue again."""

import asyncio
import time
from collections.abc import Sequence
from uuid import UUID

import nats.js.errors
import psycopg
import pytest

from adapters.nats import JetStreamWorkQueue, NatsConnection
from adapters.postgres.database import PostgresDatabase
from adapters.postgres.listener import ChannelListener, listening
from adapters.postgres.log.identity import log_id_of
from adapters.postgres.pool import open_pool
from adapters.postgres.read_models.open_work import PostgresOpenWork
from adapters.postgres.read_models.timers import PostgresTimers
from application.engine.reconciler import WorkReconciler
from application.engine.timers import TimerService
from domain.agent_runs import MailReceived
from domain.tenants import DEFAULT_TENANT_ID
from projections.timers import CHANNEL
from tests.integration.played_worker import PlayedWorker
from tests.integration.saga_kit import Ledger, StoppingStore, ledger_on
from tests.integration.system_kit import System, append, empty_work_queue, eventually, issue_key, new_id, running, stopped
from tests.kit.budget import Reserve, Stops
from tests.pace import ANSWER_S, within

RETRY = {"max_attempts": 3, "initial_s": 0.05, "max_s": 0.1}


def plan(**step: object) -> dict[str, object]:
    return {"kind": "graph", "steps": [{"key": "a", "agent": "alpha", **step}]}


async def timers(system: System) -> list[tuple[str]]:
    return await system.sql("SELECT command FROM timer")


async def test_an_agent_run_is_tried_again_until_its_attempts_are_used_up(system: System, worker: PlayedWorker) -> None:
    run_id = await system.start(plan=plan(retry=RETRY))
    for attempt in (1, 2, 3):
        claim = await worker.next("alpha")
        assert (claim.attempt, claim.work and claim.work.dispatch) == (attempt, attempt)
        for _ in range(2):  # a repeated report gets the answer of the first report
            error = {"type": "TestError", "message": "broken", "kind": "transient"}
            assert (await claim.ok("fail", error=error))["retry"] is (attempt < 3)
    run = await system.ended(run_id)
    assert run["status"] == "failed" and run["steps"][0]["attempt"] == 3
    assert (await system.topics(run_id)).count("agent_run.retry_scheduled") == 2
    assert await timers(system) == []


async def test_a_permanent_failure_is_not_tried_again(system: System, worker: PlayedWorker) -> None:
    run_id = await system.start(plan=plan(retry=RETRY))
    assert (await (await worker.next("alpha")).fail("permanent"))["retry"] is False
    assert (await system.ended(run_id))["steps"][0]["attempt"] == 1


async def test_an_older_dispatch_is_over_once_there_is_a_newer_one(system: System, worker: PlayedWorker) -> None:
    await system.start(plan=plan(retry=RETRY))
    first = await worker.next("alpha")
    await first.fail("transient")
    assert await worker.try_claim(first.work_id, dispatch=1) is None
    second = await worker.next("alpha")
    assert await worker.try_claim(first.work_id, dispatch=1) is None
    await second.complete()


async def test_an_invocation_is_tried_again_and_honours_retry_after(system: System, worker: PlayedWorker) -> None:
    await system.start("alpha")
    alpha = await worker.next("alpha")
    invocation_id = await alpha.call("k", "add", a=1)
    began = time.monotonic()
    await (await worker.next("add", "tool")).fail("rate_limited", retry_after_s=0.4)
    second = await worker.next("add", "tool")
    assert time.monotonic() - began >= 0.4
    assert (second.attempt, second.body["work"]) == (2, invocation_id)
    await second.complete(3)
    await system.settled()
    assert (await alpha.journal())["journal"][0]["result"] == 3


async def test_an_invocation_that_must_not_be_repeated_fails_at_once(system: System, worker: PlayedWorker) -> None:
    await system.start("alpha")
    alpha = await worker.next("alpha")
    await alpha.call("k", "mail")
    await (await worker.next("mail", "tool")).fail("transient", message="connection reset")
    await system.settled()
    assert (await alpha.journal())["journal"][0]["error"]["message"] == "connection reset"
    assert await timers(system) == []


async def test_a_step_that_takes_too_long_fails(system: System, worker: PlayedWorker) -> None:
    run_id = await system.start(plan=plan(timeout_s=3_600, retry=RETRY))
    claim = await worker.next("alpha")
    waiting = await claim.call("k", "add", a=1)
    await system.settled()
    await system.sql("UPDATE timer SET set_at = now(), due_at = now()")
    await system.sql("SELECT pg_notify(%s, '')", CHANNEL)
    run = await system.ended(run_id)
    assert (run["status"], run["error"]["kind"]) == ("failed", "timeout") and "3600 s" in run["error"]["message"]
    assert run["steps"][0]["calls"][0]["status"] == "cancelled"
    assert await worker.try_claim(waiting, "tool") is None and await claim.stopped() == "timed-out"
    assert (await claim.post("complete", result=1)).json()["code"] == "work-over"


async def test_a_step_in_time_takes_its_timer_along(system: System, worker: PlayedWorker) -> None:
    run_id = await system.start(plan=plan(timeout_s=3600))
    claim = await worker.next("alpha")
    await system.settled()
    assert await timers(system) == [("TimeOutAgentRun",)]
    await claim.complete()
    await system.ended(run_id)
    assert await timers(system) == []


async def test_timers_outlive_the_process(database_url: str, nats_url: str) -> None:
    await empty_work_queue(nats_url)
    async with running(database_url, nats_url) as system:
        await issue_key(system)
        worker = system.worker()
        await worker.register("alpha")
        run_id = await system.start(plan=plan(retry=RETRY, timeout_s=900))
        await (await worker.next("alpha")).fail("transient", retry_after_s=600)
        await system.settled()
        assert sorted(await timers(system)) == [("ResumeAgentRun",), ("TimeOutAgentRun",)]
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:  # the time comes with no process
        await connection.execute("UPDATE timer SET set_at = now(), due_at = now() WHERE command = 'ResumeAgentRun'")
    async with running(database_url, nats_url, key=system.key) as later:
        worker = later.worker()
        await worker.register("alpha")
        claim = await worker.next("alpha")
        assert claim.attempt == 2
        await claim.complete("at last")
        assert (await later.ended(run_id))["result"] == "at last"


async def test_a_timer_that_cannot_fire_is_parked_and_does_not_hold_up_the_others(system: System, worker: PlayedWorker) -> None:
    """A timer names a command that this release cannot make, and another one a stream that cannot be folded."""
    waiting = await system.start(plan=plan(retry=RETRY))
    await (await worker.next("alpha")).fail("transient", retry_after_s=3_600)
    unfoldable = new_id()
    await append(system, unfoldable, unfoldable, 0, MailReceived(attempt=1, key="k", message_id=new_id()))
    await system.settled()
    await system.sql("UPDATE timer SET command = 'NoSuchCommand', set_at = now(), due_at = now()")
    await system.sql(
        """INSERT INTO timer (timer_id, tenant_id, root_id, stream_id, due_at, command, payload, correlation_id, cause)
           VALUES (%s, %s, %s, %s, now(), 'TimeOutAgentRun', %s, %s, %s)""",
        new_id(), DEFAULT_TENANT_ID, unfoldable, unfoldable, f'{{"agent_run_id": "{unfoldable}"}}', new_id(), f"{unfoldable}:1",
    )  # fmt: skip
    run_id = await system.start(plan=plan(retry=RETRY))
    await (await worker.next("alpha")).fail("transient")
    await (await worker.next("alpha")).complete()
    await system.ended(run_id)
    assert await eventually(lambda: _no_timers(system))

    parked = (await system.http.get("/v1/projections/due-timers/parked")).json()["data"]
    assert [(one["root_id"], one["topic"]) for one in parked] == [
        (waiting, "agent_run.retry_scheduled"), (str(unfoldable), "agent_run.mail_received"),
    ]  # fmt: skip
    assert parked[0]["error"].startswith("NoSuchCommand: KeyError") and parked[1]["error"].startswith("TimeOutAgentRun: ")
    assert (await system.http.get("/health/ready")).json()["parked"] == {"due-timers": 2}
    assert 'tidelog_parked_events{consumer="due-timers"} 2.0' in (await system.http.get("/metrics")).text

    retried = (await system.http.post("/v1/projections/due-timers/retry", json={})).json()["data"]
    assert [(one["root_id"], one["error"] is None) for one in retried] == [(waiting, True), (str(unfoldable), False)]
    second = await worker.next("alpha")
    assert second.attempt == 2, "the command was made anew from its event"
    await second.complete()
    await system.ended(waiting)
    again = await system.http.post("/v1/projections/due-timers/retry", json={"root_id": waiting})
    assert again.status_code == 404


async def test_timers_fire_although_the_database_clock_was_set_back(system: System, worker: PlayedWorker) -> None:
    """The clock was an hour ahead, and so are the times in the log from now on."""
    await system.sql("UPDATE log_head SET recorded_at = now() + interval '1 hour'")
    run_id = await system.start(plan=plan(retry=RETRY, timeout_s=900))
    await (await worker.next("alpha")).fail("transient")
    second = await worker.next("alpha")
    assert second.attempt == 2
    await system.settled()
    assert await system.sql("SELECT command FROM timer WHERE no_later_than < now() + interval '900 seconds'") == [
        ("TimeOutAgentRun",)
    ]
    await second.complete()
    await system.ended(run_id)


async def _no_timers(system: System) -> bool:
    return await timers(system) == []


async def test_the_sweeper_fills_a_queue_that_was_lost(system: System, worker: PlayedWorker, nats_url: str) -> None:
    """The work queue's stream is lost with all waiting items: the open work of the log comes back, and no other work."""
    await system.start("alpha")
    finished = await system.start("beta")
    await (await worker.next("beta")).complete()
    await system.ended(finished)
    await empty_work_queue(nats_url)
    with pytest.raises((nats.js.errors.Error, nats.errors.Error)):
        await worker.take("alpha", timeout_s=0.5)
    await worker.bind()
    pool = await open_pool(system.database_url, role="test", max_size=2)
    connection = NatsConnection(nats_url, name="test")
    await connection.start()
    try:
        await connection.ready(ANSWER_S)
        queue = JetStreamWorkQueue(connection, log_id=await log_id_of(pool))
        sweeper = WorkReconciler(PostgresOpenWork(PostgresDatabase(pool)), queue)
        await system.sql("UPDATE open_work SET dispatched_at = now()")  # the steps above may have taken long
        await sweeper.sweep()
        assert await worker.nothing_to_take("alpha")  # too young: the item may be on its way
        await system.sql("UPDATE open_work SET dispatched_at = now() - interval '1 minute'")
        await asyncio.gather(*(sweeper.sweep() for _ in range(3)))
    finally:
        await connection.close()
        await pool.close()
    claim = await worker.next("alpha")
    assert await worker.nothing_to_take("alpha") and await worker.nothing_to_take("beta")
    await claim.complete()


class StoppingTimers(PostgresTimers):
    def __init__(self, ledger: Ledger, listener: ChannelListener, stops: Stops) -> None:
        super().__init__(ledger.system.container.database, listener)
        self._stops = stops

    async def delete(self, timer_ids: Sequence[UUID]) -> None:
        await self._stops.at("before the deletion")
        await super().delete(timer_ids)


@pytest.mark.parametrize("moment", ["before the append", "after the append", "before the deletion"])
async def test_a_process_that_dies_at_any_moment_leaves_a_timer_fired_once(database_url: str, nats_url: str, moment: str) -> None:
    """The timer's command would be recorded as often as it is decided."""
    async with ledger_on(database_url, nats_url) as ledger, listening(database_url, CHANNEL) as listener:
        project, stops = await ledger.project(), Stops(moment)
        due = """INSERT INTO timer (timer_id, tenant_id, root_id, stream_id, due_at, command, payload, correlation_id, cause)
                 VALUES (%s, %s, %s, %s, now(), 'Reserve', %s, %s, 'test')"""
        payload = Reserve(project_id=project, amount=5).model_dump_json()
        await ledger.system.sql(due, new_id(), DEFAULT_TENANT_ID, project, project, payload, new_id())
        kinds = {"Reserve": Reserve}

        doomed = TimerService(
            ledger.commands(StoppingStore(ledger.store, stops)), StoppingTimers(ledger, listener, stops), kinds=kinds
        )
        dying = asyncio.create_task(doomed.run())
        try:
            async with within(15):
                await stops.reached.wait()
        finally:
            await stopped(dying)
        assert await ledger.reserved(project) == ([] if moment == "before the append" else [5])
        assert len(await timers(ledger.system)) == 1

        next_one = TimerService(ledger.commands(), StoppingTimers(ledger, listener, Stops("never")), kinds=kinds)
        firing = asyncio.create_task(next_one.run())
        try:

            async def fired() -> bool:
                return await timers(ledger.system) == []

            await eventually(fired, "the timer's end")
        finally:
            await stopped(firing)
        assert await ledger.reserved(project) == [5]
