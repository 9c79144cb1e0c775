"""The composition root: settings → the parts of a process. Only it, the supervisor and `api.testing` know the
adapters.

Each role has its own imports, so no heavy module is imported at the top of this file.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Unpack

from api.assembly.parts import Overrides, Parts

if TYPE_CHECKING:
    import asyncio

    from api.assembly.parts import Loop
    from api.container import Container
    from api.settings import Role, Settings


@dataclass(frozen=True, slots=True)
class Assembly:
    """A container, and the named loops that the roles of this process must keep running."""

    container: "Container | None"
    """For the api role. None: the process does not run the api role."""
    loops: "dict[str, Loop]"
    """By name: the loops of the roles, and for each task of an adapter a coroutine that raises when the task has ended."""
    joined: "asyncio.Event | None"
    """Set when this process shares the work of the engine. None for the api role alone, which does no work of the engine."""
    parts: Parts
    """The parts from which the container and the loops are made. For tests that need a single part."""


@asynccontextmanager
async def assemble(settings: "Settings", roles: "Iterable[Role]", **given: Unpack[Overrides]) -> AsyncIterator[Assembly]:
    """Builds the parts that the given roles need, and closes them at the end of the block.

    Each keyword replaces a part. A replaced part is not built, and neither are parts that only the replaced part needs. The caller
    starts and closes the parts that it gives. `assemble` waits for PostgreSQL and NATS only until it knows their identity.

    Raises:
        SettingsError: no URL of a database or of NATS, unusable certificates or credentials, or a database that refuses the login.
        TypeError: a keyword names no part.
    """
    from api.assembly import histories, log_streams, sharing

    async with AsyncExitStack() as stack:
        parts = Parts(settings, frozenset(roles), stack, given)
        await histories.watch(parts)
        await log_streams.fanout(parts)  # in every process: the stream of the fan-out is a witness of where a history ended
        container, groups = None, []
        if parts.roles & {"api", "saga"}:  # the roles that give commands
            from api.assembly import commands

            await commands.forget_with_history(parts)
        if "api" in parts.roles:
            from api.assembly.roles import api

            container = await api.container(parts)
        if "relay" in parts.roles:
            from api.assembly.roles import relay

            groups += await relay.groups(parts)
        if "projector" in parts.roles:
            from api.assembly.roles import projector

            groups += await projector.groups(parts)
        if "saga" in parts.roles:
            from api.assembly.roles import saga

            groups += await saga.groups(parts)
        joined = await sharing.share(parts, groups)
        loops = {name: run() for name, run in parts.loops.items()}
        yield Assembly(container, loops, joined if groups else None, parts)
