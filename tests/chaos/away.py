"""Outages in a storm of kills: a server of the supervisor's that is killed and not started again for a while."""

import asyncio
import os
import signal

import httpx

from tests.chaos.server import Server

PARTS = ("nats", "postgres")
"""In turn."""
AWAY_S = 25.0
"""Longer than a connection is waited for."""
BACK_S = 30.0
"""Until the server is ready again, whatever else was killed before."""
FIRST, EVERY, MOST = 2, 6, 8
"""The round after which the first is away, how many rounds pass until the next one is, and how often: a storm is to have an end."""


def outage_after(number: int) -> str | None:
    """The part that is away after a round, if one is."""
    place, other = divmod(number - FIRST, EVERY)
    return PARTS[place % len(PARTS)] if other == 0 and 0 <= place < MOST else None


async def keep_away(server: Server) -> None:
    """What was killed a moment ago stays dead for `AWAY_S`: who would start it again sleeps."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(AWAY_S)
    finally:
        os.kill(server.pid, signal.SIGCONT)


async def is_ready(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/health/ready")).status_code == 200
    except httpx.TransportError:
        return False
