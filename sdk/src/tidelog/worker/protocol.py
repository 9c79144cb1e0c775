"""The worker's reports to the server, typed. Each may be sent again: the server knows a report by work, attempt and key."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from tidelog.blobs import BlobAccess, HttpBlobs, NoBlobs
from tidelog.errors import ConflictError, InvalidRequestError, TidelogAPIError, TidelogConnectionError
from tidelog.failures import ErrorReport
from tidelog.journal import Child, JournalEntry, JournalUpdate, Mail, StateValue, Wait
from tidelog.progress import Progress
from tidelog.reconciling import Reconciled
from tidelog.retries import RetryPolicy
from tidelog.session import Session
from tidelog.session.session import PATIENCE_S
from tidelog.transport import Transport
from tidelog.values import encode
from tidelog.work_log import WorkLog

LEASE = "Tidelog-Lease"
PATIENCE = RetryPolicy(max_elapsed_s=PATIENCE_S, cap_s=2.0)

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Ticket:
    """Names one attempt of a piece of work, with the right to report on it."""

    work: str
    attempt: int
    token: str
    head: bytes = field(init=False)
    """As members of a report."""

    def __post_init__(self) -> None:
        head = b'"work":%b,"attempt":%d,"token":%b,' % (encode(self.work), self.attempt, encode(self.token))
        object.__setattr__(self, "head", head)


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True)


class AgentWork(_Read):
    """A claimed agent run. `more`: the journal goes on behind `version`. `later`: steps whose results did not fit in.
    `receives`: the seconds left of each `receive` that was open when the agent was unloaded, by key.
    """

    work: UUID
    attempt: int
    run: UUID
    step: str
    agent: str
    input: JsonValue = None
    results: dict[str, JsonValue] = {}
    missing: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    journal: tuple[JournalEntry, ...] = ()
    mailbox: tuple[Mail, ...] = ()
    version: int
    more: bool = False
    later: tuple[str, ...] = ()
    on_behalf_of: str | None = None
    part: int | None = None
    receives: dict[str, float] = {}


class ToolWork(_Read):
    """A claimed invocation, whose attempt has begun."""

    work: UUID
    attempt: int
    run: UUID
    tool: str
    arguments: dict[str, JsonValue]
    timeout_s: float | None = None
    idempotent: bool = False
    definition: dict[str, Any] | None = None
    """Of the version that was called, where the worker carries out tools by their definitions."""
    on_behalf_of: str | None = None


class ReconcileWork(ToolWork):
    """A claimed invocation whose effect is in doubt. `timeout_s`: the limit of the `reconcile` function."""


class CallAnswer(_Read):
    invocation_id: UUID
    warning: str | None = None
    """What the agent's author should know of the tool."""


class _MessageAnswer(_Read):
    message_id: UUID


class _ScheduleAnswer(_Read):
    result: JsonValue = None


