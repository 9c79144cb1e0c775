"""`Context`: calls that an agent makes through the context survive a crash.

Every call has a key. A call whose key an earlier attempt recorded gives the recorded result at once; any other call runs.
There are no rules of determinism for the code in between.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, ParamSpec
from uuid import UUID

from pydantic import JsonValue, ValidationError

from tidelog.blobs import IN_MEMORY, AgentBlobs, BlobAccess
from tidelog.calling import call
from tidelog.errors import BudgetExceededError, ChildRunError, PermanentError, SignalTimeoutError, ToolError
from tidelog.fingerprints import of_call, of_step, of_wait
from tidelog.inbox import Clock, Inbox, OpenWaits, Place, TimeOfDay
from tidelog.journal import Child, EntryError, Journal, JournalEntry, Mail, Recorder, Wait
from tidelog.progress import progress_of
from tidelog.scheduling import Scheduling
from tidelog.spans import span_of
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
class Answer:
    """What people decided about a question of an agent. It is true if they approved.

    by: their keys. reason: of whoever had the last word. expired: nobody decided in time, so the default counts.
    """

    approved: bool
    by: tuple[str, ...] = ()
    reason: str | None = None
    expired: bool = False

    def __bool__(self) -> bool:
        return self.approved


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


class KeptPlace:
    """The place of an execution that nobody else wants."""

    def waiting(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    def working(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()


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
        self._inbox = Inbox(journal, recorder, self._place, clock or TimeOfDay())
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
        fingerprint = of_step(key, args, kwargs)
        return self._step(self._journal.take_key(key, key, fingerprint), fingerprint, fn, args, kwargs)

    def tool(self, name: str, /, key: str | None = None, **arguments: Any) -> Coroutine[Any, Any, Any]:
        """Call a tool by name, on any worker that has the tool, and wait for its result (JSON data).

        Raises:
            ToolError: the tool failed for good (after the retries that its declaration allows), does not exist, or refuses the
            arguments. `BudgetExceededError`: a budget has too little left for the call.
        """
        plain = to_json(arguments, f"the arguments of tool {name!r}")
        assert isinstance(plain, dict)
        fingerprint = of_call(name, plain)
        return self._tool(self._journal.take_key(key, name, fingerprint), fingerprint, name, plain)

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

    def sleep(self, time: float | str | timedelta | datetime, key: str | None = None) -> Coroutine[Any, Any, None]:
        """Sleep for seconds, for a time such as `"90s"`, `"1h30m"` or `"7d"`, or until a datetime with a time zone.

        The sleep goes on while nothing of the agent is in any process, and ends when it would have ended: a crash does not begin it
        anew. An agent that only sleeps or waits is unloaded after a while, and executed again from its journal when it goes on.
        """
        delay_s, until = span_of(time)
        fingerprint = of_wait("sleep", None)
        taken = self._journal.take_key(key, "sleep", fingerprint)
        return self._sleep(taken, Wait("sleep", delay_s=delay_s, until=until, fingerprint=fingerprint))

    def signal(self, name: str, timeout_s: float | None = None, key: str | None = None) -> Coroutine[Any, Any, Any]:
        """Wait for a signal of this name to the run or to this step, and return its payload. A signal that came before counts. Each
        signal is received once. See `Client.signal_run`.

        Raises:
            SignalTimeoutError: no such signal came within `timeout_s` seconds. A replay gets the same.
        """
        fingerprint = of_wait("signal", name)
        taken = self._journal.take_key(key, f"signal:{name}", fingerprint)
        return self._signal(taken, Wait("signal", name, timeout_s, fingerprint=fingerprint))

    def approval(
        self,
        name: str,
        title: str,
        details: Mapping[str, Any] | None = None,
        *,
        roles: Sequence[str] = (),
        approvers: int = 1,
        four_eyes: bool = False,
        deadline: float | str | timedelta | None = None,
        default: Literal["deny", "approve"] = "deny",
        key: str | None = None,
    ) -> "Coroutine[Any, Any, Answer]":
        """Ask people a question, once, and wait for what they decide. The answer is true if they approve.

        name: of the kind of question, as `"publish"`: policies name it for notices. title: the question. details: JSON that shows
        what it is about. roles: who may answer (`"owner"`, `"admin"`, `"operator"`); all of them by default. approvers: so many
        different people must approve. four_eyes: nobody answers who started the run. deadline: seconds, or a time such as `"2d"`,
        after which `default` counts. The agent is unloaded meanwhile.
        """
        plain = to_json(dict(details or {}), "the details of the question")
        assert isinstance(plain, dict)
        question: dict[str, JsonValue] = {"title": title}
        if plain:
            question["details"] = plain
        if roles:
            question["roles"] = list(roles)
        if approvers != 1:
            question["approvers"] = approvers
        if four_eyes:
            question["four_eyes"] = True
        if deadline is not None:
            question["deadline_s"] = span_of(deadline)[0]
        if default != "deny":
            question["default"] = default
        fingerprint = of_wait("approval", name, [title, plain])
        taken = self._journal.take_key(key, f"approval:{name}", fingerprint)
        return self._approval(taken, Wait("approval", name, fingerprint=fingerprint, question=question))

    def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Say how far the agent is, as `ctx.progress(3, 10, "reads page 3")`: for people who look at the run. Not awaited.

        Call it as often as you like: the newest is shown, at most once a second, and less often in a long execution. It is no part
        of the journal: an execution after a crash says so again. It never fails the agent; numbers that are none are a warning in
        the log.
        """
        try:
            self._recorder.report_progress(progress_of(done, total, message))
        except ValueError as error:
            self.log.warning(f"progress is not told: {error}")

    def child(
        self,
        agent: str | None = None,
        input: Any = None,
        *,
        workflow: str | None = None,
        version: int | None = None,
        plan: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> Coroutine[Any, Any, Any]:
        """Start a run of an agent (`"critic"`, `"critic@2"`), of a workflow or of a plan (`tidelog.plans`), once, wait for its
        end, and return its result.

        The run is a child of this agent's run: it has its project, priority and metadata, and is cancelled when this agent ends
        without it.

        Raises:
            ChildRunError: the run failed or was cancelled. A replay gets the same.
            PermanentError: there is no such agent or workflow, the plan has faults, which it names, or the input does not fit.
        """
        if sum(each is not None for each in (agent, workflow, plan)) != 1:
            raise PermanentError("a child run is of an agent, a workflow or a plan: give one of them")
        plain = to_json(input, "the input of the child run")
        child = Child(agent, workflow, version, plain, None if plan is None else to_json(dict(plan), "the plan of the child run"))
        fingerprint = of_wait("child", child.name, [version, plain] if plan is None else [version, plain, child.plan])
        taken = self._journal.take_key(key, f"child:{child.name}", fingerprint)
        return self._child(taken, child, fingerprint)

    async def _child(self, key: str, child: Child, fingerprint: str) -> Any:
        if self._journal.find(key) is None:
            await self._recorder.start_child(key, child, fingerprint)
        entry = await self._inbox.settled(key)
        if entry.status != "error":
            return entry.result
        error = entry.error or EntryError(type="Unknown", message="the run failed without saying why", kind="permanent")
        raise ChildRunError(child.name, error.type, error.message, error.kind)

    async def _sleep(self, key: str, wait: Wait) -> None:
        await self._waited(key, wait)

    async def _signal(self, key: str, wait: Wait) -> Any:
        entry = await self._waited(key, wait)
        if entry.status != "error":
            return entry.result
        error = entry.error
        if error is not None and error.kind == "timeout":
            raise SignalTimeoutError(wait.name or "", error.message)
        raise PermanentError("the wait has failed" if error is None else error.message)

    async def _approval(self, key: str, wait: Wait) -> "Answer":
        result = (await self._waited(key, wait)).result
        if not isinstance(result, dict) or not isinstance(result.get("approved"), bool):
            raise PermanentError(f"what is recorded under {key!r} is not the answer to a question")
        by, reason = result.get("by"), result.get("reason")
        return Answer(
            approved=result["approved"] is True,
            by=tuple(str(each) for each in by) if isinstance(by, list) else (),
            reason=None if reason is None else str(reason),
            expired=result.get("expired") is True,
        )

    async def _waited(self, key: str, wait: Wait) -> JournalEntry:
        """The entry of a wait that has ended."""
        if self._journal.find(key) is None:
            await self._recorder.start_wait(key, wait)
        return await self._inbox.settled(key, long=wait.is_long)

    async def _step(
        self, key: str, fingerprint: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> JsonValue:
        recorded = self._journal.find(key)
        if recorded is not None:
            return recorded.result
        async with self._step_slots, self._place.working():
            value = await call(fn, args, kwargs)
        result = to_json(value, f"the result of step {key!r}")
        await self._recorder.record_step(key, result, fingerprint)
        return result

    async def _tool(self, key: str, fingerprint: str, name: str, arguments: dict[str, JsonValue]) -> JsonValue:
        if self._journal.find(key) is None:
            await self._recorder.request_call(key, name, arguments, fingerprint)
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
        left_s = self._journal.left_s(key)
        mail = await self._inbox.take_mail(key, sender, timeout_s if left_s is None else min(timeout_s, left_s))
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
    def waits(self) -> OpenWaits:
        """What waits for something from outside now."""
        return self._inbox.waits

    @property
    def version(self) -> int:
        """Up to where the execution has the news of its journal and mailbox."""
        return self._journal.version

    @property
    def recorded(self) -> int:
        """Number of the entries that earlier attempts recorded."""
        return self._journal.recorded

    def close(self) -> None:
        """End the calls that still wait. Called by the runtime when `execute` is over."""
        self._inbox.close()


def _tool_error(tool: str, error: EntryError) -> ToolError:
    text, kind = f"{error.type}: {error.message}", error.kind
    of = BudgetExceededError if error.type == "BudgetExceeded" else ToolError
    return of(text, kind, tool, type=error.type, reason=error.message, file=error.file, line=error.line)


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
