"""How a worker of the kit vanishes in the middle of a call."""

from contextvars import ContextVar
from dataclasses import dataclass

from tidelog.testing.clock import KitClock

KIT: ContextVar[KitClock | None] = ContextVar("tidelog_testing_kit", default=None)
"""The clock of the kit that makes the present call. None: a real worker makes it."""


class WorkerVanished(BaseException):
    """The worker is gone. No code of users may catch this: it would not run any more."""


@dataclass(frozen=True, slots=True)
class Vanish:
    """The worker of an attempt is to vanish. `nth`: the number of the attempt, as `ctx.attempt`."""

    call: str
    nth: int
    after_effect: bool
