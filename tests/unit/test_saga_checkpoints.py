"""When the checkpoints of sagas move: with what a saga had to do, for who waits, and else seldom."""

import asyncio
from collections.abc import Mapping

import pytest

from application.engine.ports.checkpoints import Checkpoint
from application.engine.ports.log import NewEvent, StreamAppend, one_command
from application.engine.ports.positions import Asked
from application.engine.sagas.manager import PARTITIONS
from tests.kit.budget import TOTALS
from tests.kit.memory import MemoryCheckpoints
from tests.kit.waiting import TENANT, new_id, turns, until
from tests.pace import Deadline
from tests.unit.test_saga_loop import Sagas, of_partition


@pytest.fixture
def sagas() -> Sagas:
    return Sagas()


async def foreign(sagas: Sagas) -> None:
    """Appends an event that no saga reacts to."""
    stream = new_id()
    await sagas.store.append(
        one_command(TENANT, new_id(), (StreamAppend(stream, stream, 0, (NewEvent("foreign", 1, b"{}"),)),), "{}")
    )


async def test_checkpoints_move_seldom_for_events_that_no_saga_reacts_to(sagas: Sagas) -> None:
    """Not with each batch: most events concern no saga, and each move is a transaction."""
    moves: list[int] = []

    class Counting(MemoryCheckpoints):
        async def advance(self, behind: dict[str, Checkpoint], position: int) -> dict[str, Checkpoint]:
            moves.append(position)
            return await super().advance(behind, position)

    async with sagas.working(sagas.manager(checkpoints=Counting(sagas.log))):
        for _ in range(5):
            await foreign(sagas)
            await turns(3)
        await until(lambda: moves and moves[-1] == 5)
    assert len(moves) < 5


async def test_checkpoints_move_at_once_for_who_waits_for_them(sagas: Sagas) -> None:
    sagas.lag_s = 3600
    heard: dict[str, int] = {}

    async def told(reached: Mapping[str, int]) -> None:
        heard.update(reached)

    async with sagas.working():
        for position in (1, 2, 3):
            await foreign(sagas)
            await turns()
            assert sagas.positions() <= {0, position - 1}, "nobody waits"
            await sagas.calls.ask({"sagas:3": Asked(position, position), "elsewhere": Asked(1, 1)}, told)
            await until(lambda position=position: heard == {"sagas:3": position})
            assert sagas.positions(["sagas:3"]) == {position}
            assert sagas.positions(["sagas:4"]) == {0}, "nobody waits for the others, and nothing was theirs"


async def test_what_a_saga_has_to_do_is_done_at_once_with_all_that_came_before(sagas: Sagas) -> None:
    sagas.lag_s = 3600
    async with sagas.working():
        await foreign(sagas)
        await turns()
        assert sagas.positions() <= {0}
        project_id = await sagas.project()
        await until(lambda: sagas.reserved(project_id) == TOTALS)
        await until(lambda: min(sagas.positions()) >= 2)


async def test_what_others_have_to_do_moves_no_checkpoint(sagas: Sagas) -> None:
    """The process has one partition, and a saga has to react to an event of another one."""
    sagas.lag_s = 3600
    async with sagas.working(sagas.manager(partitions=PARTITIONS[:1])):
        await sagas.project(of_partition(PARTITIONS[1]))
        await turns()
        assert sagas.positions() == {0}
        mine = await sagas.project(of_partition(PARTITIONS[0]))
        await until(lambda: sagas.reserved(mine) == TOTALS)
        await until(lambda: min(sagas.positions()) >= 2)


async def test_checkpoints_move_although_the_log_never_pauses(sagas: Sagas) -> None:
    sagas.lag_s = 0.03
    async with sagas.working():
        deadline = Deadline(10)
        while not max(sagas.positions(), default=0):
            await foreign(sagas)
            await asyncio.sleep(0.005)
            assert not await deadline.over(), "each event began a new lag"
