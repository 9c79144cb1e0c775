"""Who waits for a position of a read model pulls it, although read models and sagas wait for company otherwise."""

import asyncio
from collections.abc import Mapping

import pytest

from application.engine.ports.positions import Asked, Told
from application.engine.sagas.manager import PARTITIONS
from domain.errors import ProjectionBehind, Unavailable
from projections.engine.positions import Positions
from tests.integration.projection_kit import CountedDatabase
from tests.integration.system_kit import System, issue_key, running
from tests.kit.memory import MemoryPositionCalls
from tests.kit.waiting import until
from tests.pace import slowness

NEVER_S = 3_600.0


async def positions(system: System, pattern: str) -> set[int]:
    return {row[0] for row in await system.sql("SELECT position FROM checkpoint WHERE name LIKE %s", pattern)}


async def write_and_read(system: System, name: str) -> int:
    """Returns the position of what was written."""
    answer = await system.http.post("/v1/projects", json={"name": name})
    position = answer.headers["tidelog-position"]
    listed = await system.http.get("/v1/projects", headers={"Tidelog-Position": position})
    assert name in {project["name"] for project in listed.json()["data"]}
    return int(position)


async def test_who_waits_for_a_position_pulls_it(database_url: str, nats_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projections.engine.runner.PACE_S", NEVER_S)
    monkeypatch.setattr("projections.engine.runner.LINGER_S", NEVER_S)  # the first batch knows no pace
    monkeypatch.setattr("application.engine.sagas.manager.LAG_S", NEVER_S)
    monkeypatch.setattr("adapters.postgres.log.own_appends.LINGER_S", NEVER_S)
    async with running(database_url, nats_url) as system:
        await issue_key(system)
        for number in range(3):
            before = await positions(system, "projects")
            position = await write_and_read(system, f"p{number}")
            assert max(before) < position
            assert max(await positions(system, "agents")) < position, "the other read models keep their pace"
        assert max(await positions(system, "sagas:%")) < position, "nobody has waited for them"
        await asyncio.gather(*(system.container.positions.until(name, position, 10) for name in PARTITIONS))
        assert await positions(system, "sagas:%") == {position}


async def test_who_waits_for_a_position_lets_nothing_linger_on_the_way(system: System) -> None:
    hurried: list[int] = []
    waits = Positions(system.container.database, hurry=lambda: hurried.append(1))
    head = await system.settled()
    for number in (1, 2):
        await waits.until("projects", head, 10)
        assert len(hurried) == number
    await waits.close()


class Owner(MemoryPositionCalls):
    """Answers a call when the test lets it."""

    def __init__(self, *answers: Mapping[str, int]) -> None:
        super().__init__()
        self.answers = list(answers)

    async def ask(self, wanted: Mapping[str, Asked], told: Told) -> None:
        while self.answers:
            await told(self.answers.pop(0))


async def test_the_database_is_asked_only_where_no_owner_answers(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projections.engine.positions.FIRST_CALLED_PAUSE_S", NEVER_S)
    monkeypatch.setattr("projections.engine.positions.LAST_CALLED_PAUSE_S", NEVER_S)
    database, head = CountedDatabase(system.container.database), await system.settled()
    answered = Positions(database, Owner({"runs": head}, {"projects": head}))
    await asyncio.gather(answered.until("projects", head, 60), answered.until("runs", head, 60))
    assert database.asked == 0
    unheard = Positions(database, Owner({}))
    await unheard.until("projects", head, 60)
    assert database.asked == 1, "nobody hears the call: the database knows"
    for waits in (answered, unheard):
        await waits.close()


async def test_without_calls_a_read_waits_no_longer_than_read_models_do(database_url: str, nats_url: str) -> None:
    class Deaf(MemoryPositionCalls):
        async def ask(self, wanted: Mapping[str, Asked], told: Told) -> None:
            raise Unavailable("nobody hears it")

    async with running(database_url, nats_url, given={"position_calls": Deaf()}) as system:
        await issue_key(system)
        for number in range(3):
            await write_and_read(system, f"p{number}")


async def test_lost_calls_are_made_up_for(database_url: str, nats_url: str) -> None:
    """NATS takes each call, and no answer comes back."""

    class Losing(MemoryPositionCalls):
        asked = 0

        async def ask(self, wanted: Mapping[str, Asked], told: Told) -> None:
            self.asked += 1

    calls = Losing()
    async with running(database_url, nats_url, given={"position_calls": calls}) as system:
        await issue_key(system)
        head = await system.settled()
        waiting = asyncio.create_task(system.container.positions.until("projects", head + 1, 60))
        await until(lambda: calls.asked > 0, "the first call, before there is such a position")
        for number in range(3):
            await write_and_read(system, f"p{number}")
        await waiting
        head = await system.settled()
        asked = calls.asked
        with pytest.raises(ProjectionBehind, match=f"is at position {head}, not yet at"):
            await system.container.positions.until("projects", head + 1, 0.5 * await slowness())
        assert 2 <= calls.asked - asked <= 20, "a call is repeated, and ever more seldom"
