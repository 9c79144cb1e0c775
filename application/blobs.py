"""Blobs: taking a content in while it arrives, and giving parts of it out."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

from uuid_utils.compat import uuid7

from application.engine.ports.blobs import CHUNK_BYTES, MAX_BLOB_BYTES, Blob, BlobStore
from domain.errors import InvalidCommand, NotFound, PayloadTooLarge, Unavailable

AT_ONCE = 16
"""Contents that one process takes in at the same time. Each holds a chunk or two in memory."""
CHUNKS_AT_ONCE = 2
"""Chunks that one process writes, and that it reads, at the same time: others need the connections, too."""
PATIENCE_S = 20.0
"""Seconds that a content waits for its turn."""
ABANDON_S = 5.0


class HashMismatch(InvalidCommand):
    """The content is not the one of its name."""

    code = "hash-mismatch"

    def __init__(self, named: str, found: str) -> None:
        super().__init__(f"the content has the SHA-256 {found}, not {named}: nothing was kept")


class Stored(NamedTuple):
    blob: Blob
    new: bool


class ByteSpan(NamedTuple):
    """Bytes of a content, the first and the last."""

    first: int
    last: int


class Blobs:
    """The use cases. One object serves a process: it bounds what the process does at the same time."""

    def __init__(self, store: BlobStore, *, most_bytes: int, at_once: int = AT_ONCE, patience_s: float = PATIENCE_S) -> None:
        """`most_bytes`: of each tenant."""
        self.store = store
        self.most_bytes = most_bytes
        self._patience_s = patience_s
        self._uploads = asyncio.Semaphore(at_once)
        self._writes, self._reads = asyncio.Semaphore(CHUNKS_AT_ONCE), asyncio.Semaphore(CHUNKS_AT_ONCE)

    async def put(
        self,
        tenant_id: UUID,
        pieces: AsyncIterator[bytes],
        *,
        made_by: str,
        type: str,
        size: int | None,
        sha256: str | None = None,
        root_id: UUID | None = None,
    ) -> Stored:
        """Takes a content in while it arrives. Whatever goes wrong, nothing of it is kept.

        `size`: as announced; None: it was not. `sha256`: of the content, as its sender says. `root_id`: refers to the blob from the
        beginning.

        Raises PayloadTooLarge, BlobsFull, HashMismatch, Unavailable, and what `pieces` raises.
        """
        if size is not None and size > MAX_BLOB_BYTES:
            raise _too_large()
        async with self._turn():
            known = None if sha256 is None else await self.store.find(tenant_id, sha256)
            if known is not None:
                await self._compare(pieces, known.sha256)
                stored = Stored(known, False)
            else:
                stored = await self._keep(tenant_id, pieces, made_by, type, size, sha256)
        if root_id is not None or known is not None:
            there = await self.store.refer(tenant_id, [stored.blob.sha256], [] if root_id is None else [root_id])
            if not there:
                raise Unavailable("the blob was removed while it was put: put it again")
        return stored

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._patience_s):
                await self._uploads.acquire()
        except TimeoutError:
            raise Unavailable(f"{AT_ONCE} contents arrive at this process already: try again") from None
        try:
            yield
        finally:
            self._uploads.release()

    async def _compare(self, pieces: AsyncIterator[bytes], sha256: str) -> None:
        """Reads a content that is there already. Its sender proves to have it."""
        digest, size = hashlib.sha256(), 0
        async for piece in pieces:
            size += len(piece)
            if size > MAX_BLOB_BYTES:
                raise _too_large()
            digest.update(piece)
        _must_match(sha256, digest.hexdigest())

    async def _keep(
        self, tenant_id: UUID, pieces: AsyncIterator[bytes], made_by: str, type: str, size: int | None, sha256: str | None
    ) -> Stored:
        content_id, reserved = uuid7(), MAX_BLOB_BYTES if size is None else size
        await self.store.begin(tenant_id, content_id, reserved=reserved, most=self.most_bytes)
        try:
            found, taken = await self._write(tenant_id, content_id, pieces)
            if sha256 is not None:
                _must_match(sha256, found)
            blob = Blob(found, taken, type, datetime.now(UTC), made_by, content_id, CHUNK_BYTES)
            new = await self.store.finish(tenant_id, blob)
        except BaseException:
            with suppress(Unavailable, TimeoutError):  # the upkeep removes what stays
                async with asyncio.timeout(ABANDON_S):
                    await self.store.abandon(tenant_id, content_id)
            raise
        return Stored(await self.store.find(tenant_id, found) or blob, new)

    async def _write(self, tenant_id: UUID, content_id: UUID, pieces: AsyncIterator[bytes]) -> tuple[str, int]:
        """Writes the chunks of a content. Returns its hash and its size."""
        digest, waiting, number, size = hashlib.sha256(), bytearray(), 0, 0
        async for piece in pieces:
            size += len(piece)
            if size > MAX_BLOB_BYTES:
                raise _too_large()
            digest.update(piece)
            waiting += piece
            while len(waiting) >= CHUNK_BYTES:
                chunk = bytes(waiting[:CHUNK_BYTES])
                del waiting[:CHUNK_BYTES]
                async with self._writes:
                    await self.store.write(tenant_id, content_id, number, chunk)
                number += 1
        if waiting:
            async with self._writes:
                await self.store.write(tenant_id, content_id, number, bytes(waiting))
        return digest.hexdigest(), size

    async def get(self, tenant_id: UUID, sha256: str, *, root_id: UUID | None = None) -> Blob:
        """A blob. `root_id`: only if events of this root refer to it. Raises NotFound."""
        blob = await self.store.find(tenant_id, sha256, root_id=root_id)
        if blob is None:
            raise NotFound(f"there is no blob {sha256}")
        return blob

    async def content(self, tenant_id: UUID, blob: Blob, span: ByteSpan | None = None) -> AsyncIterator[bytes]:
        """The bytes of a blob, a chunk at a time. Raises NotFound if the blob is removed meanwhile."""
        first, last = (0, blob.size - 1) if span is None else span
        for number in range(first // blob.chunk_bytes, last // blob.chunk_bytes + 1 if blob.size else 0):
            async with self._reads:
                chunk = await self.store.read(tenant_id, blob.content_id, number)
            if chunk is None:
                raise NotFound(f"the blob {blob.sha256} was removed while it was read")
            begin = number * blob.chunk_bytes
            if begin < first or begin + len(chunk) > last + 1:
                chunk = chunk[max(0, first - begin) : last + 1 - begin]
            yield chunk

    async def remove(self, tenant_id: UUID, sha256: str) -> None:
        """Removes a blob to which nothing refers. Raises NotFound, BlobInUse."""
        if not await self.store.remove(tenant_id, sha256):
            raise NotFound(f"there is no blob {sha256}")


def _too_large() -> PayloadTooLarge:
    return PayloadTooLarge(f"a blob may have {MAX_BLOB_BYTES:,} bytes")


def _must_match(named: str, found: str) -> None:
    if named != found:
        raise HashMismatch(named, found)


_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class NotSatisfiable(Exception):
    """No byte of the content is in the range that was asked for."""


def span_of(header: str, size: int) -> ByteSpan | None:
    """The bytes that a `Range` header asks for. None: all of them, also for a header that is not understood, as RFC 9110 wants it.

    Several ranges are answered with the whole content. Raises NotSatisfiable.
    """
    found = _RANGE.fullmatch(header.strip().lower())
    if found is None or found[1] == found[2] == "":
        return None
    if not found[1]:
        first, last = max(0, size - int(found[2])), size - 1
        if not int(found[2]):
            raise NotSatisfiable
    else:
        first, last = int(found[1]), int(found[2]) if found[2] else size - 1
        if found[2] and last < first:
            return None
    if first >= size:
        raise NotSatisfiable
    return ByteSpan(first, min(last, size - 1))
