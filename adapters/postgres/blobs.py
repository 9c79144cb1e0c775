"""Blobs in PostgreSQL (`BlobStore`): chunks in rows of their own, each written and read by one short statement.

No transaction and no connection is held while a peer sends or reads. The chunks of an upload do not wait for the disk: the
statement that ends the upload does, and the disk then has what was written before.
"""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from adapters.postgres.database import Database
from application.engine.ports.blobs import SHOWN_ROOTS, Blob, BlobInUse, BlobsFull, BlobUsage, UploadOver
from application.engine.ports.pages import Page, encode_cursor

SWEPT_AT_ONCE = 50

FIND = """
SELECT sha256, size, type, made_at, made_by, content_id, chunk_bytes FROM blob AS b
WHERE tenant_id = %(tenant)s AND sha256 = %(sha256)s AND (%(root)s::uuid IS NULL OR EXISTS (
    SELECT FROM blob_reference AS r WHERE r.tenant_id = b.tenant_id AND r.sha256 = b.sha256 AND r.root_id = %(root)s
))
"""
PAGE = """
SELECT sha256, size, type, made_at, made_by, content_id, chunk_bytes, number FROM blob
WHERE tenant_id = %(tenant)s AND (%(before)s::bigint IS NULL OR number < %(before)s) ORDER BY number DESC LIMIT %(limit)s
"""
USAGE = "SELECT blobs, bytes, reserved FROM blob_usage WHERE tenant_id = %s"
ROOTS = "SELECT root_id FROM blob_reference WHERE tenant_id = %s AND sha256 = %s ORDER BY root_id LIMIT %s"
BEGIN = """
WITH used AS (
    INSERT INTO blob_usage AS u (tenant_id, blobs, bytes, reserved)
    SELECT %(tenant)s, 0, 0, %(reserved)s WHERE %(reserved)s <= %(most)s
    ON CONFLICT (tenant_id) DO UPDATE SET reserved = u.reserved + EXCLUDED.reserved
        WHERE u.bytes + u.reserved + EXCLUDED.reserved <= %(most)s
    RETURNING tenant_id
)
INSERT INTO blob_upload (tenant_id, content_id, reserved, began_at) SELECT tenant_id, %(content)s, %(reserved)s, now() FROM used
"""
# The lock keeps the upkeep from removing the upload meanwhile, which would miss this chunk.
WRITE = """
WITH upload AS MATERIALIZED (
    SELECT tenant_id, content_id FROM blob_upload WHERE tenant_id = %(tenant)s AND content_id = %(content)s FOR KEY SHARE
)
INSERT INTO blob_chunk (tenant_id, content_id, number, data)
SELECT tenant_id, content_id, %(number)s, %(data)b FROM upload
RETURNING set_config('synchronous_commit', 'off', true)
"""
# A crash may have taken chunks whose commits did not wait for the disk: whoever finishes must find all of them.
FINISH = """
WITH upload AS (
    DELETE FROM blob_upload WHERE tenant_id = %(tenant)s AND content_id = %(content)s AND %(size)s = (
        SELECT coalesce(sum(octet_length(data)), 0) FROM blob_chunk WHERE tenant_id = %(tenant)s AND content_id = %(content)s
    ) RETURNING reserved
), new AS (
    INSERT INTO blob (tenant_id, sha256, content_id, size, chunk_bytes, type, made_at, made_by)
    SELECT %(tenant)s, %(sha256)s, %(content)s, %(size)s, %(chunk_bytes)s, %(type)s, now(), %(made_by)s FROM upload
    ON CONFLICT (tenant_id, sha256) DO NOTHING
    RETURNING size
), superfluous AS (
    DELETE FROM blob_chunk WHERE tenant_id = %(tenant)s AND content_id = %(content)s
        AND EXISTS (SELECT FROM upload) AND NOT EXISTS (SELECT FROM new)
), used AS (
    UPDATE blob_usage SET reserved = blob_usage.reserved - upload.reserved,
        bytes = bytes + coalesce((SELECT size FROM new), 0), blobs = blobs + (SELECT count(*) FROM new)
    FROM upload WHERE tenant_id = %(tenant)s
)
SELECT (SELECT count(*) FROM upload), (SELECT count(*) FROM new)
"""
ABANDON = """
WITH upload AS (
    DELETE FROM blob_upload WHERE tenant_id = %(tenant)s AND content_id = %(content)s RETURNING reserved
), gone AS (
    DELETE FROM blob_chunk WHERE tenant_id = %(tenant)s AND content_id = %(content)s AND EXISTS (SELECT FROM upload)
)
UPDATE blob_usage SET reserved = blob_usage.reserved - upload.reserved FROM upload WHERE tenant_id = %(tenant)s
"""
READ = "SELECT data FROM blob_chunk WHERE tenant_id = %s AND content_id = %s AND number = %s"
# The lock on the blob keeps it from being removed between this look and the row of the reference. The append that follows waits
# for the disk, and the disk then has these rows.
REFER = """
WITH there AS MATERIALIZED (
    SELECT sha256 FROM blob WHERE tenant_id = %(tenant)s AND sha256 = ANY (%(sha256s)s) ORDER BY sha256 FOR KEY SHARE
), noted AS (
    INSERT INTO blob_reference (tenant_id, sha256, root_id, noted_at)
    SELECT %(tenant)s, sha256, root_id, now() FROM there CROSS JOIN unnest(%(roots)s::uuid[]) AS root_id ORDER BY sha256, root_id
    ON CONFLICT DO NOTHING
)
SELECT sha256, set_config('synchronous_commit', 'off', true) FROM there
"""
# Three statements: the second one must see what was committed while the first one waited for the lock.
LOCK = "SELECT content_id, size FROM blob WHERE tenant_id = %s AND sha256 = %s FOR UPDATE"
REMOVE = """
WITH gone AS (
    DELETE FROM blob WHERE tenant_id = %(tenant)s AND sha256 = %(sha256)s RETURNING content_id, size
), chunks AS (
    DELETE FROM blob_chunk USING gone WHERE blob_chunk.tenant_id = %(tenant)s AND blob_chunk.content_id = gone.content_id
)
UPDATE blob_usage SET blobs = blobs - 1, bytes = bytes - gone.size FROM gone WHERE tenant_id = %(tenant)s
"""
LEFT_BEHIND = """
SELECT tenant_id, content_id FROM blob_upload WHERE began_at < now() - make_interval(secs => %s) ORDER BY began_at LIMIT %s
"""


