"""The bound of open runs: what is refused, what counts, and how often the read model is asked."""

import asyncio
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from application.runs.admission import RunAdmission
from application.runs.start import UnknownAgent
from domain.errors import TooManyOpenRuns, TooManyOpenRunsOfTenant
from domain.runs import CancelRun
from tests.kit.engine import Engine
from tests.kit.memory import MemoryLog, MemoryOpenRuns
from tests.kit.waiting import TENANT, new_id, turns


async def bounded(most: int, of_tenant: int = 0) -> Engine:
    engine = Engine(max_open_runs=most, max_open_runs_of_tenant=of_tenant)
    await engine.set_up()
    await engine.worker().register("alpha")
    return engine


async def another_tenant(engine: Engine) -> UUID:
    tenant_id = new_id()
    await engine.set_up(tenant_id)
    await engine.worker(tenant_id=tenant_id).register("alpha")
    return tenant_id


def started(engine: Engine) -> int:
    return sum(event.topic == "run.started" for event in engine.log.events)


@pytest.mark.parametrize("lag", [0, 10**6])
async def test_a_start_beyond_the_bound_is_refused_until_a_run_has_ended(lag: int) -> None:
    """Also while the read model has not seen the runs that this process has started."""
    engine = await bounded(2)
    engine.open_runs.lag = lag
    first = await engine.start("alpha")
    await engine.start("alpha")
    for _ in range(3):
        head = engine.log.head
        with pytest.raises(TooManyOpenRuns, match="2 runs are open, and 2 may be") as refused:
            await engine.start("alpha")
        assert refused.value.retryable and engine.log.head == head
        engine.clock.advance(1)
        await turns()
    await engine.give(CancelRun(run_id=first))
    engine.open_runs.lag = 0
    engine.clock.advance(1)
    with pytest.raises(TooManyOpenRuns):  # asks for a new count, and is decided by the old one
        await engine.start("alpha")
    await turns()
    await engine.start("alpha")
    with pytest.raises(TooManyOpenRuns):
        await engine.start("alpha")


async def test_starts_that_are_under_way_count() -> None:
    engine = await bounded(3)
    answers = await asyncio.gather(*(engine.start("alpha") for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(answer, TooManyOpenRuns) for answer in answers) == 17 and started(engine) == 3


async def test_a_start_that_started_nothing_does_not_count() -> None:
    engine = await bounded(1)
    for _ in range(3):
        with pytest.raises(UnknownAgent):
            await engine.start("nobody")
    await engine.start("alpha")
    assert started(engine) == 1


async def test_a_tenant_has_a_bound_of_its_own() -> None:
    engine = await bounded(5, of_tenant=2)
    other = await another_tenant(engine)
    await engine.start("alpha")
    ended = await engine.start("alpha")
    with pytest.raises(TooManyOpenRunsOfTenant, match="2 runs of the tenant are open, and 2 may be"):
        await engine.start("alpha")
    for _ in range(2):
        await engine.start("alpha", tenant_id=other)
    await engine.give(CancelRun(run_id=ended))
    engine.clock.advance(1)
    with pytest.raises(TooManyOpenRunsOfTenant):
        await engine.start("alpha")
    await turns()
    await engine.start("alpha")
    with pytest.raises(TooManyOpenRunsOfTenant):
        await engine.start("alpha", tenant_id=other)


async def test_the_read_model_is_asked_once_a_second_and_only_while_runs_are_started() -> None:
    engine = await bounded(1_000)
    assert engine.open_runs.asked == 0
    await asyncio.gather(*(engine.start("alpha") for _ in range(100)))
    await turns()
    assert engine.open_runs.asked == 1
    engine.clock.advance(100)
    await turns()
    assert engine.open_runs.asked == 1
    for _ in range(10):
        await engine.start("alpha")
    assert engine.open_runs.asked == 2


async def test_the_count_of_before_holds_while_there_is_no_newer_one() -> None:
    engine = await bounded(2)
    await engine.start("alpha")
    engine.log.away = True
    engine.clock.advance(1)
    with capture_logs() as logs:
        with pytest.raises(Exception, match="away"):
            await engine.start("alpha")
        await turns()
    assert "open_runs_not_counted" in [entry["event"] for entry in logs]
    engine.log.away = False
    await engine.start("alpha")
    with pytest.raises(TooManyOpenRuns):
        await engine.start("alpha")


async def test_a_first_start_does_not_wait_without_end_for_a_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("application.runs.admission.FIRST_COUNT_S", 0.01)
    engine = await bounded(1)

    async def silent(*, by_tenant: bool) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(engine.open_runs, "open_runs", silent)
    await engine.start("alpha")
    with pytest.raises(TooManyOpenRuns):
        await engine.start("alpha")
    await engine.admission.close()


async def test_refusals_are_told() -> None:
    told: list[str] = []
    admission = RunAdmission(MemoryOpenRuns(MemoryLog()), most=2, most_of_tenant=1, refused=told.append)
    with admission.admitted(TENANT), admission.admitted(new_id()), pytest.raises(TooManyOpenRuns), admission.admitted(new_id()):
        pass
    with admission.admitted(TENANT), pytest.raises(TooManyOpenRunsOfTenant), admission.admitted(TENANT):
        pass
    assert told == ["too-many-open-runs", "too-many-open-runs-of-tenant"]
    await admission.close()
