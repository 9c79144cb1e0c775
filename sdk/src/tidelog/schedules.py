"""`client.schedules`: runs that begin by the clock."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import Field
from uuid_utils.compat import uuid7

from tidelog.audit import reason_header
from tidelog.bodies import object_of, plan_of
from tidelog.budgets import amounts_of
from tidelog.compensation import Compensate
from tidelog.models import Model
from tidelog.requests import Requests, parse
from tidelog.values import to_json

CatchUp = Literal["skip", "last", "all"]
Overlap = Literal["skip", "queue", "cancel", "allow"]

_STAYS: Any = object()


class ScheduleOutcome(Model):
    """What came of a time. `what`: fired, queued or skipped; `reason` of a skipped one: overlap, missed or refused."""

    what: str
    due_at: datetime
    at: datetime
    run_id: UUID | None = None
    """The run that was started, or that had not ended."""
    caught_up: int | None = None
    """Missed times for which this run stands, too."""
    missed: bool | None = None
    until: datetime | None = None
    count: int | None = None
    reason: str | None = None
    code: str | None = None
    message: str | None = None
    by: str | None = None
    """Who asked for a run out of turn."""


class ScheduleSummary(Model):
    """`status`: active, paused or finished. `starts`: what each run is, in words."""

    name: str
    schedule_id: UUID | None = None
    project_id: UUID | None = None
    status: str
    starts: str = ""
    when: Any = None
    description: str | None = None
    next_at: datetime | None = None
    waiting_at: datetime | None = None
    """A time that waits for the end of a run."""
    last: ScheduleOutcome | None = None
    fired: int = 0
    skipped: int = 0
    refused: int = 0
    """Starts in a row that were refused."""
    reason: str | None = None
    """Why it is paused."""
    version: int = 0


class ScheduleMaker(Model):
    agent: str
    run_id: UUID | None = None
    agent_run_id: UUID | None = None


class Schedule(ScheduleSummary):
    start: Any = None
    start_at: datetime | None = None
    end_at: datetime | None = None
    jitter_s: int = 0
    catch_up: str = "last"
    catch_up_s: int = 0
    late_after_s: int = 0
    overlap: str = "skip"
    created_at: datetime | None = None
    created_by: str | None = None
    made_by: ScheduleMaker | None = None
    """The agent that made it, and the run in which it did. None: a client of the API did."""
    on_behalf_of: str | None = None
    recent: list[ScheduleOutcome] = Field(default_factory=list)
    """What came of the last times, the newest first."""
    next_times: list[datetime] = Field(default_factory=list)


class PreviewedTime(Model):
    due_at: datetime
    starts_at: datetime
    """With the jitter."""
    local: str
    """`due_at` in the time zone of the schedule."""


def when_of(
    cron: str | None = None, time_zone: str | None = None, every_s: int | None = None, anchored_at: datetime | None = None,
    at: datetime | None = None,
) -> dict[str, Any]:  # fmt: skip
    """When a schedule is due. Raises ValueError unless exactly one of `cron`, `every_s` and `at` is given."""
    if sum(one is not None for one in (cron, every_s, at)) != 1:
        raise ValueError("give exactly one of cron, every_s and at")
    given = {
        "cron": cron, "time_zone": time_zone, "every_s": every_s, "anchored_at": _rfc3339(anchored_at, "anchored_at"),
        "at": _rfc3339(at, "at"),
    }  # fmt: skip
    return {name: value for name, value in given.items() if value is not None}


def _rfc3339(moment: datetime | None, what: str) -> str | None:
    if moment is not None and moment.tzinfo is None:
        raise ValueError(f"{what} has no time zone")
    return None if moment is None else moment.isoformat()


def start_of(
    workflow: str | None = None, version: int | None = None, agent: str | None = None,
    plan: Mapping[str, Any] | None = None, input: Any = None, input_from: str | Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None, priority: Literal["high", "normal", "low"] | None = None,
    compensate: Compensate | None = None, deadline_s: float | None = None, budget: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What each run of a schedule is. `agent`: a name, or `name@version`. `deadline_s`: seconds after which a run that has not
    ended fails. `budget`: what it may spend, as at its start.

    Raises ValueError unless exactly one of `workflow`, `agent` and `plan` is given.
    """
    if sum(one is not None for one in (workflow, agent, plan)) != 1:
        raise ValueError("give exactly one of workflow, agent and plan")
    given = {
        "workflow": workflow, "version": version, "agent": agent,
        "plan": None if plan is None else plan_of(plan), "input": to_json(input, "the input", max_bytes=None),
        "input_from": dict(input_from) if isinstance(input_from, Mapping) else input_from,
        "metadata": None if metadata is None else object_of(metadata, "the metadata"), "priority": priority,
        "compensate": compensate, "deadline_s": deadline_s, "budget": None if budget is None else amounts_of(budget),
    }  # fmt: skip
    return {name: value for name, value in given.items() if value is not None}


