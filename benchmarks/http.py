"""`POST /v1/runs`, durable on answer, beside an empty FastAPI endpoint with the same body: rounds in turn, each in a process.

`python -m benchmarks.http [--rounds 3] [--seconds 4] [--connections 64]`
"""

import argparse
import asyncio
import hashlib
import json
import statistics
import subprocess
import sys
import time
from uuid import uuid4

import httpx2
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from adapters.embedded import EmbeddedServices
from benchmarks import table
from benchmarks.servers import SERVE, embedded, environment, free_port, process

KEY = "tl_benchmark"
BODY = json.dumps({"agent": "greeter", "input": {"question": "x" * 200}, "metadata": {"source": "benchmark"}}).encode()

EMPTY = """
import sys, uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from typing import Any
class Body(BaseModel):
    agent: str
    input: Any
    metadata: dict[str, Any]
app = FastAPI()
@app.post("/v1/runs", status_code=201)
async def post(body: Body):
    return {"run_id": "01900000-0000-7000-8000-000000000001", "position": 1, "version": 1}
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
"""


def request_bytes(port: int) -> bytes:
    head = (
        f"POST /v1/runs HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
    )
    return head.encode() + BODY


def load(port: int, connections: int, seconds: float) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.load", "127.0.0.1", str(port), str(connections), str(seconds)]
    done = subprocess.run(command, input=request_bytes(port), capture_output=True, check=True, timeout=seconds + 60)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def wait_for(url: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if httpx2.get(url, timeout=2.0).status_code < 500:
                return
        except httpx2.HTTPError:
            pass
        time.sleep(0.1)
    raise TimeoutError(f"{url} is not ready after {seconds:g} s")


async def main(rounds: int, seconds: float, connections: int) -> None:
    async with embedded() as services:
        await asyncio.to_thread(measure, services, rounds, seconds, connections)


def measure(services: EmbeddedServices, rounds: int, seconds: float, connections: int) -> None:
    port, empty_port = free_port(), free_port()
    key_sha256 = hashlib.sha256(KEY.encode()).hexdigest()
    env = environment(services, TIDELOG_PORT=str(port), TIDELOG_BOOTSTRAP_KEY_SHA256=key_sha256)
    figures: dict[str, list[dict[str, float]]] = {"empty": [], "api": [], "all": []}
    with process(SERVE, "api", env=env), process(EMPTY, str(empty_port)):
        with process(SERVE, "relay,projector,saga", env=env):
            wait_for(f"http://127.0.0.1:{port}/health/ready")
            offer(port)
            load(port, connections, 1.0)
            figures["all"].append(load(port, connections, seconds))
        wait_for(f"http://127.0.0.1:{empty_port}/docs")
        for _ in range(rounds):
            figures["empty"].append(load(empty_port, connections, seconds))
            figures["api"].append(load(port, connections, seconds))
    report(figures, connections)


def offer(port: int) -> None:
    """Registers the agent, as a worker that then goes away."""
    hello = {"t": "hello", "versions": [1], "worker": "benchmark", "incarnation": str(uuid4()), "agents": [{"name": "greeter"}]}
    url, headers = f"ws://127.0.0.1:{port}/v1/workers/session", {"Authorization": f"Bearer {KEY}"}
    protocols = [Subprotocol("tidelog.worker.v1")]
    with connect(url, additional_headers=headers, subprotocols=protocols, compression=None, proxy=None) as worker:
        worker.send(json.dumps([hello]))
        while '"welcome"' not in worker.recv(timeout=10):
            pass


def report(figures: dict[str, list[dict[str, float]]], connections: int) -> None:
    names = {
        "empty": "empty FastAPI endpoint",
        "api": "POST /v1/runs (api role)",
        "all": "POST /v1/runs, with relay, projections and sagas at work",
    }
    print(f"\nHTTP, {connections} connections, durable on answer (medians)")
    for name, title in names.items():
        rows = figures[name]
        rate, p50, p99 = (statistics.median(row[key] for row in rows) for key in ("rate", "p50_ms", "p99_ms"))
        failures = sum(row["failures"] for row in rows)
        print(f"  {title:60} {rate:8,.0f}/s  p50 {p50:6.2f} ms  p99 {p99:6.2f} ms  failures {failures:.0f}")
    ratios = [a["rate"] / e["rate"] for a, e in zip(figures["api"], figures["empty"], strict=True)]
    ratio = statistics.median(ratios)
    print(f"  ratio to the empty endpoint: {ratio:.0%} (reach: 70 %)")
    wanted = (("api", "rate"), ("api", "p50_ms"), ("empty", "rate"))
    rate, p50, empty = (statistics.median(row[key] for row in figures[name]) for name, key in wanted)
    table.row(
        f"`POST /v1/runs`, durable on answer, {connections} connections, one process",
        f"{rate:,.0f}/s, p50 {p50:.0f} ms",
        f"{ratio:.0%} of an empty FastAPI endpoint ({empty:,.0f}/s)",
        "≥ 70 %",
        met=ratio >= 0.7,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--connections", type=int, default=64)
    arguments = parser.parse_args()
    asyncio.run(main(arguments.rounds, arguments.seconds, arguments.connections))
