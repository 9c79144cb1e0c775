"""For tests that inspect an assembly and run none of its loops."""

import asyncio

from api.assembly import Assembly
from tests.integration.system_kit import PATIENCE_S


async def left_alone(assembly: Assembly) -> None:
    """Builds an assembly whose loops do not run.

    Waits until the assembly's listeners listen. If the opening of a connection is cancelled, the driver leaves the connection open,
    and a database with such a connection cannot be dropped for a minute.
    """
    for loop in assembly.loops.values():
        loop.close()
    async with asyncio.timeout(PATIENCE_S):
        for name in ("history_signal", "appends"):
            if name in assembly.parts.made:
                await assembly.parts.made[name].listening.wait()
