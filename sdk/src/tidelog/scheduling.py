"""`ctx.schedule` and `ctx.unschedule`: an agent makes schedules, once for each key of its journal."""

from collections.abc import Coroutine, Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from tidelog.compensation import Compensate
from tidelog.errors import PermanentError
from tidelog.journal import Journal, Recorder
from tidelog.schedules import CatchUp, Overlap, start_of, when_of
from tidelog.values import to_json


class Scheduled(BaseModel):
    """A schedule that an agent has made. `name`: with that of the agent in front, as others see it. `status`: active, or paused
    where somebody has paused it."""

    model_config = ConfigDict(frozen=True)
    name: str
    status: str
    next_at: datetime | None = None


class Scheduling:
    """What a `Context` can do with schedules."""

    _journal: Journal
    _recorder: Recorder

    def schedule(
        self,
        name: str,
        *,
        cron: str | None = None,
        time_zone: str | None = None,
        every_s: int | None = None,
        anchored_at: datetime | None = None,
        at: datetime | None = None,
        in_s: float | None = None,
        agent: str | None = None,
        workflow: str | None = None,
        version: int | None = None,
        plan: Mapping[str, Any] | None = None,
        input: Any = None,
        input_from: str | Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        priority: Literal["high", "normal", "low"] | None = None,
        compensate: Compensate | None = None,
        deadline_s: float | None = None,
        budget: Mapping[str, Any] | None = None,
        start_at: datetime | None = None,
        end_at: datetime | None = None,
        jitter_s: int = 0,
        catch_up: CatchUp = "last",
        overlap: Overlap = "skip",
        description: str | None = None,
        key: str | None = None,
    ) -> Coroutine[Any, Any, Scheduled]:
        """Start runs by the clock, in the project of this run. One of `cron` (with `time_zone`), `every_s`, `at`, `in_s` says when.

        Without `agent`, `workflow` and `plan` the runs are of this agent. The schedule is called by the name of the agent, a dot
        and `name`. If there is one that an agent of this name has made in this project, it gets this definition. A schedule that
        somebody has paused stays paused.

        Raises:
            PermanentError: the server refused: the name is another's, it would never be due, what it starts is not there, or there
            are too many schedules.
        """
        own_key = self._journal.take_key(key, f"schedule:{name}")
        if sum(one is not None for one in (cron, every_s, at, in_s)) != 1:
            raise PermanentError("give exactly one of cron, every_s, at and in_s")
        given: dict[str, Any] = {
            "start_at": _rfc3339(start_at, "start_at"), "end_at": _rfc3339(end_at, "end_at"), "jitter_s": jitter_s or None,
            "catch_up": None if catch_up == "last" else catch_up, "overlap": None if overlap == "skip" else overlap,
            "description": description,
        }  # fmt: skip
        try:
            when = {} if in_s is not None else {"when": when_of(cron, time_zone, every_s, anchored_at, at)}
            if agent is None and workflow is None and plan is None:
                agent = self._own_name()
            start = start_of(
                workflow, version, agent, plan, input, input_from, metadata, priority, compensate, deadline_s, budget
            )  # fmt: skip
        except ValueError as error:
            raise PermanentError(str(error)) from error
        definition = {**when, "start": start, **{field: value for field, value in given.items() if value is not None}}
        return self._schedule(own_key, name, definition, in_s)

    def unschedule(self, name: str, *, reason: str | None = None, key: str | None = None) -> Coroutine[Any, Any, bool]:
        """Remove a schedule that an agent of this name has made in this project. Its runs go on. Returns whether there was one."""
        return self._unschedule(self._journal.take_key(key, f"unschedule:{name}"), name, reason)

    def _own_name(self) -> str:
        raise NotImplementedError

    async def _schedule(self, key: str, name: str, definition: dict[str, Any], in_s: float | None) -> Scheduled:
        recorded = self._journal.find(key)
        if recorded is None:
            plain = to_json(definition, f"the schedule {name!r}")
            assert isinstance(plain, dict)
            return _read(key, await self._recorder.put_schedule(key, name, plain, in_s))
        return _read(key, recorded.result)

    async def _unschedule(self, key: str, name: str, reason: str | None) -> bool:
        recorded = self._journal.find(key)
        result = await self._recorder.remove_schedule(key, name, reason) if recorded is None else recorded.result
        if not isinstance(result, dict) or not isinstance(result.get("was_there"), bool):
            raise PermanentError(f"what is recorded under {key!r} is not the end of a schedule")
        return bool(result["was_there"])


def _read(key: str, result: JsonValue) -> Scheduled:
    try:
        return Scheduled.model_validate(result)
    except ValidationError as error:
        raise PermanentError(f"what is recorded under {key!r} is not a schedule") from error


def _rfc3339(moment: datetime | None, what: str) -> str | None:
    if moment is not None and moment.tzinfo is None:
        raise PermanentError(f"{what} has no time zone")
    return None if moment is None else moment.isoformat()
