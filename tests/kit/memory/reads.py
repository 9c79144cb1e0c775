"""Queries of runs in memory: folds of the log, without tables."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from adapters.memory.log import MemoryLog
from application.engine.ports.pages import Page, encode_cursor
from application.reads import DataTool, DueInRun, Positioned, RunCounts, RunsWanted
from application.views.activity import OpenRunCount
from application.views.large import Field, Held
from application.views.runs import (
    DEGRADED,
    GOING_ON,
    NEWEST_CALLS,
    JournalEntryView,
    OriginBrief,
    ParentBrief,
    PartView,
    RunCallView,
    RunSummary,
    RunView,
)
from domain.agents import AgentRegistered
from domain.errors import InvalidCommand
from domain.invocations import InvocationRequested, InvocationSucceeded
from domain.kernel import RecordedEvent
from domain.registry import REGISTRY
from domain.runs import ENDS, RunRetried, RunStarted
from domain.tools import DATA_KINDS, ToolRegistered, ToolRemoved
from projections import timers
from projections.run_terms import PROJECTION, terms_in, terms_of
from projections.runs.folded import calls_in, evolve_view, parts_of_step
from projections.runs.journal import journal
from projections.runs.queries import Kept, must_be_a_step, part_view
from projections.runs.values import held


class MemoryRunReads:
    """Implements `application.reads.RunReads`. It is never behind the log."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log

    async def get(self, tenant_id: UUID, run_id: UUID) -> Positioned[RunView | None]:
        self.log.reach()
        return Positioned(self._view(tenant_id, run_id), self.log.head)

    def _view(self, tenant_id: UUID, run_id: UUID, until: int | None = None) -> RunView | None:
        view: RunView | None = None
        for event in self.log.events[:until]:
            if (event.tenant_id, event.root_id) == (tenant_id, run_id):
                view = evolve_view(view, event)
        return view

    async def list(self, tenant_id: UUID, wanted: RunsWanted) -> Positioned[Page[RunSummary]]:
        return Positioned(await self.list_as_of(tenant_id, self.log.head, wanted), self.log.head)

    async def counts(self, tenant_id: UUID, wanted: RunsWanted) -> Positioned[RunCounts]:
        found = await self.list(tenant_id, wanted._replace(limit=10_000, before=None, status=None, statuses=()))
        counts = dict.fromkeys(("queued", "running", "paused", "completed", "failed", "cancelled", DEGRADED), 0)
        for run in found.value.data:
            if wanted.unmoved_s is not None and run.status not in GOING_ON:
                continue
            counts[run.status] += 1
            counts[DEGRADED] += run.degraded
        return Positioned(RunCounts(counts, frozenset()), found.position)

    def _took(self, view: RunView, wanted: RunsWanted) -> bool:
        took = ((view.finished_at or self.log.clock.now()) - view.created_at).total_seconds()
        return (wanted.longer_s is None or took >= wanted.longer_s) and (wanted.shorter_s is None or took < wanted.shorter_s)

    async def list_as_of(self, tenant_id: UUID, position: int, wanted: RunsWanted) -> Page[RunSummary]:
        self.log.reach()
        limit, before, status, project_id, *_ = wanted
        if (name := wanted.of_now) is not None and position < self.log.head:
            raise InvalidCommand(f"{name} cannot be combined with as_of", pointer=f"/{name}")
        terms = set(terms_of(tenant_id, wanted))
        events = [event for event in self.log.events if (event.tenant_id, event.topic) == (tenant_id, RunStarted.TOPIC)]
        started = {event.stream_id: (event.recorded_at, event.stream_id) for event in events}
        views = [view for run_id in started if (view := self._view(tenant_id, run_id, position)) is not None]
        views.sort(key=_place, reverse=True)
        if before is not None:
            if before not in started:
                raise InvalidCommand("the cursor is not one that this server gave out", pointer="/cursor")
            views = [view for view in views if _place(view) < started[before]]
        found = [
            _summary(view)
            for view in views
            if (status is None or status in _statuses(view))
            and (not wanted.statuses or {*wanted.statuses} & _statuses(view))
            and (wanted.within is None or view.project_id in wanted.within)
            and self._took(view, wanted)
            and project_id in (None, view.project_id)
            and terms <= self._terms(tenant_id, view.run_id)
            and (wanted.started_after is None or view.created_at >= wanted.started_after)
            and (wanted.started_before is None or view.created_at < wanted.started_before)
            and (wanted.unmoved_s is None or view.updated_at < self.log.clock.now() - timedelta(seconds=wanted.unmoved_s))
        ]
        page = found[:limit]
        cursor = encode_cursor(str(page[-1].run_id)) if len(found) > limit else None
        return Page(page, cursor)

    def _terms(self, tenant_id: UUID, run_id: UUID) -> set[int]:
        found: set[int] = set()
        for event in self.log.events:
            if (event.tenant_id, event.root_id) == (tenant_id, run_id) and event.topic in PROJECTION.topics:
                found |= terms_in(event)
        return found

    async def calls(self, tenant_id: UUID, run_id: UUID, *, limit: int, after: int) -> Positioned[Page[RunCallView] | None]:
        self.log.reach()
        return Positioned(None, self.log.head)

    async def parts(self, tenant_id: UUID, run_id: UUID, step: str, *, limit: int, after: int) -> Positioned[Page[PartView] | None]:
        self.log.reach()
        return Positioned(None, self.log.head)

    async def due(self, tenant_id: UUID, stream_id: UUID) -> Sequence[DueInRun]:
        self.log.reach()
        found = []
        for event in self.log.events:
            if (event.tenant_id, event.stream_id) != (tenant_id, stream_id) or event.topic not in timers.PROJECTION.topics:
                continue
            if (timer := timers.timer_of(event)) is not None:
                found.append(DueInRun(timer[0], timer[1].command, json.loads(timer[1].payload).get("step")))
        return sorted(found, key=lambda due: due.due_at)

    async def parts_in(self, tenant_id: UUID, view: RunView, step: str, *, limit: int, after: int) -> Page[PartView]:
        must_be_a_step(view.plan, view.run_id, step)
        rows = parts_of_step(view, step, limit=limit + 1, after=after)
        events = {
            event.position: Kept(REGISTRY.decoded(event), event.recorded_at, event.position, len(event.state), event.metadata)
            for event in self.log.events
            if event.root_id == view.run_id
        }
        shown = rows[:limit]
        cursor = encode_cursor(str(shown[-1].number)) if len(rows) > limit else None
        return Page([part_view(row, events) for row in shown], cursor)

    def evolve(self, view: RunView | None, recorded: RecordedEvent, *, all_calls: bool = False) -> RunView | None:
        return evolve_view(view, recorded, None if all_calls else NEWEST_CALLS)

    def journal(self, started: RecordedEvent, events: Sequence[RecordedEvent]) -> Sequence[JournalEntryView]:
        return journal(started, events)

    def held(self, recorded: RecordedEvent, field: Field, step: str | None = None, part: int | None = None) -> Held | None:
        return held(recorded, field, step, part)

    def calls_in(self, view: RunView) -> Sequence[RunCallView]:
        return calls_in(view)


