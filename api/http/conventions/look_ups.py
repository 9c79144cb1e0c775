"""Look-ups of what strangers show, by its hash: many in one query, and one query at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

from application.engine.background import end
from domain.errors import TidelogError, Unavailable

T = TypeVar("T")

PACE_S = 0.25
"""Seconds after a query with a wrong secret, and after one about secrets in use."""
MOST_ASKED = 10_000
"""Secrets in one query. Callers with further ones are refused as Unavailable meanwhile."""
PATIENCE_S = 30.0
"""Seconds that a caller waits for its look-up. A database that is away is told much sooner. This is for a process that a burst of
requests keeps busy: a secret in use may have to be looked up in the middle of the burst."""

Found = tuple[Mapping[str, T | Exception], Exception]
"""What was found by hash, and the error for callers with any other."""


class LookUps(Generic[T]):
    """So callers with wrong secrets, however many, cost four queries a second. While nobody shows a wrong one, a valid one is asked
    about at once.
    """

    def __init__(self, what: str, find: Callable[[Sequence[str]], Awaitable[Found[T]]], known: Callable[[str], bool]) -> None:
        """`what`: the secrets, in the plural. `known`: whether one of this hash is in use here."""
        self._what = what
        self._find = find
        self._is_known = known
        self._asked: dict[str, asyncio.Future[T | Exception]] = {}
        self._looking: asyncio.Task[None] | None = None
        """Runs while secrets are asked for, and PACE_S longer."""

    async def answer(self, digest: str) -> T:
        """The answer of the next query about a secret. Raises the error that was found, and Unavailable."""
        asked = self.ask(digest)
        if asked is None:
            raise Unavailable(f"too many unknown {self._what} at once")
        try:
            async with asyncio.timeout(PATIENCE_S):
                found = await asyncio.shield(asked)
        except TimeoutError:
            raise Unavailable(f"the {self._what} of the requests could not be looked up in time") from None
        match found:
            case TidelogError():
                raise type(found)(found.message)  # a new error for each caller
            case Exception():
                raise found
            case _:
                return found

    def ask(self, digest: str) -> "asyncio.Future[T | Exception] | None":
        """The answer of the next query about a secret. None if the query has too many already."""
        asked = self._asked.get(digest)
        if asked is None and len(self._asked) < MOST_ASKED:
            asked = self._asked[digest] = asyncio.get_running_loop().create_future()
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look_up(), name=f"look-up-{self._what.replace(' ', '-')}")
        return asked

    async def close(self) -> None:
        if self._looking is not None:
            await end(self._looking)

    async def _look_up(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, {}
            new = not any(map(self._is_known, asked))
            answers: Mapping[str, T | Exception] = {}
            wrong: Exception = Unavailable("the server is about to stop")
            try:
                answers, wrong = await self._find(list(asked))
            except Exception as error:  # noqa: BLE001  # the callers raise it, and a defect is logged there
                wrong = error
            finally:
                for digest, waiter in asked.items():
                    if not waiter.done():
                        waiter.set_result(answers.get(digest, wrong))
            # Valid ones that were not in use before need not wait for one another: each of them is asked about once.
            if not (new and not any(isinstance(answers.get(digest, wrong), Exception) for digest in asked)):
                await asyncio.sleep(PACE_S)
