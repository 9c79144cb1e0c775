"""Streams that many roots share, as the allowance of a day: what follows for them goes into the append where a command says so."""

import asyncio

from application.engine.commands.loop import CommandLoop
from tests.kit.commands import CountingStore
from tests.kit.memory import MemoryLog
from tests.kit.waiting import new_id, request_of
from tests.unit.test_follow_ups import ALL, CATALOG, ONE, masks, note, texts, to


async def test_what_is_for_a_shared_root_goes_along_where_the_command_says_so() -> None:
    """Its commands take turns with those of the shared root: none of this process is faster in between."""
    log = MemoryLog()
    store = CountingStore(log)
    loop, shared, other = CommandLoop(store, CATALOG), new_id(), new_id()
    await loop.execute(request_of(), note(shared, "begun"))
    await loop.execute(request_of(), note(other, "begun"))
    then = {"one": [to(shared, "told", root_id=str(shared))]}
    appends = store.appends
    await asyncio.gather(*(loop.execute(request_of(), note(new_id(), "end", then=then), beside=(shared,)) for _ in range(3)))
    assert texts(log)[2:] == ["end", "told", "end", "told", "end", "told"] and all(mask == ALL for mask in masks(log))
    assert store.appends - appends == 2, "those that wait go together"
    elsewhere = {"one": [to(other, "told", root_id=str(other))]}
    await loop.execute(request_of(), note(new_id(), "end", then=elsewhere), beside=(shared,))
    assert texts(log)[-1] == "end" and not masks(log)[-1] & ONE
    await loop.execute(request_of(), note(new_id(), "end", then=then))
    assert texts(log)[-1] == "end" and not masks(log)[-1] & ONE
