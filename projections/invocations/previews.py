"""The beginning of the arguments of calls that wait for a person, so that the person sees what a call is about.

The rows do not have the arguments: few calls ever wait. They are read from the events of the calls on the page, without what lies
behind their beginning, however large they are.
"""

import json
from collections.abc import Sequence
from uuid import UUID

from application.views.invocations import InvocationSummary
from projections.kernel import Connection

LENGTH = 200
"""Characters of a preview."""
BEGINS = b',"arguments":'
"""A text inside the event cannot hold these bytes, because its quotation marks are escaped."""
READ_BYTES = 3_000
"""Of an event. What stands before the arguments takes less than half of it."""

HEADS = f"""
SELECT originator_id, substr(state, 1, {READ_BYTES}) FROM event
WHERE originator_id = ANY (%(calls)s) AND originator_version = 1 AND tenant_id = %(tenant)s
"""


async def put_previews(connection: Connection, tenant_id: UUID, calls: Sequence[InvocationSummary]) -> None:
    """Fills in the previews of the calls that are ambiguous or held. Without any, nothing is asked for."""
    waiting = {call.invocation_id: call for call in calls if call.status in ("ambiguous", "held")}
    if not waiting:
        return
    rows = await (await connection.execute(HEADS, {"calls": list(waiting), "tenant": tenant_id})).fetchall()
    for invocation_id, head in rows:
        waiting[invocation_id].arguments_preview = preview_of(bytes(head))


def preview_of(head: bytes) -> str | None:
    """The preview from the beginning of the event. None: the arguments begin behind it."""
    _, found, rest = head.partition(BEGINS)
    if not found:
        return None
    text = rest.decode(errors="ignore")
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except ValueError:  # they go on behind what was read
        return f"{text[: LENGTH - 1]}…"
    return text[:end] if end <= LENGTH else f"{text[: LENGTH - 1]}…"
