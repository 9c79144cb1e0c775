"""A piece of work in the hand of a worker, and what happens to the work meanwhile: finished calls, mail, a cancellation, a loss."""

import secrets
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.engine.reading.live import LiveFeed
from application.workers.hosting.messages import Report, Stop, StopReason, Update
from application.workers.journal import Journals
from domain import agent_runs, invocations
from domain.agent_runs import (
    AgentRunCancelled,
    AgentRunFailed,
    AgentRunPaused,
    AgentRunResumed,
    CallFinished,
    MailDelivered,
    WaitFinished,
)
from domain.errors import NotFound
from domain.invocations import (
    Invocation,
    InvocationCancelled,
    InvocationCancelRequested,
    InvocationFailed,
    InvocationReconcileRequested,
    InvocationRequeued,
    InvocationResolved,
    InvocationSucceeded,
)
from domain.kernel import Decider, Event

CONCERNING: dict[str, tuple[type[Event], ...]] = {
    "agent": (
        CallFinished, WaitFinished, MailDelivered, AgentRunCancelled, AgentRunFailed, AgentRunPaused, AgentRunResumed,
    ),
    "tool": (InvocationCancelRequested, InvocationCancelled, InvocationFailed, InvocationRequeued, InvocationResolved),
    "reconcile": (
        InvocationCancelled, InvocationFailed, InvocationRequeued, InvocationResolved, InvocationReconcileRequested,
        InvocationSucceeded,
    ),
}  # fmt: skip
"""Events of a piece of work that its worker did not cause itself, by the kind of the work."""


def _topics(events: tuple[type[Event], ...]) -> frozenset[str]:
    return frozenset(event.TOPIC for event in events)


DECIDERS: dict[str, Decider[Any]] = {
    "agent": agent_runs.DECIDER, "tool": invocations.DECIDER, "reconcile": invocations.DECIDER,
}  # fmt: skip
TOPICS = {kind: _topics(events) for kind, events in CONCERNING.items()}


class Hand:
    """A piece of work that a worker has, or is about to get. Its stream is watched from the beginning on."""

    __slots__ = (
        "_forget", "_unwatch", "attempt", "dropped", "ending", "heard", "kind", "looked", "paging", "seen", "stopped", "token",
        "work_id",
    )  # fmt: skip

    def __init__(
        self,
        kind: str,
        work_id: UUID,
        live: LiveFeed,
        woken: "Callable[[Hand, int], None]",
        forget: "Callable[[Hand], None]" = lambda _: None,
    ) -> None:
        """`woken`: called when something may have happened to the work, with the version of the event. `forget`: called at the end
        of the watch. Neither may wait.
        """
        self.kind = kind
        self.work_id = work_id
        self.attempt = 0
        """0: the work is not claimed yet."""
        self.token = ""
        self.seen = 0
        """The version of the agent run's stream up to which the worker has been told of calls and mail."""
        self.heard = 0
        """The version of the newest event that has been heard of since the last look."""
        self.looked = 0
        """The version of the stream at the last look. Each event of this process is heard of twice, also from the log."""
        self.paging = False
        """The worker has not asked for all pages of the journal yet, and learns there what it is to know."""
        self.ending = False
        """The worker has reported an outcome."""
        self.stopped = False
        """The worker has been told to stop, and its report still counts."""
        self.dropped = False
        """The watch has ended. A call of `woken` that was due may still come."""
        self._forget = forget
        self._unwatch = live.call(work_id, TOPICS[kind], partial(woken, self))

    def fits(self, report: Report) -> bool:
        """Whether a report is about the attempt in hand."""
        return self.attempt == report.attempt and secrets.compare_digest(self.token, report.token)

    def drop(self) -> None:
        """Ends the watch. A second call does nothing."""
        self.dropped = True
        self._unwatch()
        self._forget(self)


async def news_of(commands: CommandLoop, journals: Journals, tenant_id: UUID, hand: Hand) -> Update | Stop | None:
    """What the worker is to be told of its work. None: nothing. Raises Unavailable.

    The log is asked only for what this process has heard of and does not know: its own appends it knows.
    """
    heard, hand.heard = hand.heard, 0
    try:
        version = (await commands.load(DECIDERS[hand.kind], tenant_id, hand.work_id, fresh=False)).version
        if heard <= version == hand.looked:
            return None
        look = _news_of_run if hand.kind == "agent" else _news_of_call
        news = await look(commands, journals, tenant_id, hand, fresh=version < heard)
    except BaseException:
        hand.heard = max(hand.heard, heard)
        raise
    more = isinstance(news, Update) and news.news.more
    hand.looked = 0 if more else version
    return news


async def _news_of_call(commands: CommandLoop, _: Journals, tenant_id: UUID, hand: Hand, *, fresh: bool) -> Stop | None:
    call: Invocation = (await commands.load(invocations.DECIDER, tenant_id, hand.work_id, fresh=fresh)).state
    reason = _end_of_call(call, hand.attempt)
    return None if reason is None else Stop(hand.work_id, hand.attempt, reason)


async def _news_of_run(
    commands: CommandLoop, journals: Journals, tenant_id: UUID, hand: Hand, *, fresh: bool
) -> Update | Stop | None:
    try:
        news = await journals.page(tenant_id, hand.work_id, after_version=hand.seen, news=True, fresh=fresh)
    except NotFound:  # the log lost the work, as after a restore from a backup
        return Stop(hand.work_id, hand.attempt, "lost")
    reason = _end_of_run(news.status, news.attempt, hand.attempt)
    if reason is not None:
        return Stop(hand.work_id, hand.attempt, reason)
    if news.entries or news.mailbox:
        return Update(hand.work_id, hand.attempt, news)
    hand.seen = news.version  # the next look need not look at the worker's own entries again
    return None


def _end_of_run(status: str, newest: int, attempt: int) -> StopReason | None:
    """Why a worker is to stop an agent run. None: the worker goes on."""
    if status == "cancelled":
        return "cancelled"
    if status == "failed":  # not by the worker's own report: its time is over
        return "timed-out"
    if status in agent_runs.TERMINAL:
        return "over"
    return None if status == "running" and newest == attempt else "lost"


def _end_of_call(call: Invocation, attempt: int) -> StopReason | None:
    """Why a worker is to stop a tool call. None: the worker goes on, also with a call whose effect is in doubt, and with asking
    about it: its report still counts."""
    if call.status == "cancelled" or (call.status == "started" and call.attempt == attempt and call.cancel_request is not None):
        return "cancelled"
    if call.status in invocations.TERMINAL:
        return "over"
    return None if call.may_be_reported(attempt) else "lost"
