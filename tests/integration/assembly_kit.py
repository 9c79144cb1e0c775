"""For tests that look at an assembly and run none of its loops."""

import asyncio

from api.assembly import Assembly
from tests.integration.system_kit import PATIENCE_S


async def left_alone(assembly: Assembly) -> None:
    """For tests that only look at an assembly: its loops will not run.

    Waits until its listeners listen. The driver leaves a connection open whose making was cancelled, and a database with such a
    connection cannot be dropped for a minute.
    """
    for loop in assembly.loops.values():
        loop.close()
    async with asyncio.timeout(PATIENCE_S):
        for name in ("history_signal", "appends"):
            if name in assembly.parts.made:
                await assembly.parts.made[name].listening.wait()
