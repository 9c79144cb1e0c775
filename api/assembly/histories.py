"""The keeper of the log's histories, which every process runs."""

from collections.abc import Sequence
from functools import partial

from adapters.nats import LogStream
from adapters.nats.log.stream import parting
from api.assembly import messaging, storage
from api.assembly.parts import Parts, part
from application.engine.reading.history_keeper import HistoryKeeper, Witness


@part
async def witnesses(parts: Parts) -> Sequence[Witness]:
    """Witnesses that know, beside the database, where a history ended. The fan-out is added later."""
    stream = LogStream(await messaging.nats(parts), await storage.log_id(parts))
    return [partial(parting, stream, await storage.feed(parts))]


@part
async def histories(parts: Parts) -> HistoryKeeper:
    keeper = HistoryKeeper(await storage.history_store(parts))
    keeper.witnesses.extend(await witnesses(parts))
    if (appended := await storage.own_appends(parts)) is not None:
        keeper.heard = lambda: appended.position
    return keeper


async def watch(parts: Parts) -> None:
    """Adds the loop that notices the end of a history."""
    keeper, signal = await histories(parts), await storage.history_signal(parts)
    parts.loops["histories"] = lambda: keeper.run(signal.wait)
