"""An HTTP server in front of a library: each request runs one workflow of three steps of 200 bytes, and the answer is its result.

A request with the body `{"steps": n}` runs a workflow of n steps, alone, and is answered with the seconds that each tenth took.

It runs in the environments of peers, which hold nothing of Tidelog: `python peer_server.py dbos|langgraph PORT`. The address of the
database is on standard input.
"""

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypedDict
from uuid import uuid4

import uvicorn
import uvloop

TEXT = "x" * 200
STEPS = 3
DONE = "benchmark-done"
CONNECTIONS = 20
"""Connections to PostgreSQL: DBOS's default."""

Workflow = Callable[[int], Awaitable[str]]
"""Takes the number of steps."""
stamps: list[float] = []
"""When the steps of the last workflow began."""


def text() -> str:
    """What each step does."""
    stamps.append(time.perf_counter())
    return TEXT


def tenths_s(steps: int) -> list[float]:
    """The seconds of each tenth of the steps that began since `stamps` was empty, up to now."""
    at = [*stamps, time.perf_counter()]
    places = [steps * tenth // 10 for tenth in range(11)]
    return [at[after] - at[before] for before, after in itertools.pairwise(places)]


async def dbos(url: str) -> Workflow:
    from dbos import DBOS

    DBOS(config={"name": "benchmark", "system_database_url": url, "sys_db_pool_size": CONNECTIONS, "log_level": "ERROR"})

    @DBOS.step()
    async def step() -> str:
        return text()

    @DBOS.workflow()
    async def workflow(steps: int) -> str:
        for _ in range(steps):
            await step()
        return DONE

    DBOS.launch()
    return workflow


async def langgraph(url: str) -> Workflow:
    """Each connection has a checkpointer and a graph of its own: a checkpointer lets one of its runs at a time use the database."""
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
    from langgraph.graph import END, START, StateGraph
    from psycopg import AsyncConnection
    from psycopg.rows import dict_row

    def more(before: list[str] | None, added: list[str]) -> list[str]:
        return [*(before or []), *added]

    class State(TypedDict, total=False):
        results: Annotated[list[str], more]
        wanted: int

    async def step(state: State) -> State:
        return {"results": [text()]}

    def chain() -> Any:
        """A graph of three nodes."""
        graph = StateGraph(State)
        for number in range(STEPS):
            graph.add_node(f"step-{number}", step)
        for before, after in ((START, "step-0"), ("step-0", "step-1"), ("step-1", "step-2"), ("step-2", END)):
            graph.add_edge(before, after)
        return graph

    def loop() -> Any:
        """A graph of one node that comes again until the wanted number of steps is done."""
        graph = StateGraph(State)
        graph.add_node("step", step)
        graph.add_edge(START, "step")
        graph.add_conditional_edges("step", lambda state: END if len(state["results"]) == state["wanted"] else "step")
        return graph

    free: asyncio.Queue[Any] = asyncio.Queue()
    for number in range(CONNECTIONS):
        connection = await AsyncConnection.connect(url, autocommit=True, prepare_threshold=0, row_factory=dict_row)
        saver = AsyncPostgresSaver(connection)
        if number == 0:
            await saver.setup()
        free.put_nowait((chain().compile(checkpointer=saver), loop().compile(checkpointer=saver)))

    async def workflow(steps: int) -> str:
        graphs = await free.get()
        try:
            config = {"configurable": {"thread_id": str(uuid4())}, "recursion_limit": steps + 10}
            found = await graphs[steps != STEPS].ainvoke({"results": [], "wanted": steps}, config, durability="sync")
        finally:
            free.put_nowait(graphs)
        return DONE if len(found["results"]) == steps else "wrong"

    return workflow


async def main(kind: str, port: int, url: str) -> None:
    workflow = await {"dbos": dbos, "langgraph": langgraph}[kind](url)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        given, more = b"", True
        while more:
            message = await receive()
            given, more = given + message.get("body", b""), message.get("more_body", False)
        steps = json.loads(given or b"{}").get("steps", STEPS)
        stamps.clear()
        said = DONE if scope["method"] == "GET" else await workflow(steps)
        body = json.dumps({"said": said} | ({"tenths_s": tenths_s(steps)} if steps != STEPS else {})).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    config = uvicorn.Config(app, "127.0.0.1", port, lifespan="off", log_level="error", access_log=False, backlog=20_000)
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), sys.stdin.readline().strip()))
