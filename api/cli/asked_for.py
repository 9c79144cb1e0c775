"""The command line without the commands that nobody asked for.

To build a command costs more than to run most of them: 40 ms of processor time for all of them, with each call of `tidelog`.
"""

import copy
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.main import get_command_name
from typer.models import CommandInfo


class Commands(typer.Typer):
    """Builds only the command that the words name. All of them for help, for completion in a shell, and for a name of none."""

    def __call__(self, args: Sequence[str] | None = None, **options: Any) -> Any:
        words = sys.argv[1:] if args is None else args
        return typer.Typer.__call__(only(self, words), args, **options)


def only(app: typer.Typer, words: Sequence[str]) -> typer.Typer:
    name = words[0] if words else ""
    found = copy.copy(app)
    found.registered_commands = [command for command in app.registered_commands if _name_of(command) == name]
    found.registered_groups = [copy.copy(group) for group in app.registered_groups if group.name == name]
    if not found.registered_commands and not found.registered_groups:
        return app
    for group in found.registered_groups:
        assert group.typer_instance is not None
        group.typer_instance = only(group.typer_instance, words[1:])
    return found


def _name_of(command: CommandInfo) -> str:
    assert command.callback is not None
    return command.name or get_command_name(command.callback.__name__)
