"""The relay role: copies the log to JetStream, and runs the fan-out if it is switched on."""

from functools import partial

from adapters.nats import Relay, Signal, StreamSettings
from adapters.postgres.leases import formats_of_all
from adapters.postgres.log.append_signal import AppendSignal
from api.assembly import histories, log_streams, messaging, storage
from api.assembly.parts import Parts, part
from api.settings import Settings
from application.engine.leases import Group


@part
async def appends(parts: Parts) -> Signal:
    signal = AppendSignal(await storage.notifications(parts))
    await signal.start()
    parts.stack.push_async_callback(signal.close)
    parts.loops["appends"] = signal.failed
    return signal


async def groups(parts: Parts) -> list[Group]:
    nats, log_id, feed = await messaging.nats(parts), await storage.log_id(parts), await storage.feed(parts)
    signal, keeper = await appends(parts), await histories.histories(parts)
    readable = partial(formats_of_all, (await storage.pools(parts)).own)
    settings = _stream_settings(parts.settings)
    made = partial(Relay, nats, feed, signal, histories=keeper, log_id=log_id, settings=settings, readable=readable)
    relay = Group("relay", ("relay",), lambda _: made().run())
    fanout = await log_streams.fanout(parts)
    return [relay] if fanout is None else [relay, Group("fanout", ("fanout",), lambda _: fanout.run())]


def _stream_settings(settings: Settings) -> StreamSettings:
    max_bytes = settings.relay_max_bytes
    return StreamSettings(settings.nats_replicas, settings.relay_max_age_s, -1 if max_bytes is None else max_bytes)
