"""Lines of agents and tools at a process of the server: whose they are, what is bounded, and what becomes of the rest."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from application.engine.ports.work_logs import MOST_BYTES, MOST_LINES
from application.runs.logs import lines_of_run
from application.views.work_logs import WorkLineView
from application.workers.hosting import logs as module
from application.workers.hosting.messages import Call, Complete, Log, LoggedLine, WorkForAgent, WorkForTool
from domain.tenants import CreateTenant, IssueApiKey
from tests.kit.engine import Engine
from tests.kit.hosting import KEY, Hosting, SpeakingWorker, hosting
from tests.kit.waiting import TENANT, until

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine()
    await engine.set_up()
    await engine.give(CreateTenant(tenant_id=TENANT, name="t"))
    await engine.give(IssueApiKey(tenant_id=TENANT, key_id=KEY, label="", sha256=f"{KEY.int:064x}"))
    async with engine.running():
        yield engine


@pytest_asyncio.fixture
async def process(engine: Engine) -> AsyncIterator[Hosting]:
    async with hosting(engine) as found:
        yield found


async def at_work(process: Hosting) -> tuple[SpeakingWorker, WorkForAgent]:
    worker = process.connect()
    await worker.hello(["writer"], ["mail"])
    worker.credit(agent=1, tool=1)
    await process.engine.start("writer")
    return worker, await worker.hears(WorkForAgent)


def say(worker: SpeakingWorker, of: WorkForAgent | WorkForTool, *texts: str, dropped: int = 0, **other: Any) -> None:
    lines = tuple(LoggedLine(at=AT, level="info", text=text) for text in texts)
    fields: dict[str, Any] = {"work": of.work_id, "attempt": of.claimed.attempt, "token": of.token} | other
    worker.session.take(Log(t="log", lines=lines, dropped=dropped, **fields), sum(map(len, texts)) + 100)


async def shown(engine: Engine, run_id: UUID, tenant_id: UUID = TENANT) -> list[WorkLineView]:
    given: dict[str, Any] = {"level": None, "agent": None, "step": None}
    return (await lines_of_run(engine.work_logs, tenant_id, run_id, after=0, limit=100_000, **given)).data


async def lines(engine: Engine, run_id: UUID, count: int) -> list[WorkLineView]:
    await until(lambda: len(engine.work_logs.runs[TENANT, run_id].lines) >= count, f"{count} lines")
    return await shown(engine, run_id)


async def test_lines_have_the_run_the_step_and_the_agent_of_their_work(engine: Engine, process: Hosting) -> None:
    worker, work = await at_work(process)
    say(worker, work, "of the agent")
    await worker.done(work, Call, key="k", tool="mail", arguments={})
    call = await worker.hears(WorkForTool)
    say(worker, call, "of the tool")
    first, second = await lines(engine, work.claimed.run_id, 2)
    assert (first.line, first.step, first.agent, first.tool, first.attempt, first.text) == (
        1,
        "writer",
        "writer",
        None,
        1,
        "of the agent",
    )
    assert (second.step, second.agent, second.tool, second.invocation_id) == ("writer", "writer", "mail", call.work_id)
    assert (first.at, first.level, first.dropped) == (AT, "info", None)
    assert await shown(engine, work.claimed.run_id, uuid4()) == []


async def test_lines_may_come_after_the_end_of_their_work(engine: Engine, process: Hosting) -> None:
    worker, work = await at_work(process)
    await worker.done(work, Complete, result=None)
    say(worker, work, "late")
    assert [line.text for line in await lines(engine, work.claimed.run_id, 1)] == ["late"]


@pytest.mark.parametrize("wrong", [{"token": "wrong"}, {"attempt": 2}, {"work": uuid4()}])
async def test_lines_with_another_token_are_nobodys(engine: Engine, process: Hosting, wrong: dict[str, Any]) -> None:
    worker, work = await at_work(process)
    say(worker, work, "forged", **wrong)
    say(worker, work, "real")
    assert [line.text for line in await lines(engine, work.claimed.run_id, 1)] == ["real"]
    assert len(engine.work_logs.runs) == 1


async def test_a_text_that_the_database_refuses_is_made_one_that_it_takes(engine: Engine, process: Hosting) -> None:
    worker, work = await at_work(process)
    say(worker, work, "a\x00b", "half \ud800 pair", "x" * 1_000_000, "\N{WATER WAVE}" * 5_000, "")
    nul, half, long, waves, empty = (line.text for line in await lines(engine, work.claimed.run_id, 5))
    assert (nul, half, empty) == ("a\ufffdb", "half ? pair", "")
    assert len(long) <= MOST_BYTES and long.endswith("x… [cut: 1,000,000 bytes]")
    assert MOST_BYTES - 4 < len(waves.encode()) <= MOST_BYTES and waves.endswith("\N{WATER WAVE}… [cut: 20,000 bytes]")


async def test_a_run_keeps_its_first_lines_and_says_how_many_are_missing(engine: Engine, process: Hosting) -> None:
    worker, work = await at_work(process)
    for start in range(0, 12_000, 500):
        say(worker, work, *(str(number) for number in range(start, start + 500)))
    run = engine.work_logs.runs[TENANT, work.claimed.run_id]
    await until(lambda: run.beyond == 2_000, "all lines are counted")
    found = await shown(engine, work.claimed.run_id)
    assert [line.text for line in found[:-1]] == [str(number) for number in range(MOST_LINES)]
    last = found[-1]
    assert (last.line, last.dropped, last.level) == (None, 2_000, "warning")
    assert last.text == "2,000 lines were dropped: 2,000 because a run keeps 10,000 lines"


async def test_what_the_worker_had_no_room_for_is_told(engine: Engine, process: Hosting) -> None:
    worker, work = await at_work(process)
    say(worker, work, "kept", dropped=1)
    kept, last = await lines(engine, work.claimed.run_id, 1)
    assert (kept.text, last.text) == ("kept", "1 line was dropped: 1 because the worker or the server was behind")


async def test_during_an_outage_lines_wait_within_bounds_and_the_rest_is_counted(engine: Engine, process: Hosting) -> None:
    worker, work = await at_work(process)
    say(worker, work, "known")
    await lines(engine, work.claimed.run_id, 1)
    engine.log.away = True
    most = module.MOST_WAITING_LINES // 2
    for start in range(0, most + 1_000, 500):
        say(worker, work, *(str(number) for number in range(start, start + 500)))
    engine.log.away = False
    run = engine.work_logs.runs[TENANT, work.claimed.run_id]
    await until(lambda: run.lost, "the lost lines are counted")
    assert run.lost == 1_000 and run.last + run.beyond == most + 1


async def test_the_lines_of_a_turn_are_one_write(engine: Engine, process: Hosting) -> None:
    worker, work = await at_work(process)
    for number in range(100):
        say(worker, work, str(number))
    await lines(engine, work.claimed.run_id, 100)
    assert engine.work_logs.writes == 1


async def test_when_the_process_stops_the_rest_is_written(engine: Engine) -> None:
    async with hosting(engine) as process:
        worker, work = await at_work(process)
        say(worker, work, "last")
    assert [line.text for line in await shown(engine, work.claimed.run_id)] == ["last"]
