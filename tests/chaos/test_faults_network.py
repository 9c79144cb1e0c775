"""Faults of the network around a working server: connections break, slow down, fall silent, and lose single messages.

All roles run under load behind a wire to each of their servers. Afterwards the final state is read past the wires.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from adapters.embedded import EmbeddedServices
from tests.chaos.faults_kit import Rig, rigged, rounds, seeded
from tests.integration.system_kit import empty_work_queue
from tests.integration.wire_kit import Wire, is_publish_ack, untouched

pytestmark = pytest.mark.chaos

Fault = Callable[[], Awaitable[None]]


@pytest_asyncio.fixture
async def rig(database_url: str, services: EmbeddedServices, impatient: None) -> AsyncIterator[Rig]:
    await empty_work_queue(services.nats_url)
    async with rigged(database_url, services.nats_url) as rig:
        yield rig


def of_any_wire(wire: Wire, chance: random.Random, silence_s: float) -> list[Fault]:
    async def cut() -> None:
        await wire.cut()
        await asyncio.sleep(chance.uniform(0.0, 0.4))
        await wire.mend()

    async def slow() -> None:
        wire.delay = chance.uniform(0.01, 0.04)
        await asyncio.sleep(0.4)
        wire.delay = 0.0

    async def half_open() -> None:
        wire.mute()
        await asyncio.sleep(silence_s)
        await wire.unmute()

    async def disconnect() -> None:
        await wire.disconnect()

    return [cut, slow, half_open, disconnect]


def of_messages(rig: Rig, chance: random.Random) -> list[Fault]:
    """Some acknowledgements, or some published messages, are lost. Everything else comes through."""

    def loses_acks(line: bytes, payload: bytes) -> bytes | None:
        return None if is_publish_ack(payload) and chance.random() < 0.3 else payload

    def loses_publishes(line: bytes, payload: bytes) -> bytes | None:
        return None if b" tidelog-log." in line and chance.random() < 0.3 else payload

    async def acks() -> None:
        rig.nats.to_client = loses_acks
        await asyncio.sleep(0.6)
        rig.nats.to_client = untouched

    async def publishes() -> None:
        rig.nats.to_server = loses_publishes
        await asyncio.sleep(0.6)
        rig.nats.to_server = untouched

    return [acks, publishes]


async def test_a_bad_network_to_nats_costs_time_only(rig: Rig) -> None:
    chance = seeded()
    for _ in range(rounds(1, 6)):
        faults = [*of_any_wire(rig.nats, chance, silence_s=1.2), *of_messages(rig, chance)]
        chance.shuffle(faults)
        await rig.through(*faults, pause=lambda: chance.uniform(0.05, 0.3))


async def test_a_bad_network_to_postgres_costs_time_only(rig: Rig) -> None:
    chance = seeded()
    for _ in range(rounds(1, 6)):
        faults = of_any_wire(rig.database, chance, silence_s=0.8)
        chance.shuffle(faults)
        await rig.through(*faults, pause=lambda: chance.uniform(0.05, 0.3))
