"""Consumers for which the log has nothing stay where they are: for how long, and what those see who ask."""

import asyncio
from collections.abc import Sequence

import pytest

from application.engine.staying import ASKED_S, STAY_EVENTS, Stay, asked_to_move
from domain.errors import ProjectionBehind, Unavailable


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_a_consumer_stays_until_its_time_is_over() -> None:
    stay = Stay(allowed=True, seconds=3_600)
    assert stay.until is None and not stay.is_over() and stay.may_last([0, 5], 5)
    stay.passed = 5
    stay.note([0, 5])
    assert stay.until == pytest.approx(now() + 3_600, abs=60) and not stay.is_over() and stay.may_last([0, 5], 6)
    first = stay.until
    stay.passed = 6
    stay.note([0, 6])
    assert stay.until == first, "the first one that stays says when all move"
    stay.until = now()
    assert stay.is_over() and not stay.may_last([0, 6], 7)
    stay.note([6, 7])
    assert stay.until is None, "nobody stays, so nothing is to be done"


async def test_a_stay_is_bounded_by_events_and_ends_sooner_on_demand() -> None:
    stay = Stay(allowed=True, seconds=3_600)
    assert stay.may_last([0], STAY_EVENTS) and not stay.may_last([0], STAY_EVENTS + 1)
    assert stay.may_last([3, 1], STAY_EVENTS + 1) and not stay.may_last([3, 1], STAY_EVENTS + 2), "the hindmost one counts"
    assert stay.may_last([], 10 * STAY_EVENTS)
    stay.end_within(1_000)
    assert stay.until == pytest.approx(now() + 1_000, abs=60)
    stay.end_within(2_000)
    assert stay.until == pytest.approx(now() + 1_000, abs=60), "never later"
    stay.end_within(0)
    assert stay.is_over()


async def test_without_a_way_to_ask_nobody_stays() -> None:
    assert not Stay(allowed=False).may_last([0], 1)


class Owners:
    """Answers who waits for a position."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: list[tuple[str, int, float]] = []
        self._error = error

    async def until(self, name: str, position: int, timeout_s: float) -> None:
        self.asked.append((name, position, timeout_s))
        if self._error is not None:
            raise self._error


@pytest.mark.parametrize("error", [None, ProjectionBehind("behind"), Unavailable("away")])
async def test_who_is_shown_lags_asks_those_first_that_may_only_have_stayed(error: Exception | None) -> None:
    owners, head = Owners(error), 10 * STAY_EVENTS
    found = {"there": head, "ahead": head + 1, "stays": head - 1, "far": head - 2 * STAY_EVENTS, "late": head - 2 * STAY_EVENTS - 1}
    assert await asked_to_move(owners, found, head)
    assert owners.asked == [("stays", head, ASKED_S), ("far", head, ASKED_S)]


@pytest.mark.parametrize("found", [{}, {"there": 7}, {"there": 7, "ahead": 8}])
async def test_nobody_is_asked_where_nobody_stays(found: dict[str, int]) -> None:
    owners = Owners()
    assert not await asked_to_move(owners, found, 7)
    assert owners.asked == []


async def test_a_fault_of_our_own_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        await asked_to_move(Owners(ZeroDivisionError()), {"a": 1}, 2)


def test_the_bounds_are_far_from_what_makes_a_read_model_late() -> None:
    from projections.engine.catching_up import FAR_BEHIND

    bounds: Sequence[int] = (STAY_EVENTS, FAR_BEHIND)
    assert bounds[0] * 2 < bounds[1]