class PostgresBlobs:
    """Implements the port `BlobStore`."""

    def __init__(self, database: Database, *, reads: Database | None = None) -> None:
        """`reads`: for what only reads, if this is another database."""
        self._database = database
        self._reads = database if reads is None else reads

    async def find(self, tenant_id: UUID, sha256: str, *, root_id: UUID | None = None) -> Blob | None:
        wanted = {"tenant": tenant_id, "sha256": bytes.fromhex(sha256), "root": root_id}
        async with self._reads.connection(tenant_id) as connection:
            row = await (await connection.execute(FIND, wanted)).fetchone()
        return None if row is None else _blob(row)

    async def list(self, tenant_id: UUID, *, limit: int, before: int | None) -> Page[Blob]:
        wanted = {"tenant": tenant_id, "limit": limit + 1, "before": before}
        async with self._reads.connection(tenant_id) as connection:
            rows = await (await connection.execute(PAGE, wanted)).fetchall()
        more = encode_cursor(str(rows[limit - 1][-1])) if len(rows) > limit else None
        return Page([_blob(row) for row in rows[:limit]], more)

    async def usage(self, tenant_id: UUID) -> BlobUsage:
        async with self._reads.connection(tenant_id) as connection:
            row = await (await connection.execute(USAGE, [tenant_id])).fetchone()
        return BlobUsage() if row is None else BlobUsage(*row)

    async def roots(self, tenant_id: UUID, sha256: str) -> Sequence[UUID]:
        async with self._reads.connection(tenant_id) as connection:
            rows = await (await connection.execute(ROOTS, [tenant_id, bytes.fromhex(sha256), SHOWN_ROOTS])).fetchall()
        return [root_id for (root_id,) in rows]

    async def begin(self, tenant_id: UUID, content_id: UUID, *, reserved: int, most: int) -> None:
        wanted = {"tenant": tenant_id, "content": content_id, "reserved": reserved, "most": most}
        async with self._database.connection() as connection:
            if not (await connection.execute(BEGIN, wanted)).rowcount:
                raise BlobsFull(reserved, most)

    async def write(self, tenant_id: UUID, content_id: UUID, number: int, data: bytes) -> None:
        wanted = {"tenant": tenant_id, "content": content_id, "number": number, "data": data}
        async with self._database.connection() as connection:
            if not (await connection.execute(WRITE, wanted)).rowcount:
                raise _over()

    async def finish(self, tenant_id: UUID, blob: Blob) -> bool:
        wanted = {
            "tenant": tenant_id, "content": blob.content_id, "sha256": bytes.fromhex(blob.sha256), "size": blob.size,
            "chunk_bytes": blob.chunk_bytes, "type": blob.type, "made_by": blob.made_by,
        }  # fmt: skip
        async with self._database.connection() as connection:
            row = await (await connection.execute(FINISH, wanted)).fetchone()
        if row is None or not row[0]:
            raise _over()
        return bool(row[1])

    async def abandon(self, tenant_id: UUID, content_id: UUID) -> None:
        async with self._database.connection() as connection:
            await connection.execute(ABANDON, {"tenant": tenant_id, "content": content_id})

    async def read(self, tenant_id: UUID, content_id: UUID, number: int) -> bytes | None:
        async with self._reads.connection(tenant_id) as connection:
            row = await (await connection.execute(READ, [tenant_id, content_id, number], binary=True)).fetchone()
        return None if row is None else bytes(row[0])

    async def refer(self, tenant_id: UUID, sha256s: Collection[str], roots: Collection[UUID]) -> Collection[str]:
        wanted = {"tenant": tenant_id, "sha256s": [bytes.fromhex(one) for one in sha256s], "roots": list(roots)}
        async with self._database.connection() as connection:
            rows = await (await connection.execute(REFER, wanted)).fetchall()
        return {bytes(sha256).hex() for sha256, _ in rows}

    async def remove(self, tenant_id: UUID, sha256: str) -> bool:
        hashed = bytes.fromhex(sha256)
        async with self._database.transaction() as connection:
            if await (await connection.execute(LOCK, [tenant_id, hashed])).fetchone() is None:
                return False
            roots = await (await connection.execute(ROOTS, [tenant_id, hashed, SHOWN_ROOTS])).fetchall()
            if roots:
                raise BlobInUse(sha256, [root_id for (root_id,) in roots])
            await connection.execute(REMOVE, {"tenant": tenant_id, "sha256": hashed})
        return True

    async def sweep(self, *, older_than_s: float) -> int:
        swept = 0
        while True:
            async with self._database.connection() as connection:
                rows = await (await connection.execute(LEFT_BEHIND, [older_than_s, SWEPT_AT_ONCE])).fetchall()
            for tenant_id, content_id in rows:
                await self.abandon(tenant_id, content_id)
            swept += len(rows)
            if len(rows) < SWEPT_AT_ONCE:
                return swept


def _over() -> UploadOver:
    return UploadOver("the upload took too long, or a part of it was lost: begin it again")


def _blob(row: tuple[Any, ...]) -> Blob:
    sha256, size, kind, made_at, made_by, content_id, chunk_bytes = row[:7]
    return Blob(bytes(sha256).hex(), size, kind, made_at, made_by, content_id, chunk_bytes)
