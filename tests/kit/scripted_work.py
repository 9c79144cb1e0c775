"""A worker of the SDK at a scripted server, and the messages that a server sends to it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from tests.kit.session_server import KEY, Peer, ScriptedServer
from tests.pace import in_time
from tidelog.worker import RefusedError, Worker

RUN = str(uuid4())


class Running:
    def __init__(self, worker: Worker, stop: asyncio.Event, task: "asyncio.Task[None]") -> None:
        self.worker, self.stop, self.task = worker, stop, task


@contextlib.asynccontextmanager
async def running(server: ScriptedServer, *parts: Any, **options: Any) -> AsyncIterator[Running]:
    """A worker in this process. The block ends the worker."""
    agents = [part for part in parts if isinstance(part, type)]
    tools = [part for part in parts if not isinstance(part, type)]
    worker = Worker(url=server.url, api_key=KEY, agents=agents, tools=tools, worker_id="w1", **{"grace_s": 0.0, **options})
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(stop))
    try:
        yield Running(worker, stop, task)
    finally:
        stop.set()
        with contextlib.suppress(RefusedError):
            await in_time(task, 20)


def agent_work(n: int, agent: str, attempt: int = 1, work: str | None = None, **fields: Any) -> dict[str, Any]:
    return {
        "t": "work", "n": n, "kind": "agent", "work": work or str(uuid4()), "attempt": attempt, "token": f"t{attempt}", "run": RUN,
        "step": agent, "agent": agent, "agent_version": "1", "version_asked": False, "input": None, "results": {}, "missing": [],
        "peers": [], "version": 2, "journal": [], "mailbox": [], "more": False, "deadline": None, **fields,
    }  # fmt: skip


def tool_work(n: int, name: str, work: str | None = None, **fields: Any) -> dict[str, Any]:
    return {
        "t": "work", "n": n, "kind": "tool", "work": work or str(uuid4()), "attempt": 1, "token": "t1", "run": RUN,
        "agent_run": str(uuid4()), "tool": name, "arguments": {}, "timeout_s": 60.0, "idempotent": False, **fields,
    }  # fmt: skip


def done(report: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"t": "done", "id": report["id"], "version": 3, **fields}


def refused(report: dict[str, Any], status: int, code: str, **fields: Any) -> dict[str, Any]:
    return {"t": "refused", "id": report["id"], "problem": {"status": status, "code": code, "title": code, **fields}}


async def answer(peer: Peer, kind: str, **fields: Any) -> dict[str, Any]:
    """Hears the next report of the kind, and answers it."""
    report = await peer.hear(kind)
    await peer.say(done(report, **fields))
    return report


def event(caplog: pytest.LogCaptureFixture, name: str) -> dict[str, Any]:
    """The fields of the first line of the event; empty without one."""
    return next((record.__dict__["fields"] for record in caplog.records if record.getMessage() == name), {})
