"""Places in the command loop where others may look on: permissions, budgets, audit.

A hook is called for each command of an append with that command's own request: for a caller's command, and for a follow-up, whose
actor is `saga:<name>`. A hook may refuse, and may add commands: they are decided and recorded with it, under its id, as if
its caller had given them. A hook gets no driver, and a loop without hooks pays nothing for them.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol
from uuid import UUID

from application.engine.commands.request import CommandRequest
from application.engine.ports.log import NewEvent
from domain.kernel import Command


class DecidedCommand(NamedTuple):
    """A command, its stream, and the encoded events that it brings about."""

    command: Command
    stream_id: UUID
    events: Sequence[NewEvent]


class Hook(Protocol):
    """Looks on at every command of a loop. Hooks are called in the order in which the loop was given them.

    The refusal of a follow-up leaves the follow-up to the saga manager; the command that it follows from is not refused.
    """

    def before_decide(self, request: CommandRequest, command: Command, stream_id: UUID) -> Sequence[Command] | None:
        """Called once for each command of an execution, before anything is loaded, and for each follow-up before it is decided.

        Returns commands to add, if any. All hooks are asked about those, too.

        Raises:
            TidelogError: the command is refused, and with it the whole execution. Nothing has been appended.
        """
        ...

    def before_append(self, request: CommandRequest, decided: Sequence[DecidedCommand]) -> Sequence[Command] | None:
        """Called with all commands of a request once they are decided: again after each conflict.

        Returns commands to add, if any. Hooks that come later see those, too.

        Raises:
            DomainError: the whole execution is refused.
        """
        ...

    def after_commit(self, request: CommandRequest, commands: Sequence[Command], first_position: int, last_position: int) -> None:
        """Called once for each request whose events are durable, at these positions. Not for one that was recorded before.

        It cannot refuse any more: an error of a hook is logged, and the commands have their answer.
        """
        ...
