"""Blobs: contents that are too large for an event, by the hash of their bytes, for each tenant by itself."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from application.engine.ports.pages import Page
from domain.errors import InvalidState, TidelogError, Unavailable

MAX_BLOB_BYTES = 64 * 1024 * 1024
CHUNK_BYTES = 512 * 1024
"""Bytes of each chunk of a new content but the last."""
SHOWN_ROOTS = 20
"""Roots that are named of those that refer to a blob."""


@dataclass(frozen=True, slots=True)
class Blob:
    sha256: str
    """In hexadecimal digits, lower case."""
    size: int
    type: str
    """The media type that was given with the content."""
    made_at: datetime
    made_by: str
    content_id: UUID
    """Where the bytes are."""
    chunk_bytes: int = CHUNK_BYTES


@dataclass(frozen=True, slots=True)
class BlobUsage:
    blobs: int = 0
    bytes: int = 0
    reserved: int = 0
    """Bytes for uploads under way."""


class BlobInUse(InvalidState):
    """Events of the log refer to the blob."""

    code = "blob-in-use"

    def __init__(self, sha256: str, roots: Sequence[UUID]) -> None:
        self.roots = roots
        named = ", ".join(str(root) for root in roots[:3])
        super().__init__(f"the log refers to the blob {sha256} in {named}{' and others' if len(roots) > 3 else ''}: it stays")


class BlobsFull(TidelogError):
    """The tenant has as many bytes of blobs as it may have."""

    code = "blobs-full"

    def __init__(self, wanted: int, most: int) -> None:
        super().__init__(
            f"{wanted:,} more bytes are over the {most:,} bytes of blobs that a tenant may have, uploads under way included: "
            "remove blobs that nothing refers to, or raise TIDELOG_MAX_BLOB_BYTES"
        )


class UploadOver(Unavailable):
    """The upload took too long, and was tidied up."""


class BlobStore(Protocol):
    """All methods raise Unavailable."""

    async def find(self, tenant_id: UUID, sha256: str, *, root_id: UUID | None = None) -> Blob | None:
        """A blob. `root_id`: only if events of this root refer to it."""
        ...

    async def list(self, tenant_id: UUID, *, limit: int, before: int | None) -> Page[Blob]:
        """Blobs, the newest first. `before`: of a cursor."""
        ...

    async def usage(self, tenant_id: UUID) -> BlobUsage: ...

    async def roots(self, tenant_id: UUID, sha256: str) -> Sequence[UUID]:
        """Roots that refer to a blob, `SHOWN_ROOTS` at most."""
        ...

    async def begin(self, tenant_id: UUID, content_id: UUID, *, reserved: int, most: int) -> None:
        """Begins an upload of up to `reserved` bytes. `most`: the bytes that the tenant may have. Raises BlobsFull."""
        ...

    async def write(self, tenant_id: UUID, content_id: UUID, number: int, data: bytes) -> None:
        """Writes a chunk of an upload. Chunks count from 0. Raises UploadOver."""
        ...

    async def finish(self, tenant_id: UUID, blob: Blob) -> bool:
        """Ends the upload of the blob's content: the blob is there, durably. `made_at` is the time of the store.

        Returns whether the blob is new. If not, the content is given up. Raises UploadOver.
        """
        ...

    async def abandon(self, tenant_id: UUID, content_id: UUID) -> None:
        """Removes what an upload has written. Does nothing for an upload that has ended."""
        ...

    async def read(self, tenant_id: UUID, content_id: UUID, number: int) -> bytes | None:
        """A chunk of a content. None: there is none, because the blob was removed."""
        ...

    async def refer(self, tenant_id: UUID, sha256s: Collection[str], roots: Collection[UUID]) -> Collection[str]:
        """Notes that each of the roots refers to each of the blobs. Returns those that are there, and so stay."""
        ...

    async def remove(self, tenant_id: UUID, sha256: str) -> bool:
        """Removes a blob. Returns whether it was there. Raises BlobInUse."""
        ...

    async def sweep(self, *, older_than_s: float) -> int:
        """Removes what uploads have left behind that began before this time. Returns the number of uploads."""
        ...
