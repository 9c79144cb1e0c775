"""Waiting until a read model has reached a position, so that a client can read its own writes.

The owner of the read model is called: it moves the read model at once, and tells the position. As the call or the answer may be
lost, the database is asked from time to time, and at once where nobody hears the call. One call and one question serve all waiters,
however many there are. Nothing is asked while nobody waits.
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from application.engine.background import OnDemand
from application.engine.ports.positions import Asked, PositionCalls
from domain.errors import ProjectionBehind, TidelogError, Unavailable
from projections.engine.kernel import Database, in_turns

READ = """
SELECT name, position FROM unnest(%s::text[]) AS name CROSS JOIN LATERAL checkpoint_position(name) AS position
WHERE position IS NOT NULL
"""
FIRST_PAUSE_S, LAST_PAUSE_S = 0.002, 0.05
"""Pauses between two questions of a process that cannot call the owners. They grow, and begin short again with a new waiter."""
FIRST_CALLED_PAUSE_S, LAST_CALLED_PAUSE_S = 0.05, 1.0
"""The same for a process that has called the owners, who answer within milliseconds."""
MAX_WAITING = 10_000


class _Waiter:
    __slots__ = ("called", "name", "position", "seen", "told")

    def __init__(self, name: str, position: int) -> None:
        self.name = name
        self.position = position
        self.seen: int | None = None
        """The position at the last question that was answered."""
        self.called = False
        """Whether the owner of the read model was called."""
        self.told: asyncio.Future[TidelogError | None] = asyncio.get_running_loop().create_future()

    def tell(self, error: TidelogError | None) -> None:
        if not self.told.done():
            self.told.set_result(error)


class Positions:
    """Tells the waiters of this process how far read models and other consumers of the log have come. The owner closes it."""

    def __init__(self, database: Database, calls: PositionCalls | None = None, *, hurry: Callable[[], None] = lambda: None) -> None:
        """`hurry`: lets nothing linger on the way to the consumers. Called when somebody begins to wait."""
        self._hurry = hurry
        self._database = database
        self._calls = calls
        self._waiting: dict[_Waiter, None] = {}
        self._unheard = False
        """No owner has heard the last call."""
        self._changed = asyncio.Event()
        """Set when a new waiter comes, and when the last one goes."""
        self._asking = OnDemand(self._ask_while_wanted, "positions")

    async def close(self) -> None:
        await self._asking.close()

    @property
    def asking(self) -> bool:
        """Whether the database is asked now and then, which it is while somebody waits."""
        return self._asking.running

    async def until(self, name: str, position: int, timeout_s: float) -> None:
        """Returns when a consumer's checkpoint has reached a position. Raises ProjectionBehind after the time-out, Unavailable."""
        if len(self._waiting) >= MAX_WAITING:
            raise Unavailable(f"{len(self._waiting)} requests wait already for a position")
        self._hurry()
        self._asking.start()
        waiter = _Waiter(name, position)
        self._waiting[waiter] = None
        self._changed.set()
        try:
            async with asyncio.timeout(timeout_s):
                error = await waiter.told
        except TimeoutError:
            if waiter.seen is None:
                raise Unavailable(f"the database did not say in time how far the read model '{name}' is") from None
            raise ProjectionBehind(f"the read model '{name}' is at position {waiter.seen}, not yet at {position}") from None
        finally:
            self._waiting.pop(waiter, None)
        if error is not None:
            raise error.with_traceback(None)  # all waiters share the error, and each raise would lengthen its traceback

    async def _ask_while_wanted(self) -> None:
        """Calls the owners for each new waiter at once. The database is asked only where no owner has answered for a while."""
        clock = asyncio.get_running_loop().time
        pause, look_at = 0.0, math.inf
        while self._waiting:
            self._changed.clear()
            late = clock() >= look_at
            new = [waiter for waiter in self._waiting if not waiter.called]
            called = await self._call(self._waiting if late else new)  # all are called again where nobody has answered
            if late or not called or self._unheard:
                await self._look()
                look_at = math.inf
            first, last = (FIRST_CALLED_PAUSE_S, LAST_CALLED_PAUSE_S) if called else (FIRST_PAUSE_S, LAST_PAUSE_S)
            pause = first if new else max(first, min(last, pause * 1.5 if late else pause))
            look_at = min(look_at, clock() + pause)
            if not called:
                await asyncio.sleep(FIRST_PAUSE_S)  # new waiters share the next question
            if self._waiting:
                await self._until_changed(look_at - clock())

    async def _look(self) -> None:
        """Asks the database, for all waiters."""
        self._unheard = False
        asked = list(self._waiting)
        try:
            found = await self._ask({waiter.name for waiter in asked})
        except TidelogError as error:
            await self._tell(asked, error)
            return
        for waiter in asked:
            waiter.seen = found.get(waiter.name, 0)
        await self._tell([waiter for waiter in asked if found.get(waiter.name, 0) >= waiter.position])

    async def _call(self, waiters: Iterable[_Waiter]) -> bool:
        """Whether the owners of the read models were called."""
        wanted: dict[str, Asked] = {}
        for waiter in waiters:
            waiter.called = True
            known = wanted.get(waiter.name, Asked(waiter.position, waiter.position))
            wanted[waiter.name] = Asked(min(known.lowest, waiter.position), max(known.highest, waiter.position))
        if self._calls is None:
            return False
        try:
            if wanted:
                await self._calls.ask(wanted, self._hear)
        except Unavailable:
            return False
        return True

    async def _hear(self, reached: Mapping[str, int]) -> None:
        """Takes what the owners tell. Nothing: no owner is there."""
        if not reached:
            self._unheard = True
            self._changed.set()
        await self._tell([waiter for waiter in self._waiting if reached.get(waiter.name, 0) >= waiter.position])
        if not self._waiting:
            self._changed.set()

    async def _ask(self, names: set[str]) -> dict[str, int]:
        async with self._database.connection() as connection:
            return dict(await (await connection.execute(READ, [sorted(names)])).fetchall())

    async def _tell(self, waiters: list[_Waiter], error: TidelogError | None = None) -> None:
        """Wakes the waiters in turns: each of a thousand waiters goes on to read at once."""
        async for waiter in in_turns(waiters):
            self._waiting.pop(waiter, None)
            waiter.tell(error)

    async def _until_changed(self, seconds: float) -> None:
        """Waits for a change, or some seconds."""
        if seconds > 0 and not self._changed.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait()