class WorkerApi:
    """The reports of the contract between server and workers.

    All raise `TidelogAPIError` (`ConflictError` with code `work-over` or `stale-attempt`: stop working on it) and
    `TidelogConnectionError`; the latter only after `PATIENCE`.
    """

    def __init__(self, transport: Callable[[], Transport] | None = None) -> None:
        """`transport`: makes what contents of blobs go over."""
        self._connect = transport
        self._transport: Transport | None = None
        self.session: Session | None = None
        """Set while the worker runs."""

    async def record_step(self, ticket: Ticket, key: str, result: JsonValue, fingerprint: str | None = None) -> None:
        await self._report("record", ticket, {"key": key, "kind": "step", "result": result, **_said(fingerprint=fingerprint)})

    async def request_call(
        self, ticket: Ticket, key: str, tool: str, arguments: JsonValue, fingerprint: str | None = None
    ) -> CallAnswer:
        fields = {"key": key, "tool": tool, "arguments": arguments, **_said(fingerprint=fingerprint)}
        return parsed(CallAnswer, await self._report("call", ticket, fields))

    async def start_wait(self, ticket: Ticket, key: str, wait: Wait) -> None:
        until = None if wait.until is None else wait.until.isoformat()
        question = None if wait.question is None else dict(wait.question)
        said = _said(name=wait.name, s=wait.delay_s, until=until, fingerprint=wait.fingerprint, question=question)
        await self._report("wait", ticket, {"key": key, "kind": wait.kind, **said})

    async def start_child(self, ticket: Ticket, key: str, child: Child, fingerprint: str) -> None:
        said = _said(agent=child.agent, workflow=child.workflow, version=child.version, plan=child.plan, input=child.input)
        await self._report("child", ticket, {"key": key, "fingerprint": fingerprint, **said})

    async def suspend(self, ticket: Ticket, seen: int, receives: Sequence[dict[str, JsonValue]]) -> bool:
        """The agent leaves the worker until something comes. False: something has come, and the agent goes on here."""
        answer = await self._report("suspend", ticket, {"seen": seen, "receives": list(receives)})
        return answer.get("suspended") is True

    async def report_progress(self, ticket: Ticket, progress: Progress) -> None:
        """How far the agent is. The server may leave a note out, if they come too often."""
        await self._report("progress", ticket, progress.fields())

    async def send_message(self, ticket: Ticket, key: str, to: str, body: JsonValue) -> UUID:
        return parsed(_MessageAnswer, await self._report("send", ticket, {"key": key, "to": to, "body": body})).message_id

    async def record_receipt(self, ticket: Ticket, key: str, message_id: UUID | None) -> None:
        await self._report("receive", ticket, {"key": key, "message_id": None if message_id is None else str(message_id)})

    async def read_state(self, ticket: Ticket, key: str, name: str) -> StateValue:
        return parsed(StateValue, await self._report("get", ticket, {"key": key, "name": name}))

    async def write_state(self, ticket: Ticket, key: str, name: str, value: JsonValue, expect: int | None) -> StateValue:
        fields = {"key": key, "name": name, "value": value, "expect": expect}
        return parsed(StateValue, await self._report("set", ticket, fields, replace(PATIENCE, conflicts=expect is None)))

    async def put_schedule(
        self, ticket: Ticket, key: str, name: str, definition: dict[str, JsonValue], in_s: float | None
    ) -> JsonValue:
        said = {} if in_s is None else {"in_s": in_s}
        answer = await self._report("schedule", ticket, {"key": key, "name": name, "definition": definition, **said})
        return parsed(_ScheduleAnswer, answer).result

    async def remove_schedule(self, ticket: Ticket, key: str, name: str, reason: str | None) -> JsonValue:
        said = {} if reason is None else {"reason": reason}
        return parsed(_ScheduleAnswer, await self._report("unschedule", ticket, {"key": key, "name": name, **said})).result

    async def news(self, ticket: Ticket, after_version: int) -> JournalUpdate:
        """The changes after a version, all pages."""
        entries: list[JournalEntry] = []
        mails: list[Mail] = []
        while True:
            page = parsed(JournalUpdate, await self._report("more", ticket, {"after": after_version}))
            entries += page.journal
            mails += page.mailbox
            if not page.more:
                return replaced(page, journal=tuple(entries), mailbox=tuple(mails))
            after_version = page.version

    async def result_of(self, ticket: Ticket, step: str) -> JsonValue:
        """The result of a step before, which was too large for the work's message."""
        value: JsonValue = (await self._report("more", ticket, {"result": step})).get("result")
        return value

    async def complete(
        self, ticket: Ticket, result: JsonValue, unused_keys: Sequence[str] = (), usage: Mapping[str, Any] | None = None
    ) -> None:
        """`usage`: what a call has used, as far as its tool says."""
        more: dict[str, Any] = {"unused_keys": list(unused_keys)} if unused_keys else {}
        await self._report("complete", ticket, {"result": result, **more, **({"usage": dict(usage)} if usage else {})})

    async def reconciled(self, ticket: Ticket, answer: Reconciled) -> None:
        await self._report("reconciled", ticket, {"outcome": answer.outcome, "result": answer.result})

    async def fail(
        self, ticket: Ticket, error: ErrorReport, effect: str | None = None, usage: Mapping[str, Any] | None = None
    ) -> bool:
        """Whether the work is tried again. `effect`: `unknown` for a call that may have had its effect all the same.

        A server that refuses the report as a whole gets its core: work that has failed must not be executed again because of its
        report.
        """
        more: dict[str, Any] = {} if effect is None else {"effect": effect}
        more |= {"usage": dict(usage)} if usage else {}
        try:
            answer = await self._report("fail", ticket, {"error": error.model_dump(exclude_defaults=True), **more})
        except InvalidRequestError:
            answer = await self._report("fail", ticket, {"error": error.core().model_dump(exclude_defaults=True), **more})
        return answer.get("retry") is True

    async def give_back(self, ticket: Ticket, reason: str) -> None:
        """Another worker should get the work."""
        await self._report("return", ticket, {"reason": reason})

    def blobs_of(self, ticket: Ticket) -> BlobAccess:
        """The blobs of the run whose work it is. They go over requests of their own, to the same server and with the same key."""
        if self._connect is None:
            return NoBlobs("this worker has no way to blobs")
        lease = {LEASE: f"{ticket.work} {ticket.attempt} {ticket.token}"}
        return HttpBlobs(self._http, "/v1/work/blobs", lease, retry=PATIENCE)

    def _http(self) -> Transport:
        if self._transport is None:
            assert self._connect is not None
            self._transport = self._connect()
        return self._transport

    async def close(self) -> None:
        """Ends the connections that contents of blobs went over."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.close()

    def log_of(self, ticket: Ticket) -> WorkLog:
        """Takes what an attempt logs."""

        def put(line: bytes) -> None:
            if self.session is not None:
                self.session.log(ticket.head, line)

        return WorkLog(put)

    async def _report(
        self, kind: str, ticket: Ticket, fields: Mapping[str, Any], patience: RetryPolicy = PATIENCE
    ) -> dict[str, Any]:
        session = self.session
        if session is None:
            raise TidelogConnectionError("the worker does not run")
        began, failures = time.monotonic(), 0
        while True:
            if session.full:
                await session.room()
            try:
                return await session.ask(kind, fields, ticket.head)
            except TidelogAPIError as error:
                if not error.retryable or (isinstance(error, ConflictError) and not patience.conflicts):
                    raise
                delay_s = max(error.retry_after_s or 0.0, patience.delay_s(failures))
                if time.monotonic() - began + delay_s > patience.max_elapsed_s:
                    raise
            failures += 1
            await asyncio.sleep(delay_s)


def _said(**fields: JsonValue) -> dict[str, JsonValue]:
    return {name: value for name, value in fields.items() if value is not None}


def parsed(model: type[M], answer: Any) -> M:
    """Raises TidelogConnectionError for an answer of another form."""
    try:
        return model.model_validate(answer)
    except ValidationError as error:
        raise TidelogConnectionError(f"the server's answer is not what this version of the SDK knows: {error}") from error


def replaced(model: M, **fields: Any) -> M:
    return model.model_copy(update=fields)