class ClientSchedules:
    """The schedules of the tenant. `when` and `start` are made by `when_of` and `start_of` of this module, or are given as objects.

    `reason` is for the audit trail.
    """

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    async def create(
        self,
        name: str,
        *,
        when: Mapping[str, Any],
        start: Mapping[str, Any],
        project_id: UUID | None = None,
        start_at: datetime | None = None,
        end_at: datetime | None = None,
        jitter_s: int = 0,
        catch_up: CatchUp = "last",
        catch_up_s: int = 86_400,
        late_after_s: int = 60,
        overlap: Overlap = "skip",
        description: str | None = None,
        paused: bool = False,
        idempotency_key: str | None = None,
        on_behalf_of: str | None = None,
    ) -> Schedule:
        """Creates a schedule. If there is one of the name with the same content, nothing happens.

        Raises:
            ConflictError: there is another one of the name.
            InvalidRequestError: it would never be due, or something in it is not right.
        """
        body: dict[str, Any] = {
            "name": name, "when": dict(when), "start": dict(start), "project_id": None if project_id is None else str(project_id),
            "start_at": _rfc3339(start_at, "start_at"), "end_at": _rfc3339(end_at, "end_at"), "jitter_s": jitter_s,
            "catch_up": catch_up, "catch_up_s": catch_up_s, "late_after_s": late_after_s, "overlap": overlap,
            "description": description, "paused": paused,
        }  # fmt: skip
        said = {field: value for field, value in body.items() if value is not None}
        await self._requests.send("POST", "/v1/schedules", said, key=idempotency_key or str(uuid7()), on_behalf_of=on_behalf_of)
        return await self.get(name)

    async def get(self, name: str) -> Schedule:
        return await self._requests.one(Schedule, f"/v1/schedules/{name}")

    def list(self) -> AsyncGenerator[ScheduleSummary, None]:
        """All schedules, by name."""
        return self._requests.every(ScheduleSummary, "/v1/schedules")

    async def change(
        self,
        name: str,
        *,
        when: Mapping[str, Any] | None = None,
        start: Mapping[str, Any] | None = None,
        start_at: datetime | None = _STAYS,
        end_at: datetime | None = _STAYS,
        jitter_s: int | None = None,
        catch_up: CatchUp | None = None,
        catch_up_s: int | None = None,
        late_after_s: int | None = None,
        overlap: Overlap | None = None,
        description: str | None = _STAYS,
        version: int | None = None,
    ) -> Schedule:
        """Changes what is given. `start_at`, `end_at`, `description`: None takes them away. `version`: the only one that may be
        changed; else PreconditionFailedError.
        """
        given: dict[str, Any] = {
            "when": None if when is None else dict(when), "start": None if start is None else dict(start), "jitter_s": jitter_s,
            "catch_up": catch_up, "catch_up_s": catch_up_s, "late_after_s": late_after_s, "overlap": overlap,
        }  # fmt: skip
        body = {field: value for field, value in given.items() if value is not None}
        if start_at is not _STAYS:
            body["start_at"] = _rfc3339(start_at, "start_at")
        if end_at is not _STAYS:
            body["end_at"] = _rfc3339(end_at, "end_at")
        if description is not _STAYS:
            body["description"] = description
        headers = {} if version is None else {"If-Match": f'"v{version}"'}
        await self._requests.send("PATCH", f"/v1/schedules/{name}", body, headers=headers)
        return await self.get(name)

    async def pause(self, name: str, reason: str | None = None) -> None:
        """No time counts until it is resumed."""
        await self._requests.send("POST", f"/v1/schedules/{name}/pause", {} if reason is None else {"reason": reason})

    async def resume(self, name: str, reason: str | None = None) -> None:
        """Times count again, from now on."""
        await self._requests.send("POST", f"/v1/schedules/{name}/resume", {} if reason is None else {"reason": reason})

    async def run_now(self, name: str, *, idempotency_key: str | None = None) -> UUID:
        """Starts a run out of turn, and returns its id. Raises ConflictError (`schedule-busy`) while a run of it goes on."""
        answer = await self._requests.send("POST", f"/v1/schedules/{name}/run-now", {}, key=idempotency_key or str(uuid7()))
        return parse(_Started, answer).run_id

    async def remove(self, name: str, reason: str | None = None) -> None:
        await self._requests.send("DELETE", f"/v1/schedules/{name}", headers=reason_header(reason))

    async def preview(
        self, when: Mapping[str, Any], *, after: datetime | None = None, start_at: datetime | None = None,
        end_at: datetime | None = None, count: int = 10,
    ) -> Sequence[PreviewedTime]:  # fmt: skip
        """The times of a schedule that need not exist."""
        moments = {"after": after, "start_at": start_at, "end_at": end_at}
        given = {field: _rfc3339(moment, field) for field, moment in moments.items() if moment is not None}
        answer = await self._requests.send("POST", "/v1/schedules:preview", {"when": dict(when), "count": count, **given})
        return parse(_Preview, answer).times


class _Started(Model):
    run_id: UUID


class _Preview(Model):
    times: list[PreviewedTime]
