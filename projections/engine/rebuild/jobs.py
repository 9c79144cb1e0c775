"""Jobs on read models: the request of an operator, its progress and its result. One row for each projection and purpose.

Each function is one transaction on the job's row. A change of a job's course raises its epoch. A builder that still works on the
job notices that at its next page, and stops.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row

from application.engine.ports.checkpoints import LostOwnership
from application.engine.ports.projections import BuildView, Kind, Purpose, Status
from domain.errors import InvalidState, NotFound
from projections.engine import versions
from projections.engine.kernel import Connection, Projection, load_json

CHANNEL = "tidelog_builds"
"""NOTIFY channel: there is a new job, or a job has changed its course. A hint only."""

OPEN = ("requested", "building", "comparing", "ready")
PURPOSES: dict[Kind, Purpose] = {"rebuild": "version", "rollback": "version", "verify": "check"}
PLACES: dict[Purpose, versions.Place] = {"version": "rebuild", "check": "verify"}
EARLIER_ROWS = "earlier_rows"
"""A name in the object that the column `difference` holds, beside those of the first difference, if there is one."""

COLUMNS = """projection, purpose, kind, status, swap, position, epoch, first, target, events, rows, rate, requested_at, started_at,
updated_at, finished_at, error, difference"""
ASK = """
INSERT INTO projection_build AS b (projection, purpose, kind, status, swap, position, epoch, first)
VALUES (%(projection)s, %(purpose)s, %(kind)s, 'requested', %(swap)s, %(first)s, 1, %(first)s)
ON CONFLICT (projection, purpose) DO UPDATE SET kind = EXCLUDED.kind, status = 'requested', swap = EXCLUDED.swap,
    position = EXCLUDED.position, epoch = b.epoch + 1, first = EXCLUDED.first, target = 0, events = 0, rows = 0, rate = NULL,
    requested_at = now(), started_at = NULL, updated_at = now(), finished_at = NULL, error = NULL, difference = NULL
WHERE b.status <> ALL (%(open)s)
RETURNING projection
"""
FIND = f"SELECT {COLUMNS} FROM projection_build WHERE projection = %s AND purpose = %s"
FIND_LOCKED = f"SELECT {COLUMNS} FROM projection_build WHERE projection = %s AND purpose = %s FOR UPDATE"
ALL = f"SELECT {COLUMNS} FROM projection_build ORDER BY projection, purpose DESC"
TAKE_NEXT = f"""
UPDATE projection_build SET epoch = epoch + 1, updated_at = now(), started_at = coalesce(started_at, now())
WHERE (projection, purpose) IN (
    SELECT projection, purpose FROM projection_build
    WHERE status IN ('requested', 'building', 'comparing') OR (status = 'ready' AND swap) ORDER BY requested_at LIMIT 1 FOR UPDATE
)
RETURNING {COLUMNS}
"""
HOLD = f"SELECT {COLUMNS} FROM projection_build WHERE projection = %s AND purpose = %s AND epoch = %s FOR UPDATE"
ADVANCE = """
UPDATE projection_build SET position = %(position)s, target = greatest(%(target)s, %(position)s), events = events + %(events)s,
    rate = coalesce(%(rate)s, rate), updated_at = now()
WHERE projection = %(projection)s AND purpose = %(purpose)s
"""
SET_STATUS = """
UPDATE projection_build SET status = %(status)s, updated_at = now(), position = coalesce(%(position)s, position),
    finished_at = CASE WHEN %(status)s = ANY (%(open)s) THEN NULL ELSE now() END, error = %(error)s, difference = %(difference)s
WHERE projection = %(projection)s AND purpose = %(purpose)s
"""
ASK_SWAP = """
UPDATE projection_build SET swap = true, updated_at = now()
WHERE projection = %s AND purpose = 'version' AND status = ANY (%s) RETURNING projection
"""
HOLD_BACK = """
UPDATE projection_build SET status = 'ready', swap = false, error = %s, updated_at = now() WHERE projection = %s AND purpose = %s
"""
INTERRUPT = "UPDATE projection_build SET epoch = epoch + 1 WHERE projection = %s AND purpose = %s"
COUNT_ROWS = (
    "UPDATE projection_build SET rows = %s, updated_at = now() WHERE projection = %s AND purpose = %s AND epoch = %s RETURNING rows"
)
NOTIFY = "SELECT pg_notify(%s, '')"
KEEP = """
INSERT INTO projection_previous (projection, position) VALUES (%s, %s)
ON CONFLICT (projection) DO UPDATE SET position = EXCLUDED.position, replaced_at = now()
"""
KEPT = "SELECT projection, position, replaced_at FROM projection_previous"
KEPT_OF = "SELECT position FROM projection_previous WHERE projection = %s FOR UPDATE"
FORGET = "DELETE FROM projection_previous WHERE projection = %s"
DROP_PARKED = "DELETE FROM parked_event WHERE consumer = %s"
RENAME_PARKED = "UPDATE parked_event SET consumer = %s WHERE consumer = %s"


@dataclass(frozen=True, slots=True)
class Build:
    """A job, as stored in its row. Positions are positions of the log; `rate` in events per second."""

    projection: str
    purpose: Purpose
    kind: Kind
    status: Status
    swap: bool
    position: int
    epoch: int
    first: int
    target: int
    events: int
    rows: int
    rate: float | None
    requested_at: datetime
    started_at: datetime | None
    updated_at: datetime
    finished_at: datetime | None
    error: str | None
    difference: str | None

    @property
    def place(self) -> versions.Place:
        return PLACES[self.purpose]

    @property
    def schema(self) -> str:
        return versions.schema_of(self.place, self.projection)

    @property
    def consumer(self) -> str:
        """The consumer name of the job's parked events."""
        return parked_as(self.projection, self.place)


