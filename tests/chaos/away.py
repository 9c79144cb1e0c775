"""Outages in a storm of kills: a server of the supervisor is killed and not started again for a while."""

import asyncio
import os
import signal

import httpx2

from tests.chaos.server import Server

PARTS = ("nats", "postgres")
"""The parts that are away, in turn."""
AWAY_S = 25.0
"""Seconds. Longer than the wait for a connection."""
BACK_S = 30.0
"""Seconds until the server is ready again, whatever else was killed before."""
FIRST, EVERY, MOST = 2, 6, 2
"""The round after which the first outage begins, the rounds until the next outage, and the number of outages: a storm must end."""


def outage_after(number: int) -> str | None:
    """The part that is away after a round, or None."""
    place, other = divmod(number - FIRST, EVERY)
    return PARTS[place % len(PARTS)] if other == 0 and 0 <= place < MOST else None


async def keep_away(server: Server) -> None:
    """Keeps a part that was just killed away for `AWAY_S`.

    The supervisor, which would start the part again, is stopped meanwhile.
    """
    os.kill(server.pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(AWAY_S)
    finally:
        os.kill(server.pid, signal.SIGCONT)


async def is_ready(http: httpx2.AsyncClient) -> bool:
    try:
        return (await http.get("/health/ready")).status_code == 200
    except httpx2.TransportError:
        return False
