"""The share of this process in the work of the engine."""

import asyncio
from collections.abc import Sequence

from adapters.postgres.leases import PostgresLeases
from api.assembly import storage
from api.assembly.parts import Parts, part
from application.engine.leases import LEASE_S, Group, Membership
from application.engine.ports.leases import Leases


@part
async def leases(parts: Parts) -> Leases:
    return PostgresLeases((await storage.pools(parts)).own, lease_s=LEASE_S, member_id=parts.settings.member_id)


async def share(parts: Parts, groups: Sequence[Group]) -> asyncio.Event:
    """Adds the loops that share the groups with other processes. Returns an event that is set after the first answered beat."""
    sharing = Membership(await leases(parts), groups)
    parts.loops["sharing"] = sharing.run
    for name, worker in sharing.workers.items():
        parts.loops[name] = worker.run
    return sharing.joined
