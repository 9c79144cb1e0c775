"""The projector role: runs the read models and builds their new versions."""

from api.assembly import log_streams, messaging, storage, tables
from api.assembly.parts import Parts
from application.engine.background import side_by_side
from application.engine.leases import Group
from projections.engine import plugins
from projections.engine.catching_up import ReadModels
from projections.engine.rebuild import jobs
from projections.engine.rebuild.builder import ProjectionBuilder


async def groups(parts: Parts) -> list[Group]:
    database, feed, subscription = await storage.database(parts), await storage.feed(parts), await log_streams.subscription(parts)
    calls = await messaging.position_calls(parts)
    projections = await plugins.installed(database, await tables.read_models(parts))
    by_unit = {f"projection:{projection.name}": projection for projection in projections}

    async def project(units: frozenset[str]) -> None:
        await ReadModels([by_unit[unit] for unit in sorted(units)], database, subscription, calls).run()

    async def build(_: frozenset[str]) -> None:
        async with storage.listening_on(parts, jobs.CHANNEL) as requests:
            await side_by_side(requests.failed(), ProjectionBuilder(projections, database, feed, requests).run())

    return [Group("projections", tuple(by_unit), project), Group("rebuilds", ("rebuilds",), build)]
