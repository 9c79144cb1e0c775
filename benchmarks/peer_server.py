"""An HTTP server in front of a library: each request runs one workflow of three steps of 200 bytes, and the answer is its result.

It runs in the environments of peers, which hold nothing of Tidelog: `python peer_server.py dbos|langgraph PORT`. The address of the
database is on standard input.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypedDict
from uuid import uuid4

import uvicorn
import uvloop

TEXT = "x" * 200
DONE = "benchmark-done"
CONNECTIONS = 20
"""Connections to PostgreSQL: DBOS's default."""

Workflow = Callable[[], Awaitable[str]]


async def dbos(url: str) -> Workflow:
    from dbos import DBOS

    DBOS(config={"name": "benchmark", "system_database_url": url, "sys_db_pool_size": CONNECTIONS, "log_level": "ERROR"})

    @DBOS.step()
    async def step() -> str:
        return TEXT

    @DBOS.workflow()
    async def three_steps() -> str:
        for _ in range(3):
            await step()
        return DONE

    DBOS.launch()
    return three_steps


async def langgraph(url: str) -> Workflow:
    """Each connection has a checkpointer and a graph of its own: a checkpointer lets one of its runs at a time use the database."""
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
    from langgraph.graph import END, START, StateGraph
    from psycopg import AsyncConnection
    from psycopg.rows import dict_row

    def more(before: list[str] | None, added: list[str]) -> list[str]:
        return [*(before or []), *added]

    class State(TypedDict):
        results: Annotated[list[str], more]

    async def step(state: State) -> State:
        return {"results": [TEXT]}

    graph = StateGraph(State)
    for number in range(3):
        graph.add_node(f"step-{number}", step)
    for before, after in ((START, "step-0"), ("step-0", "step-1"), ("step-1", "step-2"), ("step-2", END)):
        graph.add_edge(before, after)
    free: asyncio.Queue[Any] = asyncio.Queue()
    for number in range(CONNECTIONS):
        connection = await AsyncConnection.connect(url, autocommit=True, prepare_threshold=0, row_factory=dict_row)
        saver = AsyncPostgresSaver(connection)
        if number == 0:
            await saver.setup()
        free.put_nowait(graph.compile(checkpointer=saver))

    async def three_steps() -> str:
        compiled = await free.get()
        try:
            config = {"configurable": {"thread_id": str(uuid4())}}
            found = await compiled.ainvoke({"results": []}, config, durability="sync")
        finally:
            free.put_nowait(compiled)
        return DONE if len(found["results"]) == 3 else "wrong"

    return three_steps


async def main(kind: str, port: int, url: str) -> None:
    workflow = await {"dbos": dbos, "langgraph": langgraph}[kind](url)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        body = (DONE if scope["method"] == "GET" else await workflow()).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    config = uvicorn.Config(app, "127.0.0.1", port, lifespan="off", log_level="error", access_log=False, backlog=20_000)
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), sys.stdin.readline().strip()))
