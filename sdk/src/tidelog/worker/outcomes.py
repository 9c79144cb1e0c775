"""How a call of user code ended."""

import asyncio
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from tidelog.calling import ProcessExitError
from tidelog.crews import Crew


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result, or the error instead of a result."""

    result: Any = None
    error: BaseException | None = None


def outcome_of(task: "asyncio.Task[JsonValue]", crew: Crew, given_up: BaseException) -> Outcome:
    """The outcome of a task that has ended, or that was cancelled and given up. `given_up`: the error of the latter.

    An exit in another task or callback of the same call counts as an exit of the call.
    """
    if task.done() and not task.cancelled():
        error = task.exception()
        return Outcome(error=error) if error is not None else Outcome(task.result())
    if crew.exited.done():
        reason = crew.exited.result()
        exit_error = ProcessExitError.of(reason)
        exit_error.__cause__ = reason
        return Outcome(error=exit_error)
    return Outcome(error=given_up)
