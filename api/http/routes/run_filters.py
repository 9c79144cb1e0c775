"""The filters of lists of runs, and of their numbers."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args
from uuid import UUID

from fastapi import Depends, Query, Request

from api.http.conventions.narrowing import projects_of
from application.engine.reading.as_of import time_of
from application.reads import RunsWanted
from application.suggestions import did_you_mean
from domain.concurrency import LONGEST_KEY
from domain.errors import InvalidCommand

Status = Literal["queued", "running", "paused", "completed", "failed", "cancelled", "degraded"]
STATUSES: tuple[str, ...] = get_args(Status)
MAX_NAME = 500
MAX_ORIGIN = 600
NamedValues = Annotated[
    list[str] | None, Query(description="`name=value`: runs whose metadata have this value. A value that is no string: its JSON")
]
Time = Annotated[str | None, Query(description="An RFC 3339 time with its zone")]


@dataclass(frozen=True, slots=True)
class RunFilters:
    """A run is listed if all filters hold."""

    project_id: UUID | None = None
    agent: Annotated[str | None, Query(description="Runs with a step of this agent")] = None
    actor: Annotated[str | None, Query(description="Runs that this one started: `key:` and the id of a key")] = None
    on_behalf_of: Annotated[str | None, Query(description="Runs that were started on behalf of this one")] = None
    metadata: NamedValues = None
    error: Annotated[str | None, Query(description="Words that the errors of the run and of its failed steps have")] = None
    started_after: Time = None
    started_before: Time = None
    parent: Annotated[UUID | None, Query(description="Runs that steps of this run started")] = None
    workflow: Annotated[
        str | None, Query(max_length=MAX_NAME, description="Runs of this workflow: `name`, or `name@version` for one version")
    ] = None
    origin: Annotated[
        str | None,
        Query(
            max_length=MAX_ORIGIN, description="Runs that this started: `schedule`, or `schedule:name` for one; `trigger:name` …"
        ),
    ] = None
    concurrency_key: Annotated[
        str | None, Query(max_length=LONGEST_KEY, description="Runs with this key: those that hold it, wait for it, or had it")
    ] = None
    unmoved_s: Annotated[
        float | None, Query(ge=0, le=1e9, description="Open runs to which nothing has happened for so many seconds")
    ] = None
    longer_s: Annotated[
        float | None, Query(ge=0, le=1e9, description="Runs that took so many seconds, or have gone on for so long")
    ] = None
    shorter_s: Annotated[
        float | None, Query(ge=0, le=1e9, description="Runs that took less than so many seconds, or have gone on for less")
    ] = None

    def wanted(self, request: Request, limit: int, before: UUID | None = None, status: str | None = None) -> RunsWanted:
        """A page of the list. `status`: one, or several with commas between them. Raises InvalidCommand."""
        since, end = time_of("started_after", self.started_after), time_of("started_before", self.started_before)
        statuses = _statuses(status)
        if self.unmoved_s is not None and status is None:
            statuses = ["running"]
        one = statuses[0] if len(statuses) == 1 else None
        return RunsWanted(
            limit, before, one, self.project_id, self.agent, self.actor, self.on_behalf_of, _named(self.metadata or []), self.error,
            since, end, projects_of(request), self.parent, self.workflow, self.origin, self.unmoved_s,
            concurrency_key=self.concurrency_key, statuses=statuses if one is None else (), longer_s=self.longer_s,
            shorter_s=self.shorter_s,
        )  # fmt: skip


Filters = Annotated[RunFilters, Depends()]


def _statuses(text: str | None) -> list[str]:
    """Raises InvalidCommand."""
    if text is None:
        return []
    found = list(dict.fromkeys(text.split(",")))
    for status in found:
        if status not in STATUSES:
            meant = did_you_mean(status, STATUSES)
            raise InvalidCommand(f"unknown status '{status}'{meant}; statuses are {', '.join(STATUSES)}", pointer="/status")
    return found


def _named(metadata: list[str]) -> list[tuple[str, str]]:
    """Names and values. Raises InvalidCommand."""
    if any("=" not in given for given in metadata):
        raise InvalidCommand("metadata must be a name, `=` and a value", pointer="/metadata")
    return [(name, value) for name, _, value in (given.partition("=") for given in metadata)]
