"""Places in the command loop where others may look on: permissions, budgets, audit.

A hook is called for each command with the command's own request. It gets no driver, and a loop without hooks pays nothing for them.
"""

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from application.engine.commands.request import CommandRequest
from domain.kernel import Command


class Hook(Protocol):
    """Looks on at every command of a loop. Hooks are called in the order in which the loop was given them."""

    def before_decide(self, request: CommandRequest, command: Command, stream_id: UUID) -> None:
        """Called once for each command of an execution, before anything is loaded.

        Raises:
            TidelogError: the command is refused, and with it the whole execution. Nothing has been appended.
        """
        ...

    def after_commit(self, request: CommandRequest, commands: Sequence[Command], first_position: int, last_position: int) -> None:
        """Called once for an execution whose events are durable, at these positions. Not for one that was recorded before.

        It cannot refuse any more: an error of a hook is logged, and the commands have their answer.
        """
        ...
