"""Blobs: what is kept of a content that arrives, which parts are given out, and what of the log refers to them."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import orjson
import pytest
from uuid_utils.compat import uuid7

from application.blobs import Blobs, ByteSpan, HashMismatch, NotSatisfiable, span_of
from application.engine.ports.blobs import CHUNK_BYTES, MAX_BLOB_BYTES, BlobInUse, BlobsFull, BlobUsage
from application.engine.ports.log import NewEvent, StreamAppend, one_command
from application.references import NoSuchBlob, ReferringStore, references_in, refers
from domain.errors import NotFound, PayloadTooLarge, Unavailable
from domain.kernel import Json
from tests.kit.memory import ManualClock, MemoryBlobs, MemoryEventStore, MemoryLog
from tests.kit.waiting import turns

TENANT, RUN = uuid7(), uuid7()
A, B = "a" * 64, "b" * 64


class Storing:
    def __init__(self, most_bytes: int = 10 * MAX_BLOB_BYTES, **options: Any) -> None:
        self.store = MemoryBlobs(MemoryLog(ManualClock()))
        self.blobs = Blobs(self.store, most_bytes=most_bytes, **options)

    async def put(self, *pieces: bytes, size: int | None = None, sha256: str | None = None, root_id: UUID | None = None) -> Any:
        return await self.blobs.put(
            TENANT, arriving(*pieces), made_by="key:1", type="text/plain", size=size, sha256=sha256, root_id=root_id
        )

    async def left(self) -> tuple[int, BlobUsage]:
        tenant = self.store.tenants.get(TENANT)
        return 0 if tenant is None else len(tenant.chunks), await self.store.usage(TENANT)


async def arriving(*pieces: bytes, error: Exception | None = None) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
    if error is not None:
        raise error


async def content_of(storing: Storing, sha256: str, span: ByteSpan | None = None) -> bytes:
    blob = await storing.blobs.get(TENANT, sha256)
    return b"".join([piece async for piece in storing.blobs.content(TENANT, blob, span)])


def hash_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("sizes", [[], [1], [CHUNK_BYTES], [CHUNK_BYTES - 1, 2], [3 * CHUNK_BYTES + 7], [100_000] * 11])
async def test_a_content_comes_back_however_it_came(sizes: list[int]) -> None:
    storing = Storing()
    pieces = [bytes([n % 251]) * size for n, size in enumerate(sizes)]
    whole = b"".join(pieces)
    stored = await storing.put(*pieces, size=len(whole))
    assert (stored.new, stored.blob.size, stored.blob.sha256, stored.blob.type) == (True, len(whole), hash_of(whole), "text/plain")
    assert await content_of(storing, stored.blob.sha256) == whole
    assert (await storing.left())[1] == BlobUsage(1, len(whole), 0)


async def test_parts_of_a_content_cost_only_their_chunks() -> None:
    storing, whole = Storing(), bytes(range(256)) * 8192
    sha256 = (await storing.put(whole)).blob.sha256
    for first, last in ((0, 0), (CHUNK_BYTES - 1, CHUNK_BYTES), (5, len(whole) - 1), (len(whole) - 1, len(whole) - 1)):
        assert await content_of(storing, sha256, ByteSpan(first, last)) == whole[first : last + 1]
    storing.store.calls.clear()
    await content_of(storing, sha256, ByteSpan(CHUNK_BYTES + 1, CHUNK_BYTES + 2))
    assert storing.store.calls == ["find", "read"]


async def test_nothing_is_kept_of_a_content_with_another_hash() -> None:
    storing = Storing()
    with pytest.raises(HashMismatch) as refused:
        await storing.put(b"x" * CHUNK_BYTES, b"y", sha256=A)
    assert refused.value.message == (f"the content has the SHA-256 {hash_of(b'x' * CHUNK_BYTES + b'y')}, not {A}: nothing was kept")
    assert await storing.left() == (0, BlobUsage())


@pytest.mark.parametrize("error", [ConnectionError("gone"), Unavailable("away")])
async def test_nothing_is_kept_of_a_content_that_ends_in_the_middle(error: Exception) -> None:
    storing = Storing()
    with pytest.raises(type(error)):
        await storing.blobs.put(
            TENANT, arriving(b"x" * CHUNK_BYTES, error=error), made_by="key:1", type="a/b", size=2 * CHUNK_BYTES
        )
    assert await storing.left() == (0, BlobUsage())


async def test_a_content_over_the_limit_is_refused_before_or_while_it_comes() -> None:
    storing = Storing()
    with pytest.raises(PayloadTooLarge, match="a blob may have 67,108,864 bytes"):
        await storing.put(size=MAX_BLOB_BYTES + 1)
    assert storing.store.calls == []
    piece = b"x" * (MAX_BLOB_BYTES // 4)
    with pytest.raises(PayloadTooLarge):
        await storing.put(piece, piece, piece, piece, b"x")
    assert await storing.left() == (0, BlobUsage())
    whole = await storing.put(piece, piece, piece, piece)
    with pytest.raises(PayloadTooLarge):
        await storing.put(piece, piece, piece, piece, b"x", sha256=whole.blob.sha256)


async def test_a_tenant_that_is_full_is_told_before_a_byte_is_read() -> None:
    storing, read = Storing(most_bytes=100), []

    async def pieces() -> AsyncIterator[bytes]:
        read.append(1)
        yield b"x"

    for size in (101, None):  # of an unknown size: as large as a blob may be
        with pytest.raises(BlobsFull):
            await storing.blobs.put(TENANT, pieces(), made_by="key:1", type="a/b", size=size)
    assert read == []
    await storing.put(b"x" * 100, size=100)


async def test_a_known_content_is_compared_and_not_written_again() -> None:
    storing = Storing()
    first = await storing.put(b"known", size=5)
    storing.store.calls.clear()
    again = await storing.put(b"kno", b"wn", size=5, sha256=first.blob.sha256)
    assert (again.new, again.blob) == (False, first.blob)
    assert "write" not in storing.store.calls and "begin" not in storing.store.calls
    with pytest.raises(HashMismatch):  # the hash alone proves nothing
        await storing.put(b"guess", size=5, sha256=first.blob.sha256)
    computed = await storing.put(b"known", size=5)
    assert (computed.new, computed.blob) == (False, first.blob)
    assert await storing.left() == (1, BlobUsage(1, 5, 0))


async def test_a_blob_that_is_removed_while_it_is_put_again_is_to_be_put_again() -> None:
    storing = Storing()
    sha256 = (await storing.put(b"known", size=5)).blob.sha256

    async def pieces() -> AsyncIterator[bytes]:
        yield b"known"
        assert await storing.store.remove(TENANT, sha256)

    with pytest.raises(Unavailable, match="put it again"):
        await storing.blobs.put(TENANT, pieces(), made_by="key:1", type="a/b", size=5, sha256=sha256)


async def test_a_content_that_is_put_for_a_root_is_referred_to_at_once() -> None:
    storing = Storing()
    for sha256 in (None, hash_of(b"x")):  # new, and known
        root = uuid7()
        stored = await storing.put(b"x", sha256=sha256, root_id=root)
        assert (await storing.blobs.get(TENANT, stored.blob.sha256, root_id=root)).size == 1
    with pytest.raises(NotFound, match=f"there is no blob {hash_of(b'x')}"):
        await storing.blobs.get(TENANT, hash_of(b"x"), root_id=uuid7())
    with pytest.raises(BlobInUse):
        await storing.blobs.remove(TENANT, hash_of(b"x"))
    with pytest.raises(NotFound):
        await storing.blobs.remove(TENANT, A)


async def test_so_many_contents_arrive_at_once_and_others_wait_for_a_while() -> None:
    storing = Storing(at_once=1, patience_s=0.05)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        begun.set()
        await go_on.wait()
        yield b"slow"

    first = asyncio.create_task(storing.blobs.put(TENANT, slow(), made_by="key:1", type="a/b", size=4))
    await begun.wait()
    with pytest.raises(Unavailable, match="arrive at this process already"):
        await storing.put(b"x")
    go_on.set()
    assert (await first).new
    assert (await storing.put(b"x")).new


async def test_a_cancelled_upload_leaves_nothing_and_gives_its_turn_back() -> None:
    storing = Storing(at_once=1)

    async def slow() -> AsyncIterator[bytes]:
        yield b"x" * CHUNK_BYTES
        await asyncio.Event().wait()

    task = asyncio.create_task(storing.blobs.put(TENANT, slow(), made_by="key:1", type="a/b", size=CHUNK_BYTES + 1))
    await turns()
    assert (await storing.left())[0] == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await storing.left() == (0, BlobUsage())
    assert (await storing.put(b"x")).new


async def test_a_blob_that_is_removed_while_it_is_read_is_no_shorter_blob() -> None:
    storing = Storing()
    sha256 = (await storing.put(b"x" * CHUNK_BYTES, b"y")).blob.sha256
    pieces = storing.blobs.content(TENANT, await storing.blobs.get(TENANT, sha256))
    assert len(await anext(pieces)) == CHUNK_BYTES
    await storing.blobs.remove(TENANT, sha256)
    with pytest.raises(NotFound, match="was removed while it was read"):
        await anext(pieces)


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("bytes=0-0", (0, 0)), ("bytes=0-9", (0, 9)), ("bytes=2-", (2, 9)), ("bytes=-3", (7, 9)), ("bytes=-99", (0, 9)),
        ("bytes=9-99999", (9, 9)), (" Bytes=1-2 ", (1, 2)),
        ("", None), ("bytes=", None), ("bytes=-", None), ("bytes=5-2", None), ("bytes=0-1,3-4", None), ("items=0-1", None),
        ("bytes=a-b", None), ("bytes=-1-2", None), ("bytes=0x1-2", None), ("bytes=" + "9" * 30 + "-", None), ("bytes=1-2;", None),
    ],
)  # fmt: skip
def test_ranges(header: str, span: tuple[int, int] | None) -> None:
    assert span_of(header, 10) == (None if span is None else ByteSpan(*span))


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=10-", 10), ("bytes=11-12", 10), ("bytes=-0", 10), ("bytes=0-", 0), ("bytes=-1", 0)]
)
def test_ranges_without_a_byte(header: str, size: int) -> None:
    with pytest.raises(NotSatisfiable):
        span_of(header, size)


# --- references ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"$blob": A}, {A}),
        ({"$blob": A, "size": 3, "type": "image/png", "name": "x.png"}, {A}),
        ({"deep": [{"er": [{"$blob": A}]}, {"$blob": B}]}, {A, B}),
        ({"$blob": A.upper()}, set()),
        ({"$blob": A[1:]}, set()),
        ({"$blob": A + "a"}, set()),
        ({"$blob": None}, set()),
        ({"$blobs": A}, set()),
        (["$blob", A], set()),
        ({"text": f'"$blob":"{A}"'}, set()),
        ({"text": orjson.dumps({"$blob": A}).decode()}, set()),
        ({"text": f'\\"$blob":"{A}"'}, set()),
        ({f'"$blob":"{A}"': 1}, set()),
        (10**30, set()),
        ({"$blob": A, "n": 10**30}, {A}),
    ],
)
def test_what_a_reference_is(value: Json, found: set[str]) -> None:
    assert refers(value) is bool(found)
    if not isinstance(value, int) and "0000" not in str(value):
        assert references_in(orjson.dumps(value)) == found


class Referring:
    def __init__(self) -> None:
        self.log = MemoryLog(ManualClock())
        self.blobs = MemoryBlobs(self.log)
        self.store = ReferringStore(MemoryEventStore(self.log), self.blobs)

    async def put(self, content: bytes) -> str:
        storing = Blobs(self.blobs, most_bytes=10**9)
        return (await storing.put(TENANT, arriving(content), made_by="key:1", type="a/b", size=len(content))).blob.sha256

    async def append(self, *events: tuple[str, Json], actor: str = "key:1", root_id: UUID = RUN) -> None:
        new = tuple(NewEvent(topic, 1, orjson.dumps(state)) for topic, state in events)
        stream = StreamAppend(uuid7(), root_id, 0, new)
        await self.store.append(one_command(TENANT, uuid7(), [stream], orjson.dumps({"actor": actor}).decode()))


async def test_references_are_noted_for_the_root_of_their_event() -> None:
    referring, other = Referring(), uuid7()
    sha256, unused = await referring.put(b"x"), await referring.put(b"y")
    await referring.append(("run.started", {"input": {"$blob": sha256}}))
    await referring.append(("message.sent", {"body": [{"$blob": sha256}]}), root_id=other)
    assert await referring.blobs.roots(TENANT, sha256) == sorted([RUN, other])
    assert await referring.blobs.roots(TENANT, unused) == []


async def test_an_event_without_a_reference_asks_for_nothing() -> None:
    referring = Referring()
    await referring.append(("run.started", {"input": '"$blob"', "blob": A, "$blob": None}))
    assert referring.blobs.calls == []


async def test_a_reference_to_nothing_is_refused_and_nothing_is_appended() -> None:
    referring = Referring()
    sha256 = await referring.put(b"x")
    with pytest.raises(NoSuchBlob, match=f"there is no blob {A}: put") as one:
        await referring.append(("run.started", {"input": [{"$blob": A}, {"$blob": sha256}]}))
    assert one.value.code == "no-such-blob"
    with pytest.raises(NoSuchBlob, match=rf"there is no blob {A} \(and 1 more\)"):
        await referring.append(("run.started", {"a": {"$blob": B}}), ("run.ended", {"b": {"$blob": A}}))
    assert referring.log.head == 0


async def test_what_follows_inside_does_not_stop_for_a_missing_blob() -> None:
    referring = Referring()
    await referring.append(("agent_run.requested", {"input": {"$blob": A}}), actor="saga:run_lifecycle")
    assert referring.log.head == 1


@pytest.mark.parametrize("topic", ["tool.registered", "agent.registered", "audit.recorded"])
async def test_examples_in_declarations_refer_to_nothing(topic: str) -> None:
    referring = Referring()
    sha256 = await referring.put(b"x")
    await referring.append((topic, {"examples": [{"$blob": A}, {"$blob": sha256}]}))
    assert (referring.log.head, await referring.blobs.roots(TENANT, sha256)) == (1, [])


async def test_a_reference_is_noted_before_the_append_and_stays_when_that_fails() -> None:
    referring = Referring()
    sha256 = await referring.put(b"x")

    class Away(MemoryEventStore):
        async def append(self, request: Any) -> Any:
            raise Unavailable("away")

    referring.store = ReferringStore(Away(referring.log), referring.blobs)
    with pytest.raises(Unavailable):
        await referring.append(("run.started", {"$blob": sha256}))
    assert await referring.blobs.roots(TENANT, sha256) == [RUN]
