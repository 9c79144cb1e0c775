"""Slash commands as people see them."""

from typing import Literal

from pydantic import BaseModel

from application.engine.ports.views import ListedRow
from domain.kernel import Json


class OwnCommand(ListedRow):
    """A workflow that a slash command starts."""

    name: str
    version: int
    command: Json = None
    """As `SlashCommand` has it."""
    definition: Json = None
    """Missing in a list, where it is large."""


class CommandView(BaseModel):
    name: str
    help: str
    kind: Literal["run", "list"]
    """`run`: a line of the command starts a run. `list`: it asks for a list."""
    source: Literal["shipped", "workflow"]
    """`workflow`: the tenant's own, a workflow of this name."""
    workflow_version: int | None = None
    """Of an own command: the version that a line starts."""
    text: str | None = None
    """The parameter that takes the free text of a line. Null: it takes none."""
    parameters: Json = None
    """JSON Schema. In a list null, where it is large."""


class CommandDetails(CommandView):
    definition: Json = None
    """What the command starts, as `POST /v1/workflows` takes it. Null for a list."""
