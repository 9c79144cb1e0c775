"""Read models of users: found by the entry point group `tidelog.projections`, checked, and given their tables.

A broken plug-in is reported and left out. It stops neither the other plug-ins nor the server.
"""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint, entry_points

import psycopg
import structlog

from application.engine.retry import persistently
from domain.errors import InvalidState
from projections.engine import versions
from projections.engine.kernel import Connection, Database, Projection

GROUP = "tidelog.projections"

TURN = "SELECT pg_advisory_xact_lock(7310579128013)"
INSTALLED = "SELECT ddl_sha256 FROM projection_installation WHERE projection = %s"
REMEMBER = """
INSERT INTO projection_installation (projection, ddl_sha256) VALUES (%s, %s)
ON CONFLICT (projection) DO UPDATE SET ddl_sha256 = EXCLUDED.ddl_sha256, installed_at = now()
"""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an entry point gives no projection."""

    entry_point: str
    distribution: str
    error: str


@dataclass(frozen=True, slots=True)
class Discovery:
    """The projections of the installed distributions."""

    projections: tuple[Projection, ...]
    sources: dict[str, str]
    """Projection → name and version of its distribution."""
    problems: tuple[Problem, ...]


def discover(ours: Sequence[Projection], topics: Collection[str], reserved_tables: Collection[str] = ()) -> Discovery:
    """Loads all entry points. Names and tables of ours, and of the server (`reserved_tables`), are taken. `topics`: all known."""
    names = {projection.name for projection in ours} | {"sagas"}
    tables = {table for projection in ours for table in projection.tables} | set(reserved_tables)
    found: list[Projection] = []
    sources: dict[str, str] = {}
    problems: list[Problem] = []
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        origin = f"{point.dist.name} {point.dist.version}" if point.dist is not None else "?"
        try:
            loaded = _load(point)
            for projection in loaded:
                _check(projection, names, tables, topics)
                names.add(projection.name)
                tables.update(projection.tables)
                found.append(projection)
                sources[projection.name] = origin
        except (Exception, SystemExit) as error:  # noqa: BLE001  # the import of a user's code may raise anything
            reason = str(error) if isinstance(error, InvalidState) else f"{type(error).__name__}: {error}"
            log.error("projection_plugin_broken", entry_point=point.name, distribution=origin, error=reason)
            problems.append(Problem(point.name, origin, reason))
    return Discovery(tuple(found), sources, tuple(problems))


def _load(point: EntryPoint) -> tuple[Projection, ...]:
    value = point.load()
    loaded = tuple(value) if isinstance(value, Iterable) else (value,)
    if not loaded or not all(isinstance(projection, Projection) for projection in loaded):
        raise InvalidState(f"{point.value} is neither a projections.kernel.Projection nor a tuple of them")
    return loaded


def _check(projection: Projection, names: Collection[str], tables: Collection[str], topics: Collection[str]) -> None:
    """Raises InvalidState, with the fault, for a declaration that cannot be used."""
    name = projection.name
    if not versions.NAME.fullmatch(name):
        raise InvalidState(f"'{name}' is no name of a projection: lower-case letters, digits and _, at most 40")
    if name in names:
        raise InvalidState(f"there is another projection '{name}'")
    if not projection.tables or not projection.ddl:
        raise InvalidState(f"projection '{name}' must name its tables, and the statements that make them (ddl)")
    if not (type(projection.tables) is type(projection.ddl) is tuple):
        raise InvalidState(f"projection '{name}': tables and ddl must be tuples of texts")
    wrong = [table for table in projection.tables if not versions.NAME.fullmatch(table)]
    if wrong:
        raise InvalidState(f"projection '{name}': {wrong} are no names of tables: lower-case letters, digits and _, at most 40")
    taken = [table for table in projection.tables if table in tables]
    if taken:
        raise InvalidState(f"projection '{name}': {', '.join(taken)} belong to others")
    unknown = sorted(projection.topics.difference(topics))
    if unknown or not projection.topics:
        raise InvalidState(f"projection '{name}': unknown topics {', '.join(unknown) or '(none given)'}")


async def installed(database: Database, projections: Sequence[Projection]) -> tuple[Projection, ...]:
    """The projections that have their tables. A projection that runs for the first time gets its tables here.

    To be called before the projections run. Outages are waited out. A projection whose tables cannot be made is reported and left
    out.
    """
    usable = []
    for projection in projections:
        try:
            if projection.ddl:
                await persistently(partial(install, database, projection))
        except (InvalidState, psycopg.Error) as error:
            log.error("projection_not_installed", projection=projection.name, error=str(error))
        else:
            usable.append(projection)
    return tuple(usable)


async def install(database: Database, projection: Projection) -> None:
    """Makes the tables of a plug-in, once.

    Several processes may try at the same time. Raises InvalidState, psycopg.Error, Unavailable.
    """
    async with database.connection() as connection, connection.transaction():
        await connection.execute(TURN)
        row = await (await connection.execute(INSTALLED, [projection.name])).fetchone()
        if row is None:
            schema = await versions.live_schema(connection)
            there = await versions.columns(connection, schema, projection.tables)
            if there:
                raise InvalidState(
                    f"tables of projection '{projection.name}' exist and are not its own: {', '.join(sorted(there))}"
                )
            await versions.use(connection, schema)
            await versions.run_ddl(connection, projection, schema)
            await remember(connection, projection)
            log.info("projection_installed", projection=projection.name, tables=projection.tables)
        elif row[0] != checksum(projection):
            log.warning(
                "projection_tables_outdated", projection=projection.name, cure=f"tidelog projections rebuild {projection.name}"
            )


async def remember(connection: Connection, projection: Projection) -> None:
    """Stores the checksum of the statements that made the live tables."""
    await connection.execute(REMEMBER, [projection.name, checksum(projection)])


def checksum(projection: Projection) -> str:
    return hashlib.sha256("\n".join(projection.ddl).encode()).hexdigest()
