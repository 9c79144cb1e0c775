"""A process of the server that is killed in the middle of an upload."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adapters.embedded import EmbeddedServices
from adapters.postgres.blobs import PostgresBlobs
from adapters.postgres.database import PostgresDatabase
from adapters.postgres.pool import open_pool
from application.engine.ports.blobs import CHUNK_BYTES
from tests.integration.sdk_kit import KEY, serving
from tests.integration.system_kit import eventually, fresh_database
from tests.pace import in_time
from tidelog import Client
from tidelog.errors import TidelogConnectionError


async def test_what_a_killed_process_leaves_of_an_upload_is_no_blob_and_is_swept(
    services: EmbeddedServices, tmp_path: Path
) -> None:
    chunk, more = secrets.token_bytes(CHUNK_BYTES), asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield chunk
        await more.wait()
        yield b"never"

    async with fresh_database(services) as url, serving(url, services.nats_url, tmp_path) as server:
        pool = await open_pool(url, role="test")
        try:

            async def chunks() -> int:
                async with pool.connection() as connection:
                    [(count,)] = await (await connection.execute("SELECT count(*) FROM blob_chunk")).fetchall()
                return int(count)

            async with Client(server.url, KEY, patience_s=0) as client:
                putting = asyncio.create_task(client.blobs.put(pieces()))
                await eventually(chunks, "a chunk is written")
                await server.kill()
                more.set()
                with pytest.raises(TidelogConnectionError):
                    await in_time(putting, 30)
            await server.start()
            async with Client(server.url, KEY) as client:
                assert [blob async for blob in client.blobs.list()] == []
                assert await chunks() == 1
                assert await PostgresBlobs(PostgresDatabase(pool)).sweep(older_than_s=-1.0) == 1
                assert await chunks() == 0
                assert await client.blobs.get(await client.blobs.put(chunk)).read() == chunk
        finally:
            await pool.close()