def _statuses(view: RunView) -> set[str]:
    return {view.status, DEGRADED} if view.degraded else {view.status}


def _place(view: RunView) -> tuple[datetime, UUID]:
    return view.created_at, view.run_id


def _summary(view: RunView) -> RunSummary:
    shared = RunSummary.model_fields.keys() & RunView.model_fields.keys()
    shared = shared - {"parent", "workflow", "origin"}
    origin = view.origin
    return RunSummary(
        **{name: getattr(view, name) for name in shared},
        agents=[step.agent for step in view.steps if step.agent is not None],
        parent=None if view.parent is None else ParentBrief(run_id=view.parent.run_id),
        workflow=view.workflow,
        origin=None if origin is None else OriginBrief(kind=origin.kind, name=origin.name),
    )


class MemoryOpenRuns:
    """Implements `application.runs.admission.CountsOpenRuns`. Without `lag` it is never behind the log."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self.lag = 0
        """Positions that the count is behind the log."""
        self.asked = 0

    async def open_runs(self, *, by_tenant: bool) -> OpenRunCount:
        self.asked += 1
        self.log.reach()
        position = max(self.log.head - self.lag, 0)
        seen = self.log.events[:position]
        of_tenants = Counter(event.tenant_id for event in seen if event.topic == RunStarted.TOPIC)
        of_tenants.update(
            event.tenant_id for event in seen if event.topic == RunRetried.TOPIC and b'"was":"running"' not in event.state
        )
        of_tenants.subtract(event.tenant_id for event in seen if event.topic in ENDS)
        return OpenRunCount(of_tenants.total(), dict(of_tenants) if by_tenant else {}, position)


class MemoryNames:
    """Implements `application.suggestions.KnownNames`: the names in the registrations of one kind."""

    def __init__(self, log: MemoryLog, event: type[AgentRegistered] | type[ToolRegistered]) -> None:
        self._log = log
        self._event = event

    async def names(self, tenant_id: UUID) -> Sequence[str]:
        self._log.reach()
        found = [event for event in self._log.events if (event.tenant_id, event.topic) == (tenant_id, self._event.TOPIC)]
        return sorted({REGISTRY.decoded(event).name for event in found})

    def _newest(self, tenant_id: UUID) -> list[tuple[datetime, AgentRegistered]]:
        """The agents as they are registered now, by name, and since when."""
        found = [event for event in self._log.events if (event.tenant_id, event.topic) == (tenant_id, self._event.TOPIC)]
        newest = {event.stream_id: event for event in found}.values()
        return sorted(((event.recorded_at, REGISTRY.decoded(event)) for event in newest), key=lambda each: str(each[1].name))

    async def offering(self, tenant_id: UUID, capabilities: Sequence[str]) -> Mapping[str, str]:
        """As if no worker were connected."""
        agents = [agent for _, agent in sorted(self._newest(tenant_id), key=lambda each: each[0], reverse=True)]
        found = {name: [agent.name for agent in agents if name in agent.capabilities] for name in capabilities}
        return {name: names[0] for name, names in found.items() if names}

    async def capabilities(self, tenant_id: UUID) -> Sequence[str]:
        return sorted({name for _, agent in self._newest(tenant_id) for name in agent.capabilities})


class MemoryDataTools:
    """Implements `application.reads.DataToolReads`. `stands_at`: the position at which it stands; None: it is never behind."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self.stands_at: int | None = None

    async def data(self, tenant_id: UUID, *, limit: int, after: str | None) -> Positioned[Sequence[DataTool]]:
        self._log.reach()
        position = self._log.head if self.stands_at is None else self.stands_at
        found: dict[str, DataTool] = {}
        for recorded in self._log.events:
            if recorded.tenant_id == tenant_id and recorded.position <= position:
                match REGISTRY.decoded(recorded):
                    case ToolRegistered() as declared if declared.kind in DATA_KINDS:
                        found[declared.name] = DataTool(declared.name, declared.version, declared.kind)
                    case ToolRemoved(name=name):
                        found.pop(name, None)
        names = sorted(name for name in found if after is None or name > after)
        return Positioned([found[name] for name in names[:limit]], position)


class MemoryCachedCalls:
    """Implements `application.cached_results.CachedCalls` over the log."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self.asked = 0

    async def newest(self, tenant_id: UUID, keys: Sequence[UUID], max_age_s: float) -> Mapping[UUID, UUID]:
        self._log.reach()
        self.asked += 1
        found, of_calls = dict[UUID, UUID](), dict[UUID, UUID]()
        for event in self._log.events:
            if event.tenant_id == tenant_id and event.topic == InvocationRequested.TOPIC:
                first: InvocationRequested = REGISTRY.decoded(event)
                if first.cache_key is not None:
                    of_calls[event.stream_id] = first.cache_key
            is_recent = (self._log.clock.now() - event.recorded_at).total_seconds() < max_age_s
            ends = event.topic == InvocationSucceeded.TOPIC
            if event.stream_id in of_calls and ends and is_recent and of_calls[event.stream_id] in keys:
                found[of_calls[event.stream_id]] = event.stream_id
        return found
