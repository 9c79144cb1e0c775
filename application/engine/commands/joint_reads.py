"""Joint reads: what several callers want to read at the same time is read with one statement.

A process that claims the work of another process knows none of the streams, and a hundred claims come at once. Each caller asks for
its own stream. What is asked for while as many statements are under way as may be goes together. A caller reads at once where a
statement may begin, by the statement for one. A caller that is one of many says so, and gives the others a turn of the event loop.

No task of its own works here: the first caller of a statement reads for the others. If that caller is cancelled, the next one does.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

from domain.errors import Unavailable

TOGETHER = 64
"""Streams that one statement reads."""
AT_ONCE = 2
"""Statements under way."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
_Answer = tuple[V] | Exception | None
"""What a statement brought for one caller, or why it failed. None: the reader was cancelled, and the caller asks again."""


class JointReads(Generic[K, V]):
    def __init__(
        self,
        one: Callable[[K], Awaitable[V]],
        many: Callable[[Sequence[K]], Awaitable[Sequence[V]]],
        *,
        together: int = TOGETHER,
        at_once: int = AT_ONCE,
    ) -> None:
        """`one`, `many`: read one key, and several keys in their order."""
        self._one = one
        self._many = many
        self._together = together
        self._room = asyncio.Semaphore(at_once)
        self._open: dict[K, list[asyncio.Future[_Answer[V]]]] | None = None
        """The keys of the next statement, and those who wait for them beside its reader."""

    async def read(self, key: K, *, in_company: bool = False) -> V:
        """What is there at this moment or later. Raises what the statement raises.

        `in_company`: others read in this moment, too.
        """
        while (wanted := self._open) is not None and (key in wanted or len(wanted) < self._together):
            future: asyncio.Future[_Answer[V]] = asyncio.get_running_loop().create_future()
            wanted.setdefault(key, []).append(future)
            answer = await future
            if isinstance(answer, Exception):
                raise answer
            if answer is not None:
                return answer[0]
        return await self._lead(key, in_company)

    async def _lead(self, key: K, in_company: bool) -> V:
        wanted: dict[K, list[asyncio.Future[_Answer[V]]]] = {key: []}
        self._open = wanted
        answers: dict[K, _Answer[V]] = {}
        try:
            if in_company:
                await asyncio.sleep(0)
            async with self._room:
                self._close(wanted)
                found = [await self._one(key)] if len(wanted) == 1 else await self._many(list(wanted))
            answers = {one: (value,) for one, value in zip(wanted, found, strict=True)}
            return found[0]
        except Exception as error:
            answers = dict.fromkeys(wanted, error)
            raise
        finally:
            self._close(wanted)
            for one, waiting in wanted.items():
                for future in waiting:
                    if not future.done():
                        future.set_result(_own(answers.get(one)))

    def _close(self, wanted: dict[K, list[asyncio.Future[_Answer[V]]]]) -> None:
        if self._open is wanted:
            self._open = None


def _own(answer: _Answer[V]) -> _Answer[V]:
    """Many callers get one error, and each raise would lengthen its traceback."""
    return type(answer)(answer.message) if isinstance(answer, Unavailable) else answer
