"""Clients that die in the middle of a request are no defect of the server."""

import asyncio

import structlog
from structlog.testing import LogCapture

from tests.integration.system_kit import eventually, issue_key, running, served


async def test_a_client_that_dies_while_it_sends_is_no_defect(database_url: str, nats_url: str) -> None:
    logs = LogCapture()
    before = structlog.get_config()
    async with running(database_url, nats_url) as system, served(system.container) as url:
        await issue_key(system)
        structlog.configure(processors=[logs])
        try:
            host, port = url.removeprefix("http://").split(":")
            _, writer = await asyncio.open_connection(host, int(port))
            head = f"POST /v1/runs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {system.key}\r\nContent-Length: 100\r\n\r\n"
            writer.write(head.encode() + b'{"agent": "alp')
            await writer.drain()
            await asyncio.sleep(0.1)  # so that the request is being read
            writer.transport.abort()

            async def noticed() -> bool:
                return 'status="499"' in (await system.http.get("/metrics")).text

            await eventually(noticed, "the end of the client")
        finally:
            structlog.configure(**before)
    assert [entry for entry in logs.entries if entry["log_level"] == "error"] == []
