"""The relay role: copies the log to JetStream, and runs the fan-out if it is switched on."""

from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from functools import partial
from typing import Any

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
    """The relay has its best place in a process with the role `api`, beside the writer of most events; the fan-out elsewhere."""
    nats, log_id, feed = await messaging.nats(parts), await storage.log_id(parts), await storage.feed(parts)
    own, keeper = await storage.own_appends(parts), await histories.histories(parts)
    signal: Signal = await appends(parts) if own is None else own
    readable = partial(formats_of_all, (await storage.pools(parts)).own)
    settings = _stream_settings(parts.settings)
    made = partial(Relay, nats, feed, signal, histories=keeper, log_id=log_id, settings=settings, readable=readable, own=own)

    async def copy(_: frozenset[str]) -> None:
        with nullcontext() if own is None else own.given():
            await made().run()

    beside_the_writer = "api" in parts.roles
    found = [_group("relay", copy, stands_in=not beside_the_writer)]
    if (fanout := await log_streams.fanout(parts)) is not None:
        found.append(_group("fanout", lambda _: fanout.run(), stands_in=beside_the_writer))
    return found


def _group(unit: str, run: Callable[[frozenset[str]], Coroutine[Any, Any, None]], *, stands_in: bool) -> Group:
    return Group(f"{unit}-standby", (unit,), run, stands_in_for=unit) if stands_in else Group(unit, (unit,), run)


def _stream_settings(settings: Settings) -> StreamSettings:
    max_bytes = settings.relay_max_bytes
    return StreamSettings(settings.nats_replicas, settings.relay_max_age_s, -1 if max_bytes is None else max_bytes)
