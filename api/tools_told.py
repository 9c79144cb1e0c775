"""Tells the process that has started this one that there are tools that are data: `tidelog up` then starts a worker for them."""

import asyncio
import os
import signal
from collections.abc import Callable
from typing import NoReturn
from uuid import UUID

import structlog

from application.workers.hosting.served import ServedTools
from domain.tenants import DEFAULT_TENANT_ID

log = structlog.get_logger(__name__)


class ToolsTold:
    """Tells once. Only tools of the default tenant count: the key of that worker is one of this tenant."""

    def __init__(self, served: ServedTools, *, wanted: bool, tell: Callable[[], None] | None = None) -> None:
        """`tell`: instead of the signal, for tests."""
        self._served = served
        self._wanted = wanted
        self._parent = os.getppid()
        self._tell = tell or self._signal

    def defined(self, tenant_id: UUID) -> None:
        """A tool that is data was defined."""
        if self._wanted and tenant_id == DEFAULT_TENANT_ID:
            self._wanted = False
            self._tell()

    async def run(self) -> NoReturn:
        """Looks once for tools of before, then waits to be ended."""
        if self._wanted and await self._served.any(DEFAULT_TENANT_ID):
            self.defined(DEFAULT_TENANT_ID)
        while True:
            await asyncio.Event().wait()

    def _signal(self) -> None:
        if self._parent > 1 and os.getppid() == self._parent:  # else the parent has ended, and this process is about to
            log.debug("parent_told_of_tools")
            os.kill(self._parent, signal.SIGUSR1)
