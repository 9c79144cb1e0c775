"""When a role counts as back after an outage, seen from outside."""

import re

import httpx2

from tests.integration.system_kit import nats_client_of

READERS = frozenset({"projections", "sagas", "live", "fanout"})
"""Names of the readers of the log's stream, in all processes. Each reader has a consumer there as long as its connection lives."""


async def caught_up(http: httpx2.AsyncClient, position: int) -> bool:
    """Whether the api is ready and relay, fan-out, every projection and every saga have handled the log up to a position."""
    try:
        response = await http.get("/health/ready")
    except httpx2.TransportError:
        return False
    report = response.json()
    if response.status_code != 200:
        return False
    reached = [*report["consumers"].values(), *report["streams"].values()]
    return {"relay", "fanout"} <= report["streams"].keys() and all(one["position"] >= position for one in reached)


async def head(http: httpx2.AsyncClient) -> int:
    """The head of the log, from an api that is ready."""
    return int((await http.get("/health/ready")).raise_for_status().json()["head"])


async def readers(nats_url: str) -> set[str]:
    """Names of the readers that read the log from JetStream."""
    client = await nats_client_of(nats_url)
    try:
        jetstream = client.jetstream()
        streams = [info.config.name or "" for info in await jetstream.streams_info()]
        logs = [name for name in streams if re.fullmatch(r"TIDELOG_(?!EVENTS_)[A-Za-z0-9_-]+", name)]
        return {consumer.name.rpartition("-")[0] for log in logs for consumer in await jetstream.consumers_info(log)}
    finally:
        await client.close()
