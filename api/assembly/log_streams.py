"""The log on NATS: the subscription that reads it, and the fan-out for subscribers outside."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from adapters.nats import FanOut, FanOutSettings, JetStreamSubscription, LogStream
from api.assembly import histories, messaging, storage, tables
from api.assembly.parts import Parts, part
from application.engine.ports.log import Subscription
from application.engine.reading.cloudevents import CloudEventEncoder
from application.engine.reading.shared import SharedSubscription

if TYPE_CHECKING:
    from application.engine.reading.live import LiveFeed


@part
async def subscription(parts: Parts) -> Subscription:
    """All readers of the log in this process share one consumer on NATS as long as they keep up with one another."""
    keeper = await histories.histories(parts)
    own = JetStreamSubscription(
        await messaging.nats(parts), await storage.feed(parts), histories=keeper, log_id=await storage.log_id(parts)
    )
    return SharedSubscription(own, keeper, degraded=lambda: own.degraded)


@part
async def live(parts: Parts) -> "LiveFeed":
    """The live feed. Only processes that answer requests have one."""
    from application.engine.reading.live import LiveFeed

    reader = await subscription(parts)
    degraded = reader.degraded if isinstance(reader, SharedSubscription) else lambda: False
    return LiveFeed(await storage.feed_of(parts, "reads"), reader, await histories.histories(parts), degraded=degraded)


@part
async def fanout(parts: Parts) -> FanOut | None:
    """The fan-out. None: it is switched off. In every process the stream of the fan-out is a witness of where a history ended."""
    settings = parts.settings
    if not settings.fanout:
        return None
    keeper = await histories.histories(parts)
    own = FanOut(
        await messaging.nats(parts),
        await subscription(parts),
        await storage.feed(parts),
        CloudEventEncoder((await tables.catalog(parts)).registry.events),
        histories=keeper,
        log_id=await storage.log_id(parts),
        settings=FanOutSettings(settings.fanout_max_age_s, settings.fanout_max_bytes, settings.nats_replicas),
    )
    keeper.witnesses.append(own.parting)
    return own


@part
async def streams(parts: Parts) -> Callable[[], Awaitable[Mapping[str, int]]]:
    """A function that asks for the positions up to which the streams have the log."""
    stream = LogStream(await messaging.nats(parts), await storage.log_id(parts))
    return partial(_copied, stream, await fanout(parts))


async def _copied(stream: LogStream, fanout: FanOut | None) -> dict[str, int]:
    found = {"relay": await stream.copied()}
    if fanout is not None:
        found["fanout"] = await fanout.copied()
    return {name: position for name, position in found.items() if position is not None}
