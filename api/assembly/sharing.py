"""This process as a member: its share in the work of the engine, and what it can read."""

import asyncio
from collections.abc import Sequence
from importlib.metadata import version

from adapters.nats import FORMATS
from adapters.postgres.leases import PostgresLeases
from api.assembly import storage, tables
from api.assembly.parts import Parts, part
from application.engine.leases import LEASE_S, WITHOUT_UNITS_BEAT_S, WITHOUT_UNITS_LEASE_S, Group, Membership, SessionPresence
from application.engine.ports.leases import Leases, Readable


@part
async def leases(parts: Parts) -> Leases:
    shares_work = parts.roles != {"api"}
    return PostgresLeases(
        (await storage.pools(parts)).own,
        lease_s=LEASE_S if shares_work else WITHOUT_UNITS_LEASE_S,
        member_id=parts.settings.member_id,
        readable=Readable(version("tidelog-server"), FORMATS, await _event_versions(parts)),
    )


@part
async def presence(_: Parts) -> SessionPresence:
    return SessionPresence()


async def _event_versions(parts: Parts) -> tuple[str, ...]:
    """The relay passes events on as bytes. It need not load the classes of events."""
    if parts.roles == {"relay"}:
        return ("*",)
    registry = (await tables.catalog(parts)).registry
    return tuple(sorted(f"{topic}/v{number}" for topic, number in registry.shapes()))


async def share(parts: Parts, groups: Sequence[Group]) -> asyncio.Event:
    """Adds the loops that share the groups with other processes. Returns an event that is set after the first answered beat."""
    beat_s = None if groups else WITHOUT_UNITS_BEAT_S
    sharing = Membership(await leases(parts), groups, beat_s=beat_s, presence=await presence(parts))
    parts.loops["sharing"] = sharing.run
    for name, worker in sharing.workers.items():
        parts.loops[name] = worker.run
    return sharing.joined
