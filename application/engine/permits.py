"""The sweeper of permits: what processes that are gone have held of tools' permits comes back."""

import asyncio

import structlog

from application.engine.leases import SessionPresence
from application.engine.ports.permits import PermitBook
from domain.errors import Unavailable

LOOK_EVERY_S = 1.0
IDLE_EVERY_S = 5.0
"""Seconds between two looks while no process holds anything."""

log = structlog.get_logger(__name__)


class PermitSweeper:
    """One process should run it; two do no harm. While no worker has a session, it asks for nothing."""

    def __init__(self, book: PermitBook, presence: SessionPresence, *, look_every_s: float = LOOK_EVERY_S) -> None:
        self._book = book
        self._presence = presence
        self._look_every_s = look_every_s

    async def run(self) -> None:
        """Works until cancelled; outages are waited out."""
        while True:
            if not self._presence.there:
                await self._presence.wait()
            holders = 1
            try:
                holders = await self._book.sweep()
            except Unavailable as error:
                log.warning("sweep_of_permits_failed", error=error.message)
            await asyncio.sleep(self._look_every_s if holders else IDLE_EVERY_S)
