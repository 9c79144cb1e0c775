"""The composition root: settings → the parts of a process. With the supervisor the only place that knows the adapters.

Each role brings its own imports, so nothing heavy is imported up here.
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
    """For the api role; the others need none."""
    loops: "dict[str, Loop]"
    """Those of the roles, and for each task of an adapter one that raises when that task has ended."""
    joined: "asyncio.Event | None"
    """Set when this process shares in the work of the engine; None for the api role alone, which has no part in it."""
    parts: Parts
    """Where the container and the loops come from: for tests that need a part by itself."""


@asynccontextmanager
async def assemble(settings: "Settings", roles: "Iterable[Role]", **given: Unpack[Overrides]) -> AsyncIterator[Assembly]:
    """Builds what the given roles need; everything is closed again at the end of the block.

    Each keyword replaces a part. A replaced part is not built, nor is anything that only this part needs; whoever gives a part
    starts and closes it. Nothing here waits for Postgres or NATS longer than it takes to find out who they are.

    Raises:
        SettingsError: no URL of a database or of NATS; certificates or credentials that cannot be used; a database that refuses us.
        TypeError: there is no part of that name.
    """
    from api.assembly import histories, log_streams, sharing

    async with AsyncExitStack() as stack:
        parts = Parts(settings, frozenset(roles), stack, given)
        await histories.watch(parts)
        await log_streams.fanout(parts)  # in every process: the stream of the fan-out is a witness of where a history ended
        container, groups = None, []
        if parts.roles & {"api", "saga"}:  # those that give commands
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
        joined = await sharing.share(parts, groups) if groups else None
        yield Assembly(container, {name: run() for name, run in parts.loops.items()}, joined, parts)
