"""What "back" means after an outage: seen from outside, for each role."""

import re

import httpx

from tests.integration.system_kit import nats_client_of

READERS = frozenset({"projections", "sagas", "live", "fanout"})
"""Who reads the log's stream, in whichever process: each has a consumer there while its connection lives."""


async def caught_up(http: httpx.AsyncClient, position: int) -> bool:
    """The api is ready; relay, fan-out, every projection and every saga have the log up to a position."""
    try:
        response = await http.get("/health/ready")
    except httpx.TransportError:
        return False
    report = response.json()
    if response.status_code != 200:
        return False
    reached = [*report["consumers"].values(), *report["streams"].values()]
    return {"relay", "fanout"} <= report["streams"].keys() and all(one["position"] >= position for one in reached)


async def head(http: httpx.AsyncClient) -> int:
    """Of the log, as the api says that is ready."""
    return int((await http.get("/health/ready")).raise_for_status().json()["head"])


async def readers(nats_url: str) -> set[str]:
    """Names of those who read the log from JetStream."""
    client = await nats_client_of(nats_url)
    try:
        jetstream = client.jetstream()
        streams = [info.config.name or "" for info in await jetstream.streams_info()]
        logs = [name for name in streams if re.fullmatch(r"TIDELOG_(?!EVENTS_)[A-Za-z0-9_-]+", name)]
        return {consumer.name.rpartition("-")[0] for log in logs for consumer in await jetstream.consumers_info(log)}
    finally:
        await client.close()
