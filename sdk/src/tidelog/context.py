"""`Context`: calls that an agent makes through the context survive a crash.

Every call has a key. A call whose key an earlier attempt recorded gives the recorded result at once; any other call runs.
There are no rules of determinism for the code in between.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ParamSpec, Protocol
from uuid import UUID

from pydantic import JsonValue, ValidationError

from tidelog.blobs import IN_MEMORY, AgentBlobs, BlobAccess
from tidelog.calling import call
from tidelog.errors import PermanentError, ToolError
from tidelog.journal import EntryError, Journal, JournalEntry, JournalUpdate, Mail, Recorder
from tidelog.scheduling import Scheduling
from tidelog.values import to_json
from tidelog.work_log import Log

logger = logging.getLogger(__name__)

P = ParamSpec("P")

MAX_STEP_THREADS = 32
"""The number of steps of one execution that run at the same time when started with `asyncio.gather`; further steps wait."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message from another agent of the run. `sender` is its step key, `body` JSON data.

    `sent_at` is None where a replay no longer has the time.
    """

    id: UUID
    sender: str
    body: Any
    sent_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Assignment:
    """The task of an agent: the data of the run that do not change during the execution."""

    run_id: UUID
    agent_run_id: UUID
    attempt: int
    step_key: str
    agent: str
    input: JsonValue
    results: Mapping[str, JsonValue]
    peers: tuple[str, ...]
    missing: tuple[str, ...]
    on_behalf_of: str | None = None
    part: int | None = None


class Place(Protocol):
    """The place of an execution in its worker. An execution that only waits for something outside may be without it."""

    def waiting(self) -> AbstractAsyncContextManager[None]:
        """A call waits for a tool or a message. The end of the block waits for the place."""
        ...

    def working(self) -> AbstractAsyncContextManager[None]:
        """A step runs. The beginning of the block waits for the place."""
        ...


class KeptPlace:
    """The place of an execution that nobody else wants."""

    def waiting(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    def working(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()


class Clock(Protocol):
    """What an execution knows of time. A test may move it."""

    async def wait(self, future: "asyncio.Future[Any]", timeout_s: float | None) -> None:
        """Wait until the future is done, or the time is over."""
        ...


class TimeOfDay:
    """Time as it passes."""

    async def wait(self, future: "asyncio.Future[Any]", timeout_s: float | None) -> None:
        await asyncio.wait({future}, timeout=timeout_s)


class Context(Scheduling):
    """The argument of `Agent.execute`.

    All arguments and results are JSON data (pydantic models, dataclasses and the like are converted), at most 200 KiB each.
    Calls may run side by side with `asyncio.gather`; a key is taken when the method is called, in the order of the code.

    Errors common to all calls are subclasses of `PermanentError`: a value over the limit, one that is not JSON, a key used twice.
    """

    def __init__(
        self,
        assignment: Assignment,
        journal: Journal,
        recorder: Recorder,
        place: Place | None = None,
        log: Log | None = None,
        clock: Clock | None = None,
        blobs: BlobAccess | None = None,
    ) -> None:
        self._assignment = assignment
        self._journal = journal
        self._recorder = recorder
        self._place = place or KeptPlace()
        self._inbox = _Inbox(journal, recorder, self._place, clock or TimeOfDay())
        self._step_slots = asyncio.Semaphore(MAX_STEP_THREADS)
        self.state = State(journal, recorder)
        """The shared context of the run: `get`, `set`."""
        self.log = log or Log(fields={"run_id": assignment.run_id, "agent": assignment.agent})
        """Lines for people: `ctx.log.info("…", name=value)`; see `Log`."""
        self.blob = AgentBlobs(journal, recorder, IN_MEMORY if blobs is None else blobs)
        """Contents that are too large for the log: `put`, `get`."""

    @property
    def run_id(self) -> UUID:
        return self._assignment.run_id

    @property
    def agent_run_id(self) -> UUID:
        return self._assignment.agent_run_id

    @property
    def attempt(self) -> int:
        """1 for the first execution, higher after a crash or a retry."""
        return self._assignment.attempt

    @property
    def on_behalf_of(self) -> str | None:
        """For whom the run was started, as the starter said; None: for nobody. Nobody has checked it: it is no proof of a right."""
        return self._assignment.on_behalf_of

    @property
    def step_key(self) -> str:
        """The name of this agent's step in the plan; the agent's name unless the plan says otherwise. Where the step has several
        executions, a dot and the number of this one follow, as in `reviews.3`: `input` is then the item, or the result before."""
        return self._assignment.step_key

    @property
    def part(self) -> int | None:
        """The number of this execution, where the step has several, from 0: of the item of a list, of the time of a loop, of the
        answer of an adaptive agent (0, 2, 4 …: its child runs are the others). None: it is the only one of its step, or the server
        is of a release that does not say it."""
        return self._assignment.part

    @property
    def input(self) -> Any:
        """The JSON value given to the run (or to this step by the plan)."""
        return self._assignment.input

    @property
    def results(self) -> Mapping[str, Any]:
        """Results of the steps before this step, by step key."""
        return self._assignment.results

    @property
    def peers(self) -> tuple[str, ...]:
        """The keys of the other steps of the run: the recipients that `send` can reach."""
        return self._assignment.peers

    @property
    def missing(self) -> tuple[str, ...]:
        """Steps before this step that failed and that the plan tolerates. They are not in `results`."""
        return self._assignment.missing

    # The public calls are plain functions that return a coroutine, so that the key is taken at the call, not at the first await.

    def step(
        self, key: str, fn: Callable[P, Awaitable[Any] | Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, Any]:
        """Run a local function once: its result is recorded under `key`, and returned after a crash without another run.

        Async functions run on the event loop, sync ones in a thread. Returns the result as JSON data, the same the first time and
        on a replay. Exceptions of `fn` are raised here and are not recorded.
        """
        return self._step(self._journal.take_key(key, key), fn, args, kwargs)

    def tool(self, name: str, /, key: str | None = None, **arguments: Any) -> Coroutine[Any, Any, Any]:
        """Call a tool by name, on any worker that has the tool, and wait for its result (JSON data).

        Raises:
            ToolError: the tool failed for good (after the retries that its declaration allows), does not exist, or refuses the
            arguments.
        """
        return self._tool(self._journal.take_key(key, name), name, arguments)

    def send(self, to: str, body: Any, key: str | None = None) -> Coroutine[Any, Any, UUID]:
        """Send a message to another agent of the run, named by step key or agent name. Returns the message's id.

        Raises:
            RecipientOverError: the recipient has ended. A recipient that has not begun gets the message when it begins.
            PermanentError: the run has no such recipient.
        """
        return self._send(self._journal.take_key(key, f"send:{to}"), to, body)

    def receive(
        self, timeout_s: float = 60, key: str | None = None, sender: str | None = None
    ) -> Coroutine[Any, Any, Message | None]:
        """The oldest message not received yet (from `sender`, if given), or None after `timeout_s` seconds without one.

        Both outcomes are recorded: a replay gets the same message, or None, at once.
        """
        return self._receive(self._journal.take_key(key, f"receive:{sender}" if sender else "receive"), timeout_s, sender)

    async def _step(self, key: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> JsonValue:
        recorded = self._journal.find(key)
        if recorded is not None:
            return recorded.result
        async with self._step_slots, self._place.working():
            value = await call(fn, args, kwargs)
        result = to_json(value, f"the result of step {key!r}")
        await self._recorder.record_step(key, result)
        return result

    async def _tool(self, key: str, name: str, arguments: dict[str, Any]) -> JsonValue:
        if self._journal.find(key) is None:
            plain = to_json(arguments, f"the arguments of tool {name!r}")
            assert isinstance(plain, dict)
            await self._recorder.request_call(key, name, plain)
        entry = await self._inbox.settled(key)
        if entry.status == "error":
            if entry.error is None:
                raise ToolError("the tool failed without saying why", tool=name)
            raise _tool_error(name, entry.error)
        return entry.result

    async def _send(self, key: str, to: str, body: Any) -> UUID:
        recorded = self._journal.find(key)
        if recorded is not None:
            return UUID(str(recorded.result))
        return await self._recorder.send_message(key, to, to_json(body, f"the message to {to!r}"))

    async def _receive(self, key: str, timeout_s: float, sender: str | None) -> Message | None:
        recorded = self._journal.find(key)
        if recorded is not None:
            return _recorded_message(recorded)
        mail = await self._inbox.take_mail(sender, timeout_s)
        try:
            await self._recorder.record_receipt(key, None if mail is None else mail.message_id)
        except BaseException:
            if mail is not None:  # the caller gave up the wait, but the run goes on: the next receive gets this message
                self._inbox.put_back(mail)
            raise
        return None if mail is None else Message(mail.message_id, mail.sender, mail.body, mail.sent_at)

    def _own_name(self) -> str:
        return self._assignment.agent

    def unused_keys(self) -> tuple[str, ...]:
        """Keys that an earlier attempt recorded and that this execution has not used (so far)."""
        return self._journal.unused_keys()

    def open_calls(self) -> tuple[str, ...]:
        """Keys of the calls of tools that wait for an outcome now."""
        return self._inbox.open_calls

    @property
    def recorded(self) -> int:
        """Number of the entries that earlier attempts recorded."""
        return self._journal.recorded

    def close(self) -> None:
        """End the calls that still wait. Called by the runtime when `execute` is over."""
        self._inbox.close()


def _tool_error(tool: str, error: EntryError) -> ToolError:
    text, kind = f"{error.type}: {error.message}", error.kind
    return ToolError(text, kind, tool, type=error.type, reason=error.message, file=error.file, line=error.line)


def _recorded_message(entry: JournalEntry) -> Message | None:
    if entry.result is None:
        return None
    try:
        mail = Mail.model_validate(entry.result)
    except ValidationError as error:
        raise PermanentError(f"what is recorded under {entry.key!r} is not a received message") from error
    return Message(mail.message_id, mail.sender, mail.body, mail.sent_at)


class State:
    """The shared context of a run: named JSON values that all its agents read and write. Reads are recorded, too."""

    def __init__(self, journal: Journal, recorder: Recorder) -> None:
        self._journal = journal
        self._recorder = recorder

    def get(self, name: str, default: Any = None, key: str | None = None) -> Coroutine[Any, Any, Any]:
        """The present value, or `default` if there is none."""
        return self._get(self._journal.take_key(key, f"state.get:{name}"), name, default)

    def set(self, name: str, value: Any, key: str | None = None, expect: int | None = None) -> Coroutine[Any, Any, None]:
        """Write the value. The last writer wins, unless `expect` is given: the version that the value must have (0: no value yet).

        Raises:
            PermanentError: the value is not at the expected version.
        """
        return self._set(self._journal.take_key(key, f"state.set:{name}"), name, value, expect)

    async def _get(self, key: str, name: str, default: Any) -> Any:
        recorded = self._journal.find(key)
        if recorded is not None:
            result = recorded.result
            if not isinstance(result, dict):
                raise PermanentError(f"what is recorded under {key!r} is not a value read from the shared context")
            return result.get("value") if result.get("found") else default
        answer = await self._recorder.read_state(key, name)
        return answer.value if answer.found else default

    async def _set(self, key: str, name: str, value: Any, expect: int | None) -> None:
        if self._journal.find(key) is None:
            await self._recorder.write_state(key, name, to_json(value, f"the shared value {name!r}"), expect)


@dataclass(slots=True)
class _MailWaiter:
    sender: str | None
    future: "asyncio.Future[Mail]"


class _Inbox:
    """Waits for tool results and mail, which the recorder brings as they come."""

    def __init__(self, journal: Journal, recorder: Recorder, place: Place, clock: Clock) -> None:
        self._journal = journal
        self._recorder = recorder
        self._place = place
        self._clock = clock
        self._calls: dict[str, asyncio.Future[JournalEntry]] = {}
        self._mail_waiters: list[_MailWaiter] = []
        self._closed = False
        recorder.follow(self._take_over)

    async def settled(self, key: str) -> JournalEntry:
        """Wait until a call is no longer pending, and return its entry."""
        entry = self._journal.find(key)
        if entry is not None and entry.status != "pending":
            return entry
        if self._closed:
            raise asyncio.CancelledError("the execution is over")
        future: asyncio.Future[JournalEntry] = asyncio.get_running_loop().create_future()
        self._calls[key] = future
        try:
            async with self._place.waiting():
                return await future
        finally:
            self._calls.pop(key, None)

    async def take_mail(self, sender: str | None, timeout_s: float) -> Mail | None:
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
        try:
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
