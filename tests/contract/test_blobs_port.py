"""What the port `BlobStore` promises; in memory and on PostgreSQL."""

import asyncio
import hashlib
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from adapters.postgres.blobs import PostgresBlobs
from adapters.postgres.database import PostgresDatabase
from adapters.postgres.pool import Pool
from application.engine.ports.blobs import SHOWN_ROOTS, Blob, BlobInUse, BlobsFull, BlobStore, BlobUsage, UploadOver
from application.engine.ports.pages import position_cursor
from tests.kit.memory import ManualClock, MemoryBlobs, MemoryLog

NEVER = datetime(2000, 1, 1, tzinfo=UTC)
MOST = 1_000


class BlobsSide(Protocol):
    blobs: BlobStore

    async def pass_seconds(self, seconds: float) -> None:
        """For the uploads under way."""
        ...

    async def chunks(self) -> int:
        """Chunks of all contents."""
        ...


class MemorySide:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.blobs = MemoryBlobs(MemoryLog(self.clock))

    async def pass_seconds(self, seconds: float) -> None:
        self.clock.advance(seconds)

    async def chunks(self) -> int:
        return sum(len(tenant.chunks) for tenant in self.blobs.tenants.values())


class PostgresSide:
    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.blobs = PostgresBlobs(PostgresDatabase(pool))

    async def pass_seconds(self, seconds: float) -> None:
        async with self.pool.connection() as connection:
            await connection.execute("UPDATE blob_upload SET began_at = began_at - make_interval(secs => %s)", [seconds])

    async def chunks(self) -> int:
        async with self.pool.connection() as connection:
            row = await (await connection.execute("SELECT count(*) FROM blob_chunk")).fetchone()
        assert row is not None
        return int(row[0])


@pytest.fixture
def memory_side() -> MemorySide:
    return MemorySide()


@pytest.fixture
def postgres_side(pool: Pool) -> PostgresSide:
    return PostgresSide(pool)


@pytest.fixture(params=["memory", "postgres"])
def side(request: pytest.FixtureRequest) -> BlobsSide:
    found: BlobsSide = request.getfixturevalue(f"{request.param}_side")
    return found


def blob_of(content: bytes, content_id: UUID | None = None, type: str = "text/plain") -> Blob:
    return Blob(hashlib.sha256(content).hexdigest(), len(content), type, NEVER, "key:1", content_id or uuid7(), 4)


