"""Events into rows."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from domain.invocations import InvocationRequested
from domain.kernel import RecordedEvent
from projections.invocations.fold import changes
from projections.kernel import Connection, decoded, in_turns

INSERT = """
INSERT INTO invocation (
    tenant_id, invocation_id, run_id, agent_run_id, key, tool, status, since, attempt, cancel_requested, asked_by,
    cached_from, cache_key
)
SELECT tenant, id, run, agent_run, key, tool, 'requested', at, 0, false, asked_by, cached_from, cache_key
FROM unnest(
    %b::uuid[], %b::uuid[], %b::uuid[], %b::uuid[], %b::text[], %b::text[], %b::timestamptz[], %b::text[], %b::uuid[],
    %b::uuid[]
) AS u (tenant, id, run, agent_run, key, tool, at, asked_by, cached_from, cache_key)
"""
UPDATE = """
UPDATE invocation SET status = coalesce(u.status, invocation.status), since = coalesce(u.since, invocation.since),
    attempt = coalesce(u.attempt, invocation.attempt), cancel_requested = invocation.cancel_requested OR u.cancelled,
    fallback = coalesce(u.fallback, invocation.fallback)
FROM unnest(%b::uuid[], %b::uuid[], %b::text[], %b::timestamptz[], %b::int[], %b::boolean[], %b::text[])
    AS u (tenant, id, status, since, attempt, cancelled, fallback)
WHERE invocation.tenant_id = u.tenant AND invocation.invocation_id = u.id
"""


async def apply(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    """Two statements for a batch: one inserts new calls, the other updates calls that are known by then."""
    new: list[tuple[RecordedEvent, InvocationRequested]] = []
    changed: dict[tuple[UUID, UUID], dict[str, Any]] = {}
    async for recorded in in_turns(batch):
        if recorded.topic == InvocationRequested.TOPIC:
            new.append((recorded, decoded(recorded)))
            continue
        row, change = changed.setdefault((recorded.tenant_id, recorded.stream_id), {}), changes(recorded)
        row |= change | ({"since": recorded.recorded_at} if "status" in change else {})
    if new:
        await connection.execute(
            INSERT,
            (
                [r.tenant_id for r, _ in new], [r.stream_id for r, _ in new], [e.run_id for _, e in new],
                [e.agent_run_id for _, e in new], [e.key for _, e in new], [e.tool for _, e in new],
                [r.recorded_at for r, _ in new], [e.asked_by for _, e in new], [e.cached_from for _, e in new],
                [e.cache_key for _, e in new],
            ),
        )  # fmt: skip
    if changed:
        rows = list(changed.items())
        await connection.execute(
            UPDATE,
            (
                [tenant_id for (tenant_id, _), _ in rows], [stream_id for (_, stream_id), _ in rows],
                [row.get("status") for _, row in rows], [row.get("since") for _, row in rows],
                [row.get("attempt") for _, row in rows], [row.get("cancel_requested", False) for _, row in rows],
                [row.get("fallback") for _, row in rows],
            ),
        )  # fmt: skip
