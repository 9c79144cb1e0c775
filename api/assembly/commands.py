"""The command loop, for the roles that give commands."""

from api.assembly import histories, log_streams, storage, tables
from api.assembly.parts import Parts, part
from application.engine.commands.loop import CommandLoop
from application.engine.commands.snapshots import LINGER_S, Snapshotter
from application.engine.commands.telling import TellingStore
from application.engine.ports.log import EventStore
from application.references import ReferringStore


@part
async def commands(parts: Parts) -> CommandLoop:
    catalog, snapshots, snapshotter = await tables.catalog(parts), await storage.snapshots(parts), None
    store: EventStore = ReferringStore(await storage.store(parts), await storage.blob_store(parts))
    if "api" in parts.roles:  # requests wait for what this process appends
        store = TellingStore(store, (await log_streams.live(parts)).appended)
    if snapshots is not None:
        snapshotter = Snapshotter(snapshots, catalog.registry, every=parts.settings.snapshot_every, linger_s=LINGER_S)
        parts.loops["snapshots"] = snapshotter.run
    return CommandLoop(
        store,
        catalog,
        max_event_bytes=parts.settings.max_event_bytes,
        snapshots=snapshotter,
        hooks=await tables.hooks(parts),
        reactions=parts.settings.reactions_in_append,
    )


async def forget_with_history(parts: Parts) -> None:
    """Empties the cache of the command loop when the log has a new history: cached states may be of events that are gone."""
    keeper, loop = await histories.histories(parts), await commands(parts)
    parts.stack.enter_context(keeper.on_change(loop.forget))
