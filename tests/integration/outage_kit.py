"""When a role counts as back after an outage, seen from outside."""

import re

import httpx2

from tests.integration.system_kit import nats_client_of
from tests.pace import ANSWER_S


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


async def all_read(nats_url: str, processes: int) -> bool:
    """Whether as many processes read the log from JetStream.

    All readers of a process have one consumer there as long as its connection lives. A reader that is behind has one of its own.
    """
    client = await nats_client_of(nats_url)
    try:
        jetstream = client.jetstream(timeout=ANSWER_S)
        streams = [info.config.name or "" for info in await jetstream.streams_info()]
        logs = [name for name in streams if re.fullmatch(r"TIDELOG_(?!EVENTS_)[A-Za-z0-9_-]+", name)]
        return sum([len(await jetstream.consumers_info(log)) for log in logs]) >= processes
    finally:
        await client.close()
