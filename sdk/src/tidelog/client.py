"""`Client`: start runs, follow them, read the log."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote
from uuid import UUID

import pydantic_core
from uuid_utils.compat import uuid7

from tidelog.administration import Administration
from tidelog.approvals import ClientApprovals
from tidelog.blobs import ClientBlobs
from tidelog.bodies import object_of, plan_of
from tidelog.budgets import ClientBudgets, amounts_of
from tidelog.bulk import ClientBulk
from tidelog.catalog import Catalog
from tidelog.commands import CommandClient
from tidelog.compensation import Compensate, CompensationClient, OnBusy
from tidelog.errors import (
    HistoryReplaced,
    PositionBeyondHead,
    TidelogAPIError,
    TidelogConnectionError,
)
from tidelog.event_stream import Contact, event_of, replaced, stream, streamed
from tidelog.large import fill, fill_run, value_of
from tidelog.models import (
    AgentInfo,
    AgentMessage,
    Event,
    Invocation,
    InvocationSummary,
    JournalEntry,
    LargeValue,
    LoggedLine,
    Part,
    ResolvedInvocation,
    Run,
    RunCall,
    RunPage,
    RunSummary,
    StartedRun,
    WorkerInfo,
)
from tidelog.plan_checks import PlanChecks
from tidelog.requests import parse
from tidelog.schedules import ClientSchedules
from tidelog.tool_calls import ToolCalls
from tidelog.transport import json_of
from tidelog.triggers import ClientTriggers
from tidelog.values import to_json
from tidelog.workflows import WorkflowClient, named_version

RUN_ENDS = frozenset({"run.completed", "run.failed", "run.cancelled"})

_NOT_GIVEN: Any = object()


def _as_of(moment: int | datetime | None) -> dict[str, str]:
    """The query of a read as of a position or a time."""
    return {} if moment is None else {"as_of": moment.isoformat() if isinstance(moment, datetime) else str(moment)}


def _rfc3339(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


class Client(CompensationClient, Administration, Catalog, WorkflowClient, CommandClient, ToolCalls, PlanChecks):
    """A client of one Tidelog server. Use as an async context manager.

    `url`, `api_key`: default TIDELOG_URL and TIDELOG_API_KEY. `patience_s`: seconds for which requests are repeated when the server
    is away or overloaded (also the start of a run, which carries an idempotency key). Reads see every earlier write of this client.

    `proxy`: URL of the proxy to a server elsewhere, default TIDELOG_PROXY; where the server's URL begins with http, the proxy reads
    the API key. Without one: for https the environment's proxy (HTTPS_PROXY, ALL_PROXY, NO_PROXY), for http none. A server on this
    machine is never asked through a proxy.

    `on_behalf_of`: for whom this client asks, unless a call says it: 1 to 200 printable characters, such as a person's id. The
    events of a command have it, and all that comes of a run. It is recorded for ever, and nobody checks whether it is true.

    All methods raise `TidelogAPIError` (the server refused) or `TidelogConnectionError` (the server could not be reached). The
    constructor raises `TidelogConnectionError`, too, where the URL or the proxy (`ProxySettingError`) cannot be used.
    """

    @property
    def blobs(self) -> ClientBlobs:
        """Contents that are too large for the log: `put`, `get`, `list`, `delete`."""
        return ClientBlobs(self)

    @property
    def approvals(self) -> ClientApprovals:
        """What waits for people: `list`, `get`, `approve`, `deny`; and the policies that ask for it."""
        return ClientApprovals(self)

    @property
    def bulk(self) -> ClientBulk:
        """Commands for many runs at once: `find`, `start`, `get`, `wait`, `cancel`, `list`."""
        return ClientBulk(self)

    @property
    def budgets(self) -> ClientBudgets:
        """What runs may spend: `list`, `get`, `of_run`, `set`, `lift`, `remove`, `usage`."""
        return ClientBudgets(self)

    @property
    def schedules(self) -> ClientSchedules:
        """Runs that begin by the clock: `create`, `get`, `list`, `change`, `pause`, `resume`, `run_now`, `remove`, `preview`."""
        return ClientSchedules(self)

    @property
    def triggers(self) -> ClientTriggers:
        """What starts when something happens: `create`, `dry_run`, `firings`, and the others."""
        return ClientTriggers(self)

    # --- runs ---

    async def start_run(
        self,
        *,
        agent: str | None = None,
        agents: Sequence[str] | None = None,
        plan: Mapping[str, Any] | None = None,
        workflow: str | None = None,
        input: Any = None,
        project_id: UUID | None = None,
        metadata: Mapping[str, Any] | None = None,
        priority: Literal["high", "normal", "low"] | None = None,
        compensate: Compensate | None = None,
        deadline_s: float | None = None,
        budget: Mapping[str, Any] | None = None,
        concurrency_key: str | None = None,
        on_busy: OnBusy | None = None,
        idempotency_key: str | None = None,
        wait_s: float | None = None,
        on_behalf_of: str | None = None,
    ) -> StartedRun:
        """Start a run of one agent, of several in sequence, of a plan (see the HTTP reference), or of a workflow: exactly one
        of the four.

        `workflow`: its name, or `name@3` for a version. Priority, compensation and metadata are those of the workflow, unless they
        are given; without a workflow they are `normal`, `never` and empty.
        `priority`: the class of the run. Its work waits for workers among the work of its class: `high` goes first, `low` last.
        `compensate`: when the effects of the run are taken back, by the tools that its tools name for that (`@tool(compensate=…)`).
        `deadline_s`: seconds after which the run fails, if it has not ended.
        `budget`: what the run may spend, with its child runs: `money`, `tokens`, `calls`, `wall_s`, `on_spent` and `ask`.
        `concurrency_key`: of the runs of a project with this key, one goes on at a time. `on_busy`: what the start does while
        another run holds the key: `queue` (if not given): the run waits for its turn; `reject`: the start is refused; `replace`:
        the run that holds the key is cancelled, and so are those that wait for it.
        `idempotency_key`: the same key starts the same run once; if not given, the client makes a key, so that retries of this call
        are safe.
        `wait_s`: seconds for which the server waits for the outcome; `.run` is then the run at the end of the wait.
        `on_behalf_of`: for whom the run is, see `Client`; so it is for all commands.
        Input, metadata and plan are converted like values of a `Context`: pydantic models, dataclasses, dates, UUIDs, sets.

        Raises:
            NotJsonError, ValueTooDeepError: a value has no JSON form, or more than 64 levels; nothing was sent.
        """
        if sum(choice is not None for choice in (agent, agents, plan, workflow)) != 1:
            raise ValueError("give exactly one of agent, agents, plan and workflow")
        body: dict[str, Any]
        if agent is not None:
            body = {"agent": agent}
        elif workflow is not None:
            body = {"workflow": named_version(workflow)}
        else:
            body = {"plan": plan_of(plan) if plan is not None else {"kind": "sequential", "agents": list(agents or ())}}
        if project_id is not None:
            body["project_id"] = str(project_id)
        if metadata is not None:
            body["metadata"] = object_of(metadata, "the metadata")
        terms = (("priority", priority), ("compensate", compensate), ("deadline_s", deadline_s))
        body |= {name: said for name, said in terms if said is not None}
        if concurrency_key is not None:
            body["concurrency"] = {"key": concurrency_key} | ({} if on_busy is None else {"on_busy": on_busy})
        elif on_busy is not None:
            raise ValueError("on_busy goes with concurrency_key")
        if budget is not None:
            body["budget"] = amounts_of(budget)
        body["input"] = to_json(input, "the input", max_bytes=None)
        headers = {"Idempotency-Key": idempotency_key or str(uuid7()), **self._for(on_behalf_of)}
        if wait_s is not None:
            headers["Prefer"] = f"wait={int(wait_s)}"
        response = await self._request("POST", "/v1/runs", body=body, headers=headers, read_timeout_s=30 + (wait_s or 0))
        answer = json_of(response)
        if wait_s is not None and isinstance(answer, dict) and isinstance(answer.get("run"), dict):
            await fill_run(answer["run"], self._get)
        return self._noted(parse(StartedRun, answer))

    async def get_run(self, run_id: UUID, *, as_of: int | datetime | None = None, whole: bool = True) -> Run:
        """A run with its steps, now or as of `as_of`: a position of the log or a time.

        `whole`: with large values, which are read one by one; else they are left out, and named in `large` (`HoldsLarge`). So it is
        for all methods with `whole`.
        """
        return await self._run(await self._get(f"/v1/runs/{run_id}", _as_of(as_of)), whole)

    async def result(self, run_id: UUID, *, step: str | None = None, as_of: int | datetime | None = None) -> Any:
        """The result of a run, or of one of its steps, alone. Raises `NotFoundError` if there is none (yet)."""
        return await self._get(f"/v1/runs/{run_id}" + (f"/steps/{step}/result" if step else "/result"), _as_of(as_of))

    async def value(self, large: LargeValue) -> Any:
        """A value that was left out with `whole=False`."""
        return await value_of(large.ref, self._get)

    async def wait(self, run_id: UUID, timeout: float | None = None, *, whole: bool = True) -> Run:
        """Wait for the end of the run, whatever the outcome, and return the run.

        Raises:
            TimeoutError: the run did not end within `timeout` seconds.
        """
        async with asyncio.timeout(timeout):
            while True:
                try:
                    run = parse(Run, answer := await self._get(f"/v1/runs/{run_id}", {}))
                    if run.finished:
                        return await self._run(answer, whole)
                    async with aclosing(self.events(run_id, after=run.position)) as events:
                        async for event in events:
                            if event.type in RUN_ENDS:  # the stream may go on with what the run leaves behind
                                break
                    # The next read shows at least what this read showed.
                except (HistoryReplaced, PositionBeyondHead):
                    pass  # the next read shows the log of now, if the log has the run at all
                await asyncio.sleep(0.1)

    async def list_runs(
        self,
        *,
        limit: int = 50,
        cursor: str | None = None,
        status: str | None = None,
        project_id: UUID | None = None,
        agent: str | None = None,
        actor: str | None = None,
        on_behalf_of: str | None = None,
        metadata: Mapping[str, str | int | float | bool | None] | None = None,
        error: str | None = None,
        started_after: datetime | None = None,
        started_before: datetime | None = None,
        as_of: int | datetime | None = None,
        parent: UUID | None = None,
        workflow: str | None = None,
        origin: str | None = None,
        concurrency_key: str | None = None,
        unmoved_s: float | None = None,
    ) -> RunPage:
        """Runs, newest first, one page of at most `limit`: those for which all given filters hold.

        `status="degraded"`: completed runs whose `missing` steps failed. `agent`: has a step in the run. `actor`: started the run,
        as `key:<key id>`. `metadata`: values that the run's metadata has; no lists and objects. `error`: words that the errors of
        the run and of its failed steps have, all of them; not with `as_of`. `started_after` is the first time that counts,
        `started_before` the first that does not. `parent`: the run whose steps started the runs. `workflow`: a name, or
        name@version. `origin`: what started them, as `schedule` or `schedule:nightly`. `concurrency_key`: the key that
        they share. `as_of`: the list as it was at a position or a time. `unmoved_s`: open runs to which nothing has happened for
        so many seconds; running ones, without a `status`.

        With `as_of` or several filters, a page before the last one may have fewer runs than `limit`: read on with `next_cursor`.
        """
        given = {
            "limit": limit, "cursor": cursor, "status": status, "project_id": project_id, "agent": agent, "actor": actor,
            "on_behalf_of": on_behalf_of, "error": error, "started_after": _rfc3339(started_after),
            "started_before": _rfc3339(started_before), "parent": parent, "workflow": workflow, "origin": origin,
            "concurrency_key": concurrency_key, "unmoved_s": unmoved_s,
        }  # fmt: skip
        wanted: dict[str, Any] = {name: str(v) for name, v in given.items() if v is not None} | _as_of(as_of)
        if metadata:
            wanted["metadata"] = [
                f"{name}={v if isinstance(v, str) else pydantic_core.to_json(v).decode()}" for name, v in metadata.items()
            ]
        return parse(RunPage, await self._get("/v1/runs", wanted))

    async def messages(self, run_id: UUID, *, as_of: int | datetime | None = None, whole: bool = True) -> list[AgentMessage]:
        """All messages between the agents of a run. `as_of`: as they were at a position or a time. `whole`: see `get_run`."""
        return await self._filled(AgentMessage, f"/v1/runs/{run_id}/messages", _as_of(as_of), whole)

    async def calls(self, run_id: UUID, *, as_of: int | datetime | None = None, whole: bool = True) -> list[RunCall]:
        """All tool calls of a run, in the order of their start. `as_of`: as they were at a position or a time."""
        return await self._filled(RunCall, f"/v1/runs/{run_id}/calls", _as_of(as_of) | {"limit": "1000"}, whole)

    async def parts(self, run_id: UUID, step: str, *, as_of: int | datetime | None = None, whole: bool = True) -> list[Part]:
        """All parts of a step, in the order of their numbers, with their values. `as_of`: as they were at a position or a time."""
        path = f"/v1/runs/{run_id}/steps/{quote(step, safe='')}/parts"
        return await self._filled(Part, path, _as_of(as_of) | {"limit": "1000"}, whole)

    async def children(self, run_id: UUID, *, as_of: int | datetime | None = None) -> list[RunSummary]:
        """The runs that steps of the run started, newest first. `as_of`: as they were at a position or a time."""
        return [run async for run in self._all(RunSummary, f"/v1/runs/{run_id}/children", _as_of(as_of) | {"limit": "1000"})]

    async def forks(self, run_id: UUID, *, as_of: int | datetime | None = None) -> list[RunSummary]:
        """The runs that were forked from a run, newest first. `as_of`: as they were at a position or a time."""
        return [run async for run in self._all(RunSummary, f"/v1/runs/{run_id}/forks", _as_of(as_of) | {"limit": "1000"})]

    async def journal(self, run_id: UUID, *, as_of: int | datetime | None = None, whole: bool = True) -> list[JournalEntry]:
        """What the agents of a run have finished, in the order of the log. `as_of`: as it was at a position or a time."""
        return await self._filled(JournalEntry, f"/v1/runs/{run_id}/journal", _as_of(as_of) | {"limit": "1000"}, whole)

    async def run_logs(
        self, run_id: UUID, *, after: int = 0, level: str | None = None, agent: str | None = None, step: str | None = None
    ) -> list[LoggedLine]:
        """What the agents and tools of a run have logged, behind line number `after`. `level`: of this level or a higher one."""
        given = {"after": str(after), "level": level, "agent": agent, "step": step, "limit": "1000"}
        wanted = {name: value for name, value in given.items() if value is not None}
        return [line async for line in self._all(LoggedLine, f"/v1/runs/{run_id}/logs", wanted)]

    # --- tool calls ---

    async def invocations(
        self,
        *,
        status: str | None = None,
        run_id: UUID | None = None,
        asked_by: str | None = None,
        as_of: int | datetime | None = None,
    ) -> list[InvocationSummary]:
        """Tool calls, those of the newest runs first. `status="ambiguous"`: calls that wait for a person to say what happened.
        `asked_by="client"`: calls without a run.

        `as_of`: the list as it was at a position or a time.
        """
        given = {"status": status, "run_id": None if run_id is None else str(run_id), "asked_by": asked_by}
        params = {name: value for name, value in given.items() if value is not None} | _as_of(as_of)
        return [call async for call in self._all(InvocationSummary, "/v1/invocations", params)]

    async def invocation(self, invocation_id: UUID, *, as_of: int | datetime | None = None, whole: bool = True) -> Invocation:
        """A tool call with its arguments and its outcome, now or as of a position or a time. `whole`: see `get_run`."""
        answer = await self._get(f"/v1/invocations/{invocation_id}", _as_of(as_of))
        if whole and isinstance(answer, dict):
            await fill([answer], self._get)
        return parse(Invocation, answer)

    async def resolve(
        self,
        invocation_id: UUID,
        *,
        reason: str,
        result: Any = _NOT_GIVEN,
        error: str | Mapping[str, Any] | None = None,
        not_happened: bool = False,
        attempt: int | None = None,
        evidence: Any = None,
        on_behalf_of: str | None = None,
    ) -> ResolvedInvocation:
        """Record what became of an ambiguous tool call: its `result` (JSON; may be None), the `error` with which it failed, or that
        it did not happen, so that the tool is called again, with the same key.

        Give exactly one of the three. `attempt`: the attempt that you speak of; None: the newest. `reason`: how you know the
        outcome; recorded together with the id of your API key. `error`: a message, or `{type, message, kind}`. `evidence`: any
        value. The first resolution counts: `ConflictError` with code `already-resolved` if there is a different one already.
        Values are converted like those of `start_run`.
        """
        if (result is not _NOT_GIVEN) + (error is not None) + not_happened != 1:
            raise ValueError("give exactly one of result, error and not_happened")
        body: dict[str, Any] = {"reason": reason} | ({} if attempt is None else {"attempt": attempt})
        if not_happened:
            body["not_happened"] = True
        elif error is None:
            body["result"] = to_json(result, "the result", max_bytes=None)
        else:
            failed = {"type": "ResolvedByHand", "message": error} if isinstance(error, str) else error
            body["error"] = object_of(failed, "the error")
        if evidence is not None:
            body["evidence"] = to_json(evidence, "the evidence", max_bytes=None)
        headers = self._for(on_behalf_of)
        response = await self._request("POST", f"/v1/invocations/{invocation_id}/resolve", body=body, headers=headers)
        return parse(ResolvedInvocation, json_of(response))

    # --- the log ---

    async def events(
        self,
        run_id: UUID | None = None,
        *,
        after: int | str = 0,
        follow: bool = True,
        types: Sequence[str] = (),
        actor: str | None = None,
        on_behalf_of: str | None = None,
        recorded_after: datetime | None = None,
        recorded_before: datetime | None = None,
        give_up_after_s: float = 300.0,
    ) -> AsyncGenerator[Event, None]:
        """Events in order of position: of one run (ends when the run is finished and its last attempts of tools have an outcome),
        or of the whole tenant (does not end).

        Each event after `after` (a position, or the `cursor` of an event) comes once: after a lost connection the stream goes on
        behind the last event. `follow=False`: only the events that exist now. `types`: only events of these types, as
        `run.started`. `actor`, `on_behalf_of`: only what this one asked for, as `key:<key id>`, and what was asked for on behalf of
        this one; of a run with `follow=False`. `recorded_after`, `recorded_before`: with `follow=False`, only events from this time
        on, and before that time. `give_up_after_s`: seconds for which the server may be away before `TidelogConnectionError` is
        raised.

        Raises:
            ValueError: a time was given for events that are followed, or an actor for a run that is followed.
            HistoryReplaced: the log was restored and has lost events that you have. The error says from where to go on. To learn of
                a restore after a restart of your program, keep the `cursor` of the last event, not only its position.
            UnreadableEventError: an event came that this version of the SDK cannot read. Another request would bring the same.
        """
        path = "/v1/events" if run_id is None else f"/v1/runs/{run_id}/events"
        params = {"types": ",".join(types)} if types else {}
        asked = {name: who for name, who in (("actor", actor), ("on_behalf_of", on_behalf_of)) if who is not None}
        if asked and run_id is not None:
            if follow:
                raise ValueError("actor and on_behalf_of of a run's events are for follow=False")
            path, params = "/v1/events", {**params, "root_id": str(run_id)}
        params |= asked
        times = {"recorded_after": _rfc3339(recorded_after), "recorded_before": _rfc3339(recorded_before)}
        within = {name: time for name, time in times.items() if time is not None}
        if follow and within:
            raise ValueError("recorded_after and recorded_before are for follow=False")
        if not follow:
            params |= within
            async for found, history in self._items(path, {**params, "after": str(after)}):
                event = event_of(found)
                self._position = max(self._position, event.position)
                yield event.model_copy(update={"cursor": f"{event.position}-{history}" if history else str(event.position)})
            return
        cursor, reached = str(after), int(str(after).partition("-")[0])
        failures, contact = 0, Contact()
        while True:
            try:
                async with aclosing(stream(self._transport, path, params, cursor, contact)) as items:
                    async for item in items:
                        failures = 0
                        if item.event == "end":
                            return
                        if item.event == "resync":
                            break
                        if item.event == "reset":
                            raise replaced(item)
                        event = streamed(item)
                        if event.position > reached:
                            cursor, reached = item.id, event.position
                            self._position = max(self._position, reached)
                            yield event.model_copy(update={"cursor": cursor})
            except HistoryReplaced as lost:
                self._position = min(self._position, lost.last_common_position)
                raise
            except (TidelogConnectionError, TidelogAPIError) as error:
                if isinstance(error, TidelogAPIError) and not error.retryable:
                    raise
                if contact.seconds_ago() > give_up_after_s:
                    raise
                failures += 1
                wait_s = getattr(error, "retry_after_s", None) or 0.0
                await asyncio.sleep(max(wait_s, self._retry.delay_s(failures)))

    # --- agents, workers ---

    async def agents(self) -> list[AgentInfo]:
        """Agents that can be run."""
        return [agent async for agent in self._all(AgentInfo, "/v1/agents")]

    async def workers(self) -> list[WorkerInfo]:
        """Workers that have a session, by their ids."""
        return [worker async for worker in self._all(WorkerInfo, "/v1/workers")]

    # --- what all of them need ---

    async def _run(self, answer: Any, whole: bool) -> Run:
        if whole and isinstance(answer, dict):
            await fill_run(answer, self._get)
        return parse(Run, answer)
