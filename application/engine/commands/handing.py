"""Handing work over in the append that requests it: here a taker claims work before the queue has it.

The claim is a command like every other, with a request of its own. It is decided and appended behind the event that requests the
work, so the log never holds one without the other. The taker has set aside what it needs before it claims, and is told what became
of the append.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from application.engine.commands.request import CommandRequest
from application.engine.ports.queue import WorkItem
from application.engine.sagas.reactions import ReactionCause
from domain.kernel import Command


class TakenWork(Protocol):
    """Work that a taker claims in an append. Exactly one of the three ends is called, once. None of them may wait or raise."""

    @property
    def request(self) -> CommandRequest:
        """The request of the claim."""
        ...

    @property
    def commands(self) -> Sequence[Command]:
        """The claim, and what it rests on."""
        ...

    def appended(self) -> None:
        """The claim is durable: the work is the taker's."""
        ...

    def dropped(self) -> None:
        """The claim is not in the log: the work goes another way."""
        ...

    def doubtful(self) -> None:
        """Nobody knows whether the claim is in the log, or will be."""
        ...


class WorkTaker(Protocol):
    """Takes work past the queue."""

    def take(self, item: WorkItem, cause: ReactionCause, state: Any) -> TakenWork | None:
        """Sets aside what the work needs. None: the work goes to the queue. Must not wait.

        `state`: of the work's stream, with the event that requests the work.
        """
        ...
