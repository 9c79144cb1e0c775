"""What an execution waits for: results of tools, ends of waits, mail. And whether it does nothing else."""

import asyncio
import contextvars
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from tidelog.journal import Journal, JournalEntry, JournalUpdate, Mail, Recorder

NOBODY = contextvars.Context()
"""For timers that are not the agent's."""


class Place(Protocol):
    """The place of an execution in its worker. An execution that only waits for something outside may be without it."""

    def waiting(self) -> AbstractAsyncContextManager[None]:
        """A call waits for a tool or a message. The end of the block waits for the place."""
        ...

    def working(self) -> AbstractAsyncContextManager[None]:
        """A step runs. The beginning of the block waits for the place."""
        ...


class Clock(Protocol):
    """What an execution knows of time. A test may move it."""

    async def wait(self, future: "asyncio.Future[Any]", timeout_s: float | None) -> None:
        """Wait until the future is done, or the time is over."""
        ...


class TimeOfDay:
    """Time as it passes."""

    async def wait(self, future: "asyncio.Future[Any]", timeout_s: float | None) -> None:
        if timeout_s is None:
            await asyncio.wait({future})
            return
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(timeout_s, over.set_result, None, context=NOBODY)
        try:
            await asyncio.wait({future, over}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()


@dataclass(eq=False, slots=True)
class OpenWait:
    """A call of the context that waits for something from outside, in a task of the agent."""

    key: str
    task: "asyncio.Task[Any] | None"
    ends_at: float | None = None
    """Of a `receive` with a time-out: when it ends, by the clock of the event loop."""
    receives: bool = False
    sender: str | None = None
    long: bool = False
    """It is known to take long."""


class OpenWaits:
    """The waits of an execution that are open now."""

    def __init__(self) -> None:
        self._open: dict[OpenWait, None] = {}
        self.changed: Callable[[], None] = lambda: None
        """Called after a wait has begun or ended."""

    def __iter__(self) -> Iterator[OpenWait]:
        return iter(list(self._open))

    def __bool__(self) -> bool:
        return bool(self._open)

    @contextmanager
    def one(self, wait: OpenWait) -> Iterator[None]:
        self._open[wait] = None
        self.changed()
        try:
            yield
        finally:
            del self._open[wait]
            self.changed()


@dataclass(slots=True)
class _MailWaiter:
    sender: str | None
    future: "asyncio.Future[Mail]"


class Inbox:
    """Waits for what the recorder brings: results of tools, ends of waits, mail."""

    def __init__(self, journal: Journal, recorder: Recorder, place: Place, clock: Clock) -> None:
        self._journal = journal
        self._recorder = recorder
        self._place = place
        self._clock = clock
        self._calls: dict[str, asyncio.Future[JournalEntry]] = {}
        self._mail_waiters: list[_MailWaiter] = []
        self._closed = False
        self.waits = OpenWaits()
        recorder.follow(self._take_over)

    async def settled(self, key: str, *, long: bool = False) -> JournalEntry:
        """Wait until a call, or a wait, is no longer pending, and return its entry. `long`: it is known to take long."""
        entry = self._journal.find(key)
        if entry is not None and entry.status != "pending":
            return entry
        if self._closed:
            raise asyncio.CancelledError("the execution is over")
        future: asyncio.Future[JournalEntry] = asyncio.get_running_loop().create_future()
        self._calls[key] = future
        try:
            with self.waits.one(OpenWait(key, asyncio.current_task(), long=long)):
                async with self._place.waiting():
                    return await future
        finally:
            self._calls.pop(key, None)

    async def take_mail(self, key: str, sender: str | None, timeout_s: float) -> Mail | None:
        """The oldest fitting message, removed from the mailbox; None after the time-out."""
        if timeout_s <= 0 and not self._journal.mailbox.has(sender):
            await self._refresh()
        mail = self._journal.mailbox.take(sender)
        if mail is not None or timeout_s <= 0:
            return mail
        if self._closed:
            raise asyncio.CancelledError("the execution is over")
        waiter = _MailWaiter(sender, asyncio.get_running_loop().create_future())
        self._mail_waiters.append(waiter)
        ends_at = asyncio.get_running_loop().time() + timeout_s
        try:
            with self.waits.one(OpenWait(key, asyncio.current_task(), ends_at, receives=True, sender=sender)):
                async with self._place.waiting():
                    await self._clock.wait(waiter.future, timeout_s)
        except asyncio.CancelledError:
            if waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
                self.put_back(waiter.future.result())
            raise
        finally:
            if waiter in self._mail_waiters:
                self._mail_waiters.remove(waiter)
        return waiter.future.result() if waiter.future.done() else None

    def put_back(self, mail: Mail) -> None:
        self._journal.mailbox.put_back(mail)
        self._hand_out()

    async def _refresh(self) -> None:
        self._take_over(await self._recorder.news(self._journal.version))

    def close(self) -> None:
        """Ends the calls that still wait: nobody brings them a result any more."""
        self._closed = True
        for call_future in self._calls.values():
            call_future.cancel()
        for waiter in self._mail_waiters:
            waiter.future.cancel()

    @property
    def open_calls(self) -> tuple[str, ...]:
        return tuple(key for key, future in self._calls.items() if not future.done())

    def _take_over(self, update: JournalUpdate) -> None:
        self._journal.apply(update)
        for changed in update.journal:
            future, entry = self._calls.get(changed.key), self._journal.find(changed.key)
            if future is not None and entry is not None and entry.status != "pending" and not future.done():
                future.set_result(entry)
        if update.mailbox:
            self._hand_out()

    def _hand_out(self) -> None:
        for waiter in list(self._mail_waiters):
            if waiter.future.done() or (mail := self._journal.mailbox.take(waiter.sender)) is None:
                continue
            self._mail_waiters.remove(waiter)
            waiter.future.set_result(mail)
