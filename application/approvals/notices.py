"""What a notice says: its placeholders are filled when a worker gets the call, from the approval as it is then.

So the call, as the log and lists have it, holds the policy's own words, and neither arguments of others nor a link.
"""

import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

from application.approvals.asked import agent_of, arguments_now, reason_of, title_of
from application.approvals.links import ApprovalLinks, Link, expiry_of, fingerprint_of
from application.engine.commands.loop import CommandLoop
from domain import approvals, tenants, tools
from domain.approvals import Approval, ApprovalRequested
from domain.errors import WorkOver
from domain.invocations import Invocation
from domain.kernel import Json, timestamp
from domain.tenants import Tenant
from domain.tools import ToolDefinition, tool_id_of

MOST_SHOWN = 10_000
"""Characters of the arguments that a notice shows."""
NO_LINK = "(no link: the server does not know its TIDELOG_PUBLIC_URL)"
_NOT_PLAIN = {
    ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f"
}
"""Signs by which a text of others could be taken for markup of a chat, or turn its own order around."""


class Notices:
    def __init__(self, commands: CommandLoop, links: ApprovalLinks) -> None:
        self._commands = commands
        self._links = links

    async def arguments_of(self, tenant_id: UUID, call: Invocation) -> dict[str, Json]:
        """The arguments with which a worker calls the tool of a notice.

        Raises WorkOver: nobody needs to be told any more, or the tool is not built in any more. Unavailable.
        """
        requested = call.requested
        assert requested is not None
        tool: ToolDefinition = (await self._commands.load(tools.DECIDER, tenant_id, tool_id_of(tenant_id, requested.tool))).state
        if tool.current is None or tool.current.kind != "builtin":
            raise WorkOver(f"the tool '{requested.tool}' is not built in any more")
        approval_id, number = requested.agent_run_id, int(requested.key)
        approval: Approval = (await self._commands.load(approvals.DECIDER, tenant_id, approval_id)).state
        asked = approval.requested
        if asked is None or approval.status != "open":
            raise WorkOver("nobody needs to be told any more")
        notice = asked.demand.notices[number]
        values: dict[str, Json] = {"person": "", "address": notice.address or "", "link": ""}
        deadline = await self._deadline(tenant_id, approval_id, asked)
        if notice.key is not None:
            key_id, label = await self._person(tenant_id, notice.key)
            values["person"] = _one_line(label)
            values["link"] = NO_LINK
            if self._links.public_url is not None:
                expires_at = expiry_of(datetime.now(UTC), deadline)
                link = Link(tenant_id, approval_id, key_id, expires_at, fingerprint_of(approval_id, approval))
                values["link"] = await self._links.make(link)
        values |= await self._said(tenant_id, approval_id, approval, asked, deadline)
        given = requested.arguments.get("values")
        return {**requested.arguments, "values": {**(given if isinstance(given, dict) else {}), **values}}

    async def _deadline(self, tenant_id: UUID, approval_id: UUID, asked: ApprovalRequested) -> datetime | None:
        if asked.demand.deadline_s is None:
            return None
        [first] = await self._commands.history(tenant_id, approval_id, limit=1)
        return first.recorded_at + timedelta(seconds=asked.demand.deadline_s)

    async def _person(self, tenant_id: UUID, key_id: UUID) -> tuple[UUID, str]:
        """The key of a person, or the one that has taken its place."""
        tenant: Tenant = (await self._commands.load(tenants.DECIDER, tenant_id, tenant_id)).state
        seen: set[UUID] = set()
        while (key := tenant.keys.get(key_id)) is not None and key.rotated_to is not None and key_id not in seen:
            seen.add(key_id)
            key_id = key.rotated_to
        if key is None:
            raise WorkOver("the key of the person was revoked")
        return key_id, key.label

    async def _said(
        self, tenant_id: UUID, approval_id: UUID, approval: Approval, asked: ApprovalRequested, deadline: datetime | None
    ) -> dict[str, Json]:
        shown = await arguments_now(self._commands, tenant_id, approval)
        demand = asked.demand
        return {
            "title": _one_line(title_of(asked)),
            "tool": asked.tool,
            "arguments": _plain(json.dumps(shown, ensure_ascii=False, indent=2)),
            "why": _plain("; ".join(reason_of(because) for because in demand.because)) or "the agent asks",
            "agent": _one_line(await agent_of(self._commands, tenant_id, asked)),
            "run_id": str(asked.run_id),
            "approval_id": str(approval_id),
            "asked_for": _one_line(asked.on_behalf_of or "nobody"),
            "deadline": "no deadline" if deadline is None else timestamp(deadline),
            "default": demand.default,
        }


def _one_line(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text.translate(_NOT_PLAIN))[:200]


def _plain(text: str) -> str:
    plain = text.translate(_NOT_PLAIN)
    return plain if len(plain) <= MOST_SHOWN else f"{plain[:MOST_SHOWN]} …"