async def put(blobs: BlobStore, tenant_id: UUID, content: bytes, type: str = "text/plain") -> Blob:
    blob = blob_of(content, type=type)
    await blobs.begin(tenant_id, blob.content_id, reserved=len(content), most=MOST)
    for number in range(-(-len(content) // 4)):
        await blobs.write(tenant_id, blob.content_id, number, content[4 * number :][:4])
    await blobs.finish(tenant_id, blob)
    return blob


async def test_a_blob_comes_back_as_it_was_put_and_belongs_to_its_tenant(side: BlobsSide) -> None:
    tenant, other = uuid7(), uuid7()
    blob = await put(side.blobs, tenant, b"\x00\xffcontent")
    found = await side.blobs.find(tenant, blob.sha256)
    assert found is not None and found.made_at > NEVER
    assert (found.sha256, found.size, found.type, found.made_by, found.content_id, found.chunk_bytes) == (
        blob.sha256, 9, "text/plain", "key:1", blob.content_id, 4,
    )  # fmt: skip
    chunks = [await side.blobs.read(tenant, blob.content_id, number) for number in range(4)]
    assert chunks == [b"\x00\xffco", b"nten", b"t", None]
    assert await side.blobs.find(other, blob.sha256) is None
    assert await side.blobs.read(other, blob.content_id, 0) is None
    assert (await side.blobs.list(other, limit=10, before=None)).data == []
    assert await side.blobs.refer(other, [blob.sha256], [uuid7()]) == set()
    assert not await side.blobs.remove(other, blob.sha256)
    assert await side.blobs.usage(other) == BlobUsage()


async def test_the_same_content_is_kept_once_with_its_first_type(side: BlobsSide) -> None:
    tenant = uuid7()
    first, again = blob_of(b"same"), blob_of(b"same", type="image/png")
    for blob in (first, again):  # at the same time
        await side.blobs.begin(tenant, blob.content_id, reserved=4, most=MOST)
        await side.blobs.write(tenant, blob.content_id, 0, b"same")
    before = await side.chunks()
    assert await side.blobs.usage(tenant) == BlobUsage(0, 0, 8)
    assert [await side.blobs.finish(tenant, blob) for blob in (first, again)] == [True, False]
    found = await side.blobs.find(tenant, first.sha256)
    assert found is not None and (found.type, found.content_id) == ("text/plain", first.content_id)
    assert await side.chunks() == before - 1
    assert await side.blobs.usage(tenant) == BlobUsage(1, 4, 0)


async def test_an_unfinished_upload_shows_nothing_and_leaves_nothing(side: BlobsSide) -> None:
    tenant, blob = uuid7(), blob_of(b"half")
    before = await side.chunks()
    await side.blobs.begin(tenant, blob.content_id, reserved=4, most=MOST)
    await side.blobs.write(tenant, blob.content_id, 0, b"half")
    assert await side.blobs.find(tenant, blob.sha256) is None
    assert (await side.blobs.list(tenant, limit=10, before=None)).data == []
    for _ in range(2):
        await side.blobs.abandon(tenant, blob.content_id)
    assert (await side.chunks(), await side.blobs.usage(tenant)) == (before, BlobUsage())
    with pytest.raises(UploadOver):
        await side.blobs.write(tenant, blob.content_id, 1, b"more")
    with pytest.raises(UploadOver):
        await side.blobs.finish(tenant, blob)
    assert await side.chunks() == before


async def test_abandoning_what_is_finished_changes_nothing(side: BlobsSide) -> None:
    tenant = uuid7()
    blob = await put(side.blobs, tenant, b"kept")
    await side.blobs.abandon(tenant, blob.content_id)
    assert await side.blobs.read(tenant, blob.content_id, 0) == b"kept"
    assert await side.blobs.usage(tenant) == BlobUsage(1, 4, 0)


async def test_what_was_left_behind_is_swept_and_nothing_else(side: BlobsSide) -> None:
    tenant, left = uuid7(), blob_of(b"left")
    kept = await put(side.blobs, tenant, b"kept")
    await side.blobs.sweep(older_than_s=-1.0)  # of other tests
    before = await side.chunks()
    await side.blobs.begin(tenant, left.content_id, reserved=4, most=MOST)
    await side.blobs.write(tenant, left.content_id, 0, b"left")
    await side.pass_seconds(50)
    young = blob_of(b"young")
    await side.blobs.begin(tenant, young.content_id, reserved=5, most=MOST)
    await side.pass_seconds(51)
    assert await side.blobs.sweep(older_than_s=100) == 1
    assert await side.chunks() == before
    assert await side.blobs.usage(tenant) == BlobUsage(1, 4, 5)
    assert await side.blobs.read(tenant, kept.content_id, 0) == b"kept"
    await side.blobs.write(tenant, young.content_id, 0, b"young")


async def test_a_tenant_has_so_many_bytes_uploads_included_and_others_have_their_own(side: BlobsSide) -> None:
    tenant, other = uuid7(), uuid7()
    await put(side.blobs, tenant, b"a" * 600)
    upload = uuid7()
    await side.blobs.begin(tenant, upload, reserved=300, most=MOST)
    with pytest.raises(BlobsFull) as refused:
        await side.blobs.begin(tenant, uuid7(), reserved=101, most=MOST)
    assert "101 more bytes are over the 1,000 bytes" in refused.value.message
    await side.blobs.begin(tenant, uuid7(), reserved=100, most=MOST)
    with pytest.raises(BlobsFull):
        await side.blobs.begin(other, uuid7(), reserved=1_001, most=MOST)
    await side.blobs.begin(other, uuid7(), reserved=1_000, most=MOST)
    await side.blobs.abandon(tenant, upload)
    await side.blobs.begin(tenant, uuid7(), reserved=300, most=MOST)
    assert await side.blobs.usage(tenant) == BlobUsage(1, 600, 400)


async def test_lists_are_newest_first_and_have_pages(side: BlobsSide) -> None:
    tenant = uuid7()
    made = [(await put(side.blobs, tenant, f"{n}".encode())).sha256 for n in range(5)]
    first = await side.blobs.list(tenant, limit=2, before=None)
    assert [blob.sha256 for blob in first.data] == [made[4], made[3]] and first.next_cursor is not None
    second = await side.blobs.list(tenant, limit=3, before=position_cursor(first.next_cursor))
    assert [blob.sha256 for blob in second.data] == [made[2], made[1], made[0]] and second.next_cursor is None


async def test_what_is_referred_to_stays_and_is_found_by_its_root(side: BlobsSide) -> None:
    tenant, run, other_run, missing = uuid7(), uuid7(), uuid7(), "0" * 64
    blob = await put(side.blobs, tenant, b"kept")
    assert await side.blobs.refer(tenant, [blob.sha256, missing], [run]) == {blob.sha256}
    assert await side.blobs.refer(tenant, [blob.sha256], [run]) == {blob.sha256}
    assert await side.blobs.roots(tenant, blob.sha256) == [run]
    assert await side.blobs.find(tenant, blob.sha256, root_id=run) is not None
    assert await side.blobs.find(tenant, blob.sha256, root_id=other_run) is None
    with pytest.raises(BlobInUse) as refused:
        await side.blobs.remove(tenant, blob.sha256)
    assert list(refused.value.roots) == [run] and str(run) in refused.value.message
    assert await side.blobs.read(tenant, blob.content_id, 0) == b"kept"
    assert await side.blobs.usage(tenant) == BlobUsage(1, 4, 0)


async def test_some_of_many_roots_are_named(side: BlobsSide) -> None:
    tenant = uuid7()
    blob = await put(side.blobs, tenant, b"popular")
    await side.blobs.refer(tenant, [blob.sha256], [uuid7() for _ in range(SHOWN_ROOTS + 5)])
    assert len(await side.blobs.roots(tenant, blob.sha256)) == SHOWN_ROOTS
    with pytest.raises(BlobInUse, match="and others"):
        await side.blobs.remove(tenant, blob.sha256)


async def test_a_blob_without_references_can_be_removed_and_put_again(side: BlobsSide) -> None:
    tenant = uuid7()
    before = await side.chunks()
    blob = await put(side.blobs, tenant, b"content")
    assert await side.blobs.remove(tenant, blob.sha256)
    assert await side.blobs.find(tenant, blob.sha256) is None
    assert await side.blobs.read(tenant, blob.content_id, 0) is None
    assert (await side.chunks(), await side.blobs.usage(tenant)) == (before, BlobUsage())
    assert not await side.blobs.remove(tenant, blob.sha256)
    assert await side.blobs.refer(tenant, [blob.sha256], [uuid7()]) == set()
    again = await put(side.blobs, tenant, b"content")
    assert await side.blobs.read(tenant, again.content_id, 0) == b"cont"


async def test_a_reference_and_a_removal_at_the_same_time_end_in_one_order(side: BlobsSide) -> None:
    """Either the reference is there and the blob stays, or the blob is gone and the reference was refused."""
    tenant, run = uuid7(), uuid7()
    for n in range(20):
        blob = await put(side.blobs, tenant, f"{n}".encode())
        referred, removed = await asyncio.gather(
            side.blobs.refer(tenant, [blob.sha256], [run]), side.blobs.remove(tenant, blob.sha256), return_exceptions=True
        )
        there = await side.blobs.find(tenant, blob.sha256) is not None
        assert not isinstance(referred, BaseException)
        assert (blob.sha256 in referred) is there
        assert isinstance(removed, BlobInUse) if there else removed is True


async def test_an_empty_content_is_a_blob(side: BlobsSide) -> None:
    tenant = uuid7()
    blob = await put(side.blobs, tenant, b"")
    found = await side.blobs.find(tenant, blob.sha256)
    assert found is not None and found.size == 0
    assert await side.blobs.read(tenant, blob.content_id, 0) is None
