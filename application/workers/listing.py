"""Lists for people: the workers that have a session, and how many of them offer an agent or tool."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from uuid import UUID

from application.engine.ports.pages import Page, encode_cursor, malformed_cursor
from application.engine.ports.permits import PermitBook
from application.engine.ports.sessions import ListedSession, WorkerSessions
from application.views.agents import AgentView
from application.views.tools import LimitsInUse, ToolView
from application.views.workers import OfferedDefinition, WorkerView, WorkInHandView
from domain.errors import NotFound


async def list_workers(sessions: WorkerSessions, tenant_id: UUID, *, limit: int, after: str | None) -> Page[WorkerView]:
    """The workers of a tenant, by their ids. `after`: the text of a cursor. Raises Unavailable, and InvalidCommand for the text."""
    found = await sessions.of_tenant(tenant_id, limit=limit + 1, after=None if after is None else _place(after))
    page = found[:limit]
    more = len(found) > limit
    return Page([_view(one) for one in page], encode_cursor(_text(page[-1])) if more else None)


async def work_in_hand(sessions: WorkerSessions, tenant_id: UUID, session_id: UUID, *, limit: int) -> list[WorkInHandView]:
    """What a worker has claimed, by its session. Raises NotFound, Unavailable."""
    found = await sessions.in_hand(tenant_id, session_id, limit=limit)
    if found is None:
        raise NotFound(f"no worker has a session {session_id}")
    return [
        WorkInHandView(
            kind=work.kind, name=work.name, id=work.work_id, run_id=work.root_id, attempt=work.attempt,
            dispatched_at=work.dispatched_at,
        )
        for work in found
    ]  # fmt: skip


async def count_workers(
    sessions: WorkerSessions, tenant_id: UUID, kind: str, definitions: Sequence[AgentView] | Sequence[ToolView]
) -> None:
    """Fills in how many workers offer each of the agents or tools. Raises Unavailable."""
    counts = await sessions.offering(tenant_id, kind, [each.name for each in definitions]) if definitions else {}
    for each in definitions:
        each.workers = counts.get(each.name, 0)


async def limits_in_use(permits: PermitBook, tenant_id: UUID, tool: ToolView) -> LimitsInUse | None:
    """How far the limits of a tool's calls are used. None: it declares none, or no call has met them. Raises Unavailable."""
    policy = tool.policy if isinstance(tool.policy, dict) else {}
    if not (policy.get("max_parallel") or policy.get("rate")):
        return None
    state = await permits.state(tenant_id, tool.name)
    return None if state is None else LimitsInUse(**asdict(state))


def _text(one: ListedSession) -> str:
    return f"{one.session.session_id} {one.session.worker_id}"


def _place(text: str) -> tuple[str, UUID]:
    session_id, _, worker_id = text.partition(" ")
    try:
        return worker_id, UUID(session_id)
    except ValueError:
        raise malformed_cursor() from None


def _view(one: ListedSession) -> WorkerView:
    offered = one.offered
    return WorkerView(
        worker_id=one.session.worker_id, session_id=one.session.session_id, since=one.since, seen_at=one.seen_at,
        release=one.session.release, agents=None if offered is None else _definitions(offered.agents),
        tools=None if offered is None else _definitions(offered.tools), agent_runs=one.agent_runs, calls=one.calls,
    )  # fmt: skip


def _definitions(versions: Mapping[str, str]) -> list[OfferedDefinition]:
    return [OfferedDefinition(name=name, version=version) for name, version in sorted(versions.items())]
