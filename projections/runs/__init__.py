"""Runs as the HTTP interface shows them.

fold        what an event changes of a run, a step, a part, a call: the rules
folded      the replay to a document, by these rules
forms       what steps have that are more than one execution of an agent
tables      the rows, and what they hold
rows        events into rows: an event changes a few small ones
documents   runs as the release before stores them, while it is among the members
queries     one run: its document, put together from rows and from events of the log
walks       the statements behind the lists: what is walked over, and in which order
lists       lists of runs, from columns
starters    who started runs, and for whom, where the rows do not say
lists_as_of lists of runs at a position, from columns and events of the log
journal     entries of journals, from events of the log
"""

from collections.abc import Sequence
from uuid import UUID

from application.engine.ports.pages import Page
from application.reads import DueInRun, Positioned, RunCounts, RunsWanted
from application.views.large import Field, Held
from application.views.runs import NEWEST_CALLS, JournalEntryView, PartView, RunCallView, RunSummary, RunView
from domain.errors import ProjectionBehind
from domain.kernel import RecordedEvent
from domain.registry import SLICES
from projections.engine.catching_up import FAR_BEHIND
from projections.engine.checkpoints import position_of, reading, reading_at
from projections.kernel import Connection, Database, EarlierForm, Projection
from projections.run_terms import PROJECTION as RUN_TERMS
from projections.runs import documents
from projections.runs.folded import calls_in, evolve_view, parts_of_step, replay
from projections.runs.journal import journal
from projections.runs.lists import count_runs, list_runs
from projections.runs.lists_as_of import list_runs_as_of
from projections.runs.queries import ONE_SNAPSHOT, get_run, must_be_a_step, page_of_parts, read_calls, read_parts
from projections.runs.rows import apply, apply_as_live
from projections.runs.starters import with_starters
from projections.runs.values import held

INSIDE_RUNS = frozenset(
    event.TOPIC for name in ("runs", "agent_runs", "invocations", "compensations", "messages", "context") for event in SLICES[name]
)

PROJECTION = Projection(
    "runs",
    INSIDE_RUNS,
    ("run", "run_step", "run_part", "run_call"),
    apply,
    # Empty where a release before wrote the row.
    not_of_the_log={"run": frozenset({"actor", "on_behalf_of"})},
    earlier=EarlierForm("run", "view", apply_as_live, documents.content),
)

TERMS = RUN_TERMS.name
DUE_IN_RUN = """
SELECT due_at, command, payload::json ->> 'step' FROM timer WHERE tenant_id = %s AND stream_id = %s ORDER BY due_at LIMIT 1000
"""

__all__ = ["INSIDE_RUNS", "PROJECTION", "RunQueries", "apply", "evolve_view", "get_run", "list_runs", "list_runs_as_of", "replay"]


class RunQueries:
    """The port `RunReads`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, tenant_id: UUID, run_id: UUID) -> Positioned[RunView | None]:
        async with self._database.connection(tenant_id) as connection:
            return await get_run(connection, tenant_id, run_id)

    async def list(self, tenant_id: UUID, wanted: RunsWanted) -> Positioned[Page[RunSummary]]:
        async with reading(self._database, PROJECTION.name, tenant_id) as (connection, position):
            if wanted.needs_terms:
                position = await self._position_of_terms(connection, position)
            page = await list_runs(connection, tenant_id, wanted)
            return Positioned(await with_starters(connection, tenant_id, page), position)

    async def counts(self, tenant_id: UUID, wanted: RunsWanted) -> Positioned[RunCounts]:
        async with reading(self._database, PROJECTION.name, tenant_id) as (connection, position):
            if wanted.needs_terms:
                position = await self._position_of_terms(connection, position)
            return Positioned(await count_runs(connection, tenant_id, wanted), position)

    async def list_as_of(self, tenant_id: UUID, position: int, wanted: RunsWanted) -> Page[RunSummary]:
        async with reading_at(self._database, PROJECTION.name, position, tenant_id) as connection:
            if wanted.needs_terms and (reached := await position_of(connection, TERMS)) < position:
                raise ProjectionBehind(f"the read model '{TERMS}' is at position {reached}, not yet at {position}")
            page = await list_runs_as_of(connection, tenant_id, position, wanted)
            return await with_starters(connection, tenant_id, page)

    @staticmethod
    async def _position_of_terms(connection: Connection, position: int) -> int:
        """The position of a list whose runs have the given one. Raises ProjectionBehind while old runs cannot be found."""
        reached = await position_of(connection, TERMS)
        if position - reached > FAR_BEHIND:
            raise ProjectionBehind(
                f"runs cannot be found by all filters yet: the read model '{TERMS}' is at position {reached} of {position}"
            )
        return min(position, reached)

    async def calls(self, tenant_id: UUID, run_id: UUID, *, limit: int, after: int) -> Positioned[Page[RunCallView] | None]:
        async with self._database.transaction(tenant_id) as connection:
            await connection.execute(ONE_SNAPSHOT)
            position = await position_of(connection, PROJECTION.name)
            return Positioned(await read_calls(connection, tenant_id, run_id, limit=limit, after=after), position)

    async def parts(self, tenant_id: UUID, run_id: UUID, step: str, *, limit: int, after: int) -> Positioned[Page[PartView] | None]:
        async with self._database.transaction(tenant_id) as connection:
            await connection.execute(ONE_SNAPSHOT)
            position = await position_of(connection, PROJECTION.name)
            return Positioned(await read_parts(connection, tenant_id, run_id, step, limit=limit, after=after), position)

    async def due(self, tenant_id: UUID, stream_id: UUID) -> Sequence[DueInRun]:
        async with self._database.connection(tenant_id) as connection:
            rows = await (await connection.execute(DUE_IN_RUN, [tenant_id, stream_id])).fetchall()
        return [DueInRun(*row) for row in rows]

    async def parts_in(self, tenant_id: UUID, view: RunView, step: str, *, limit: int, after: int) -> Page[PartView]:
        must_be_a_step(view.plan, view.run_id, step)
        rows = parts_of_step(view, step, limit=limit + 1, after=after)
        async with self._database.connection(tenant_id) as connection:
            return await page_of_parts(connection, rows, limit)

    def evolve(self, view: RunView | None, recorded: RecordedEvent, *, all_calls: bool = False) -> RunView | None:
        return evolve_view(view, recorded, None if all_calls else NEWEST_CALLS)

    def journal(self, started: RecordedEvent, events: Sequence[RecordedEvent]) -> Sequence[JournalEntryView]:
        return journal(started, events)

    def held(self, recorded: RecordedEvent, field: Field, step: str | None = None, part: int | None = None) -> Held | None:
        return held(recorded, field, step, part)

    def calls_in(self, view: RunView) -> Sequence[RunCallView]:
        return calls_in(view)
