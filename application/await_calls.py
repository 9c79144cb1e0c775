"""Waiting for the outcome of a tool call: for callers that want it in the same answer.

The events of the call wake the wait, those of this process first, so a wait costs no query while nothing happens. A call that
becomes ambiguous ends the wait, too: a person may need days.
"""

import time
from collections.abc import Sequence
from typing import Self
from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.engine.reading.live import LiveFeed
from application.reads import InvocationReads, Positioned
from application.runs.await_end import BEGIN_S
from application.views.invocations import InvocationView
from domain.errors import NotFound
from domain.invocations import (
    TERMINAL,
    InvocationBecameAmbiguous,
    InvocationCancelled,
    InvocationFailed,
    InvocationResolved,
    InvocationSucceeded,
)
from domain.kernel import RecordedEvent

ENDS = frozenset(
    event.TOPIC
    for event in (InvocationSucceeded, InvocationFailed, InvocationResolved, InvocationCancelled, InvocationBecameAmbiguous)
)
OVER = TERMINAL | {"ambiguous"}
"""Statuses of calls for which nobody waits any longer."""


class CallEnd:
    """The outcome of one call, to wait for in a block (`async with`). Enter the block before the call is asked for, so that the
    outcome is not missed."""

    __slots__ = ("_commands", "_following", "_invocation_id", "_live", "_reads", "_tenant_id", "_watch", "_watching")

    def __init__(self, commands: CommandLoop, reads: InvocationReads, live: LiveFeed, tenant_id: UUID, invocation_id: UUID) -> None:
        self._commands = commands
        self._reads = reads
        self._live = live
        self._tenant_id = tenant_id
        self._invocation_id = invocation_id

    async def __aenter__(self) -> Self:
        if not self._live.reading:
            await self._live.begun(BEGIN_S)
        self._watching = self._live.watch(self._invocation_id, ENDS)
        self._watch = self._watching.__enter__()
        self._following = self._live.own.following(self._tenant_id, self._invocation_id)
        self._following.__enter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._following.__exit__(None, None, None)
        self._watching.__exit__()

    async def view(self, seconds: float, *, may_be_over: bool) -> Positioned[InvocationView]:
        """The call at its end, or as it is after the time.

        `may_be_over`: the call may have ended before the watch began, so it is read before the wait. Raises NotFound, Unavailable.
        """
        deadline = time.monotonic() + seconds
        while True:
            if not may_be_over and not self._live.closed:
                await self._watch.next(max(deadline - time.monotonic(), 0))
            found = await self._now()
            if found.value.status in OVER or time.monotonic() >= deadline or self._live.closed:
                return found
            may_be_over = False

    async def _now(self) -> Positioned[InvocationView]:
        """Without a query, where this process has appended all of a call without a run, up to its end."""
        of_root = self._live.own.whole(self._tenant_id, self._invocation_id)
        own = [event for event in of_root if event.stream_id == self._invocation_id]  # a chain has streams beside its call
        view = self._replay(own) if any(event.topic in ENDS for event in own) else None
        if view is not None and view.value.status in TERMINAL:
            return view
        view = self._replay(await self._commands.history(self._tenant_id, self._invocation_id))
        if view is None:
            raise NotFound(f"there is no invocation {self._invocation_id}")
        return view

    def _replay(self, events: Sequence[RecordedEvent]) -> Positioned[InvocationView] | None:
        view = self._reads.replay(events)
        return None if view is None else Positioned(view, events[-1].position)
