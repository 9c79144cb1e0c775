"""Results that answer later calls: of tools that say how long a result holds (`ToolPolicy.cache_s`).

The cache is the ledger itself. A call whose result may be used again has a key in the read model of calls, under which the newest
result is found; the result comes from the call's own events. So there is nothing to tidy up, and nothing that could differ from the
log. The read model may be behind: then the tool is called once more, which does no harm, since only results of idempotent tools are
kept.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol
from uuid import UUID

import structlog

from application.engine.commands.loop import CommandLoop
from domain import invocations
from domain.errors import Unavailable
from domain.invocations import CachedResult, Invocation, cache_key
from domain.kernel import Json, same_json
from domain.tools import ToolRegistered

log = structlog.get_logger(__name__)


class CachedCalls(Protocol):
    async def newest(self, tenant_id: UUID, keys: Sequence[UUID], max_age_s: float) -> Mapping[UUID, UUID]:
        """For each key the newest call with a result that is not older than that, if there is one. Raises Unavailable."""
        ...


class AskedAgain(NamedTuple):
    """A call that a result of before may answer."""

    arguments: dict[str, Json]
    on_behalf_of: str | None


class CachedResults:
    def __init__(self, commands: CommandLoop, calls: CachedCalls) -> None:
        self._commands = commands
        self._calls = calls

    async def find(self, tenant_id: UUID, tool: ToolRegistered, asked: Mapping[int, AskedAgain]) -> dict[int, CachedResult]:
        """The results that answer calls of a tool, by the numbers of the calls. A tool without a cache costs nothing."""
        max_age_s = tool.rules.cache_s
        if max_age_s is None or not tool.idempotent or not asked:
            return {}
        keys = {number: cache_key(tool.name, tool.version, *each) for number, each in asked.items()}
        try:
            newest = await self._calls.newest(tenant_id, list(set(keys.values())), max_age_s)
            if newest:
                await self._commands.meet(tenant_id, dict.fromkeys(newest.values(), invocations.DECIDER))
            known = {number: newest[key] for number, key in keys.items() if key in newest}
            found = {number: await self._result(tenant_id, id, tool, asked[number]) for number, id in known.items()}
        except Unavailable as error:  # the tool is called instead
            log.info("cache_not_read", tool=tool.name, reason=error.message)
            return {}
        return {number: result for number, result in found.items() if result is not None}

    async def _result(self, tenant_id: UUID, invocation_id: UUID, tool: ToolRegistered, asked: AskedAgain) -> CachedResult | None:
        """What a call gave, if it is a call of the same by all that it says itself: the key alone is not trusted."""
        call: Invocation = (await self._commands.load(invocations.DECIDER, tenant_id, invocation_id, fresh=False)).state
        if call.status != "succeeded":  # this process does not know of the end
            call = (await self._commands.load(invocations.DECIDER, tenant_id, invocation_id)).state
        first = call.requested
        if first is None or call.status != "succeeded":
            return None
        same = (first.tool, first.tool_version, first.on_behalf_of) == (tool.name, tool.version, asked.on_behalf_of)
        if not same or not same_json(first.arguments, asked.arguments):
            return None
        return CachedResult(invocation_id=invocation_id, result=call.result)
