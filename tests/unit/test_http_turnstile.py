"""Requests begin in portions, in the order of their arrival, and other work has its turn in between."""

import asyncio
from functools import partial
from itertools import pairwise

from api.http.conventions.turnstile import Turnstile
from tests.kit.waiting import turns


async def test_a_crowd_begins_in_portions_in_order() -> None:
    turnstile, begun = Turnstile(most=3), list[int]()
    for number in range(8):
        turnstile.admit(partial(begun.append, number))
    assert begun == [0, 1, 2], "the first begin at once"
    sizes = []
    for _ in range(4):
        await asyncio.sleep(0)
        sizes.append(len(begun))
    assert begun == list(range(8)) and max(after - before for before, after in pairwise(sizes)) <= 3
    assert sizes[0] <= 6, "a portion for each turn"


async def test_who_comes_while_others_wait_is_behind_them() -> None:
    turnstile, begun = Turnstile(most=1), list[str]()
    for name in "abc":
        turnstile.admit(partial(begun.append, name))
    await asyncio.sleep(0)
    turnstile.admit(partial(begun.append, "d"))
    await turns()
    assert begun == ["a", "b", "c", "d"]


async def test_a_quiet_time_leaves_nothing_behind() -> None:
    turnstile, begun = Turnstile(most=2), list[int]()
    for number in range(5):
        turnstile.admit(partial(begun.append, number))
        await turns()
        assert begun == list(range(number + 1)), "nobody waits for a portion"
    assert not turnstile._waiting and turnstile._left == 2


async def test_a_request_that_cannot_begin_holds_up_no_other() -> None:
    turnstile, begun = Turnstile(most=1), list[int]()

    def broken() -> None:
        raise RuntimeError("broken")

    errors: list[object] = []
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
    try:
        turnstile.admit(partial(begun.append, 0))
        turnstile.admit(broken)
        turnstile.admit(partial(begun.append, 1))
        await turns()
    finally:
        loop.set_exception_handler(before)
    assert begun == [0, 1] and [str(error) for error in errors] == ["broken"]