def view_of(build: Build) -> BuildView:
    ahead = max(build.target - build.position, 0)
    way = build.target - build.first
    going = build.status == "building" and build.rate
    told: Any = load_json(build.difference) if build.difference else {}
    earlier_rows = told.pop(EARLIER_ROWS, 0)
    done = 1.0 if build.status in ("ready", "comparing", "swapped", "equal", "different") else 0.0
    return BuildView(
        kind=build.kind, status=build.status, swap=build.swap, position=build.position, target=build.target,
        progress=round(1 - ahead / way, 4) if way > 0 and not done else done, events=build.events, rows=build.rows,
        rate=round(build.rate, 1) if build.rate is not None else None,
        eta_s=round(ahead / build.rate, 1) if going and build.rate else None, requested_at=build.requested_at,
        started_at=build.started_at, updated_at=build.updated_at, finished_at=build.finished_at, error=build.error,
        difference=told or None, earlier_rows=earlier_rows,
    )  # fmt: skip


def parked_as(projection: str, place: versions.Place) -> str:
    return f"{projection}@{place}"


# --- what operators ask for -------------------------------------------------------------------------------------------


async def ask(connection: Connection, projection: Projection, kind: Kind, *, swap: bool = False) -> None:
    """Asks for a job, in the caller's transaction. Raises InvalidState, NotFound."""
    name, first = projection.name, 0
    if not projection.tables:
        raise InvalidState(f"projection '{name}' has no tables")
    if kind == "rollback":
        row = await (await connection.execute(KEPT_OF, [name])).fetchone()
        if row is None:
            raise NotFound(f"no earlier version of projection '{name}' is kept")
        first = row[0]
        await versions.check_exchangeable(connection, projection, "previous")
    elif kind == "rebuild":
        await versions.check_unused(connection, projection)
    purpose = PURPOSES[kind]
    asked = {"projection": name, "purpose": purpose, "kind": kind, "swap": swap, "first": first, "open": list(OPEN)}
    if await (await connection.execute(ASK, asked)).fetchone() is None:
        found = await find(connection, name, purpose)
        raise InvalidState(
            f"a {found.kind if found else kind} of projection '{name}' is {found.status if found else 'open'} already"
        )
    await connection.execute(NOTIFY, [CHANNEL])


async def ask_swap(connection: Connection, projection: str) -> None:
    """Lets a version go live as soon as it is ready. Raises InvalidState."""
    if await (await connection.execute(ASK_SWAP, [projection, list(OPEN)])).fetchone() is None:
        raise InvalidState(f"no version of projection '{projection}' is being built or ready")
    await connection.execute(NOTIFY, [CHANNEL])


async def cancel(connection: Connection, projection: Projection, purpose: Purpose) -> None:
    """Ends a job and drops its tables, in the caller's transaction. The end of a rollback puts the earlier version back in its
    place.

    The job's row is locked before its tables, as the builder does. Raises InvalidState.
    """
    row = await find(connection, projection.name, purpose, locked=True)
    if row is None or row.status not in OPEN:
        raise InvalidState(f"nothing is being done with projection '{projection.name}' that could be cancelled")
    await connection.execute(INTERRUPT, [projection.name, purpose])
    await discard(connection, projection, row)
    await set_status(connection, row, "cancelled")
    await connection.execute(NOTIFY, [CHANNEL])


async def discard(connection: Connection, projection: Projection, build: Build) -> None:
    """Drops the tables that a job made. The caller holds the row."""
    if build.kind == "rollback" and build.status != "requested":
        await versions.rename(connection, build.projection, "rebuild", "previous")
        await connection.execute(RENAME_PARKED, [parked_as(build.projection, "previous"), build.consumer])
        await connection.execute(KEEP, [build.projection, build.position])
    elif build.kind != "rollback":
        await versions.drop(connection, build.schema, projection.tables)
        await connection.execute(DROP_PARKED, [build.consumer])


