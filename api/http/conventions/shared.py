"""One answer for all callers that ask at the same time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """A computation that runs at most once at a time, however many callers ask for it.

    Callers that come while the computation runs, or up to `reuse_s` seconds after its end, get its result.
    """

    def __init__(self, compute: Callable[[], Awaitable[T]], *, reuse_s: float = 0.0) -> None:
        self._compute = compute
        self._reuse_s = reuse_s
        self._turn = asyncio.Lock()
        self._computed: tuple[T, float] | None = None
        """The last result, and the monotonic time of its end."""

    async def __call__(self) -> T:
        came = time.monotonic()
        if (known := self._known(came)) is not None:
            return known[0]
        async with self._turn:
            if (known := self._known(came)) is not None:
                return known[0]
            result = await self._compute()
            self._computed = (result, time.monotonic())
            return result

    def _known(self, came: float) -> tuple[T, float] | None:
        if self._computed is not None and self._computed[1] + self._reuse_s > came:
            return self._computed
        return None
