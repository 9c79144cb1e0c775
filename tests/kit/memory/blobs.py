"""Blobs in memory."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from adapters.memory.log import MemoryLog
from application.engine.ports.blobs import SHOWN_ROOTS, Blob, BlobInUse, BlobsFull, BlobUsage, UploadOver
from application.engine.ports.pages import Page, encode_cursor


@dataclass
class _Upload:
    reserved: int
    began_at: datetime


@dataclass
class _OfTenant:
    blobs: dict[str, tuple[int, Blob]] = field(default_factory=dict)
    uploads: dict[UUID, _Upload] = field(default_factory=dict)
    chunks: dict[tuple[UUID, int], bytes] = field(default_factory=dict)
    references: set[tuple[str, UUID]] = field(default_factory=set)


class MemoryBlobs:
    """Implements `application.engine.ports.blobs.BlobStore`."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self.calls: list[str] = []
        self.tenants: dict[UUID, _OfTenant] = {}
        self._numbers = 0

    def _of(self, tenant_id: UUID, call: str) -> _OfTenant:
        self.log.reach()
        self.calls.append(call)
        return self.tenants.setdefault(tenant_id, _OfTenant())

    async def find(self, tenant_id: UUID, sha256: str, *, root_id: UUID | None = None) -> Blob | None:
        mine = self._of(tenant_id, "find")
        if root_id is not None and (sha256, root_id) not in mine.references:
            return None
        return mine.blobs[sha256][1] if sha256 in mine.blobs else None

    async def list(self, tenant_id: UUID, *, limit: int, before: int | None) -> Page[Blob]:
        found = [one for one in self._of(tenant_id, "list").blobs.values() if before is None or one[0] < before]
        found.sort(key=lambda one: one[0], reverse=True)
        more = encode_cursor(str(found[limit - 1][0])) if len(found) > limit else None
        return Page([blob for _, blob in found[:limit]], more)

    async def usage(self, tenant_id: UUID) -> BlobUsage:
        mine = self._of(tenant_id, "usage")
        reserved = sum(upload.reserved for upload in mine.uploads.values())
        return BlobUsage(len(mine.blobs), sum(blob.size for _, blob in mine.blobs.values()), reserved)

    async def roots(self, tenant_id: UUID, sha256: str) -> Sequence[UUID]:
        return sorted(root for one, root in self._of(tenant_id, "roots").references if one == sha256)[:SHOWN_ROOTS]

    async def begin(self, tenant_id: UUID, content_id: UUID, *, reserved: int, most: int) -> None:
        used = await self.usage(tenant_id)
        mine = self._of(tenant_id, "begin")
        if used.bytes + used.reserved + reserved > most:
            raise BlobsFull(reserved, most)
        mine.uploads[content_id] = _Upload(reserved, self.log.clock.now())

    async def write(self, tenant_id: UUID, content_id: UUID, number: int, data: bytes) -> None:
        mine = self._of(tenant_id, "write")
        if content_id not in mine.uploads:
            raise UploadOver("the upload is over")
        mine.chunks[content_id, number] = data

    async def finish(self, tenant_id: UUID, blob: Blob) -> bool:
        mine = self._of(tenant_id, "finish")
        if mine.uploads.pop(blob.content_id, None) is None:
            raise UploadOver("the upload is over")
        if blob.sha256 in mine.blobs:
            self._forget(mine, blob.content_id)
            return False
        self._numbers += 1
        mine.blobs[blob.sha256] = (self._numbers, replace(blob, made_at=self.log.clock.now()))
        return True

    async def abandon(self, tenant_id: UUID, content_id: UUID) -> None:
        mine = self._of(tenant_id, "abandon")
        if mine.uploads.pop(content_id, None) is not None:
            self._forget(mine, content_id)

    async def read(self, tenant_id: UUID, content_id: UUID, number: int) -> bytes | None:
        return self._of(tenant_id, "read").chunks.get((content_id, number))

    async def refer(self, tenant_id: UUID, sha256s: Collection[str], roots: Collection[UUID]) -> Collection[str]:
        mine = self._of(tenant_id, "refer")
        there = {one for one in sha256s if one in mine.blobs}
        mine.references |= {(one, root) for one in there for root in roots}
        return there

    async def remove(self, tenant_id: UUID, sha256: str) -> bool:
        roots = await self.roots(tenant_id, sha256)
        mine = self._of(tenant_id, "remove")
        if sha256 not in mine.blobs:
            return False
        if roots:
            raise BlobInUse(sha256, roots)
        self._forget(mine, mine.blobs.pop(sha256)[1].content_id)
        return True

    async def sweep(self, *, older_than_s: float) -> int:
        self.log.reach()
        now, swept = self.log.clock.now(), 0
        for tenant_id, mine in self.tenants.items():
            for content_id, upload in list(mine.uploads.items()):
                if (now - upload.began_at).total_seconds() > older_than_s:
                    await self.abandon(tenant_id, content_id)
                    swept += 1
        return swept

    @staticmethod
    def _forget(mine: _OfTenant, content_id: UUID) -> None:
        mine.chunks = {place: data for place, data in mine.chunks.items() if place[0] != content_id}
