"""The tools of `--builtin` and `--tools FILE`, those of the server's catalogue, and the guard through which they call out."""

import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidelog.errors import DefinitionError
from tidelog.logs import log
from tidelog.tools import Tool

if TYPE_CHECKING:
    from tidelog.builtin.defined import DefinedTools

logger = logging.getLogger(__name__)


class OutsideError(Exception):
    """An option that cannot be used. The text is for the person who gave it."""


@dataclass(frozen=True, slots=True)
class Outside:
    """`tools`: those that the worker announces. `defined`: those that it carries out by their definitions; None: none."""

    tools: Sequence[Tool[..., Any]] = ()
    defined: "DefinedTools | None" = None


@contextlib.asynccontextmanager
async def tools_outside(
    builtin: bool, files: Sequence[Path], networks: Sequence[str], only_hosts: Sequence[str], *, catalogue: bool = False
) -> AsyncIterator[Outside]:
    """The tools, for as long as the context is open. Raises OutsideError."""
    if not builtin and not files and not catalogue:
        yield Outside()
        return
    # A worker without such tools loads none of this.
    from tidelog.builtin.defined import DefinedTools
    from tidelog.builtin.definitions import DefinitionsError, read_definitions
    from tidelog.builtin.http_tools import http_tools
    from tidelog.builtin.tools import built_in_tools
    from tidelog.guard import Allowed, GuardedClient
    from tidelog.guard.secrets import Secrets

    try:
        allowed = Allowed.of(networks, only_hosts)
    except ValueError as error:
        raise OutsideError(str(error)) from None
    client = GuardedClient(allowed)
    try:
        built_in = built_in_tools(client, Secrets())
        tools: list[Tool[..., Any]] = list(built_in) if builtin else []
        for file in files:
            tools += http_tools(read_definitions(file), client, Secrets())
    except (DefinitionsError, DefinitionError) as error:
        await client.aclose()
        raise OutsideError(str(error)) from None
    hosts = list(only_hosts) or "any"
    log(logger, logging.INFO, "guard_set_up", beside_the_internet=list(map(str, allowed.networks)), hosts=hosts, tools=len(tools))
    try:
        yield Outside(tools, DefinedTools(client, Secrets(), built_in) if catalogue else None)
    finally:
        await client.aclose()
