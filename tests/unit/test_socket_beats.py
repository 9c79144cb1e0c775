"""Signs of life on many connections by one timer."""

import time

import pytest

from api.http.sockets import beats
from api.http.sockets.beats import Beats
from tests.kit.waiting import until


class Peer:
    def __init__(self) -> None:
        self.over = False
        self.beats = 0
        self.in_time = False

    def beat(self, *, in_time: bool) -> None:
        self.beats += 1
        self.in_time = in_time


async def test_all_have_their_beats_and_the_last_one_ends_the_timer() -> None:
    beating = Beats(0.005)
    one, other = Peer(), Peer()
    beating.add(one)
    beating.add(other)
    await until(lambda: one.beats >= 3 and other.beats >= 3)
    one.over = True
    await until(lambda: len(beating._due) == 1)
    had = one.beats
    await until(lambda: other.beats >= 6)
    assert one.beats == had
    other.over = True
    await until(lambda: beating._timer is None)
    assert not beating._due
    again = Peer()
    beating.add(again)
    await until(lambda: again.beats > 0)
    again.over = True
    await until(lambda: beating._timer is None)


async def test_a_thousand_cost_one_timer() -> None:
    beating = Beats(10.0)
    beating.add(Peer())
    timer = beating._timer
    for _ in range(1_000):
        beating.add(Peer())
    assert beating._timer is timer is not None
    timer.cancel()


async def test_a_process_that_was_stopped_does_not_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    """What came meanwhile is not read yet."""
    monkeypatch.setattr(beats, "STEP_S", 0.0)
    beating, one = Beats(0.2), Peer()
    beating.add(one)
    await until(lambda: one.beats == 1)
    time.sleep(0.35)  # noqa: ASYNC251  # that is the matter
    await until(lambda: one.beats == 2)
    assert not one.in_time
    one.over = True