async def drop_previous(connection: Connection, projection: Projection) -> None:
    """Drops the version that was kept. Raises NotFound, InvalidState."""
    if await (await connection.execute(KEPT_OF, [projection.name])).fetchone() is None:
        raise NotFound(f"no earlier version of projection '{projection.name}' is kept")
    build = await find(connection, projection.name, "version", locked=True)
    if build is not None and build.kind == "rollback" and build.status == "requested":
        raise InvalidState(f"projection '{projection.name}' is about to be rolled back to it")
    await forget_previous(connection, projection)


async def forget_previous(connection: Connection, projection: Projection) -> None:
    await versions.drop(connection, versions.schema_of("previous", projection.name), projection.tables)
    await connection.execute(DROP_PARKED, [parked_as(projection.name, "previous")])
    await connection.execute(FORGET, [projection.name])


# --- reading ----------------------------------------------------------------------------------------------------------


async def find(connection: Connection, projection: str, purpose: Purpose, *, locked: bool = False) -> Build | None:
    async with connection.cursor(row_factory=class_row(Build)) as cursor:
        await cursor.execute(FIND_LOCKED if locked else FIND, [projection, purpose])
        return await cursor.fetchone()


async def every(connection: Connection) -> list[Build]:
    async with connection.cursor(row_factory=class_row(Build)) as cursor:
        await cursor.execute(ALL)
        return await cursor.fetchall()


async def kept(connection: Connection) -> dict[str, tuple[int, datetime]]:
    """Projection → position of the version that is kept, and the time since which it is kept."""
    return {name: (position, at) for name, position, at in await (await connection.execute(KEPT)).fetchall()}


# --- the builder's side -----------------------------------------------------------------------------------------------


async def take_next(connection: Connection) -> Build | None:
    """Becomes the owner of the oldest job that waits for a builder."""
    async with connection.cursor(row_factory=class_row(Build)) as cursor:
        await cursor.execute(TAKE_NEXT)
        return await cursor.fetchone()


async def hold(connection: Connection, build: Build) -> Build:
    """Reads the job and locks its row until the end of the transaction. Raises LostOwnership."""
    async with connection.cursor(row_factory=class_row(Build)) as cursor:
        await cursor.execute(HOLD, [build.projection, build.purpose, build.epoch])
        found = await cursor.fetchone()
    if found is None:
        raise LostOwnership(f"the {build.kind} of projection '{build.projection}' was taken over or cancelled")
    return found


async def advance(connection: Connection, build: Build, position: int, *, target: int, events: int, rate: float | None) -> None:
    """Moves the checkpoint of a job whose row is held."""
    values: dict[str, Any] = {"position": position, "target": target, "events": events, "rate": rate}
    await connection.execute(ADVANCE, {**values, "projection": build.projection, "purpose": build.purpose})


async def count_rows(connection: Connection, build: Build, rows: int) -> None:
    """Raises LostOwnership."""
    moved = await (await connection.execute(COUNT_ROWS, [rows, build.projection, build.purpose, build.epoch])).fetchone()
    if moved is None:
        raise LostOwnership(f"the {build.kind} of projection '{build.projection}' was taken over or cancelled")


async def bring_back(connection: Connection, build: Build) -> None:
    """The version that was kept becomes the one that is being built."""
    await versions.rename(connection, build.projection, "previous", "rebuild")
    await connection.execute(RENAME_PARKED, [build.consumer, parked_as(build.projection, "previous")])
    await connection.execute(FORGET, [build.projection])


async def exchange(connection: Connection, build: Build, live: int) -> None:
    """Moves parked events with their tables. `live`: the position of the version that was live."""
    await connection.execute(RENAME_PARKED, [parked_as(build.projection, "previous"), build.projection])
    await connection.execute(RENAME_PARKED, [build.projection, build.consumer])
    await connection.execute(KEEP, [build.projection, live])


async def set_status(
    connection: Connection,
    build: Build,
    status: Status,
    *,
    position: int | None = None,
    error: str | None = None,
    difference: str | None = None,
) -> None:
    """Writes the status of a job whose row is held."""
    text = error[:10_000].replace("\x00", "") if error else None
    values = {"status": status, "position": position, "error": text, "difference": difference, "open": list(OPEN)}
    await connection.execute(SET_STATUS, {**values, "projection": build.projection, "purpose": build.purpose})


async def hold_back(connection: Connection, build: Build, error: str) -> None:
    """Holds a ready version back, so that it does not go live by itself. The caller holds the row."""
    await connection.execute(HOLD_BACK, [error, build.projection, build.purpose])
