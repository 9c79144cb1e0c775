"""The tools of tenants that are data: what each tenant has now, and the definitions of the versions that are called.

A worker that says so in its hello carries out all of them, whoever defines one and whenever. What a tenant has is read from the
read model and the end of the log, once, and heard from the live log afterwards.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from uuid import UUID

import structlog

from application.engine.background import OnDemand
from application.engine.commands.loop import CommandLoop
from application.engine.ports.log import EventFeed
from application.engine.reading.live import LiveFeed
from application.engine.retry import persistently
from application.reads import DataTool, DataToolReads
from domain.errors import Unavailable
from domain.kernel import Json, RecordedEvent
from domain.tools import DATA_KINDS, DECIDER, ToolDefinition, ToolRegistered, ToolRemoved, tool_id_of

log = structlog.get_logger(__name__)

PAGE = 500
BEGUN_S = 5.0
"""Seconds that the reading of the log may take to begin."""
MOST_SERVED = 5_000
"""Tools of a tenant that a session offers, in the order of their names."""
MOST_KEPT = 500
"""Definitions of versions that are kept."""
_TOPICS = (ToolRegistered.TOPIC, ToolRemoved.TOPIC)
_NONE = frozenset({""})
"""No topic. A watch of none is woken when the log is begun anew, and for nothing else."""

Tools = Mapping[str, DataTool]
Told = Callable[[Tools], None]
"""Takes all tools of a tenant that are data, by name. It must not wait."""


class _Tenant:
    def __init__(self) -> None:
        self.tools: dict[str, DataTool] | None = None
        """None: not read yet."""
        self.heard: list[RecordedEvent] | None = None
        """What is heard while the tools are read."""
        self.told: list[Told] = []
        self.unwatch: Callable[[], None] = lambda: None


class ServedTools:
    """What is there to carry out, by tenant. Sessions of one tenant share one look."""

    def __init__(self, reads: DataToolReads, feed: EventFeed, live: LiveFeed, commands: CommandLoop) -> None:
        self._reads = reads
        self._feed = feed
        self._live = live
        self._registry = commands.registry
        self._tenants: dict[UUID, _Tenant] = {}
        self._due: dict[UUID, None] = {}
        self._loading = OnDemand(self._load, "tools-that-are-data")
        self._end_hearing: Callable[[], None] | None = None

    def follow(self, tenant_id: UUID, told: Told) -> Callable[[], None]:
        """Calls `told` with the tools of a tenant: as soon as they are known, and after each change. Returns the function that ends
        this.
        """
        tenant = self._tenants.get(tenant_id)
        if self._end_hearing is None:
            self._end_hearing = self._live.overhear(self._hear)
        if tenant is None:
            tenant = self._tenants[tenant_id] = _Tenant()
            tenant.unwatch = self._live.call(tenant_id, _NONE, lambda _: self._look(tenant_id))
            self._look(tenant_id)
        tenant.told.append(told)
        if tenant.tools is not None:
            told(tenant.tools)
        return partial(self._unfollow, tenant_id, told)

    async def any(self, tenant_id: UUID) -> bool:
        """Whether the tenant has any such tool at this moment. Waits for the end of outages."""
        tools, _ = await persistently(lambda: self._read(tenant_id))
        return bool(tools)

    async def close(self) -> None:
        await self._loading.close()
        if self._end_hearing is not None:
            self._end_hearing()

    def _unfollow(self, tenant_id: UUID, told: Told) -> None:
        tenant = self._tenants.get(tenant_id)
        if tenant is None or told not in tenant.told:
            return
        tenant.told.remove(told)
        if not tenant.told:
            del self._tenants[tenant_id]
            tenant.unwatch()
        if not self._tenants and self._end_hearing is not None:
            self._end_hearing()
            self._end_hearing = None

    # --- the first look -------------------------------------------------------------------------------------------------------

    def _look(self, tenant_id: UUID) -> None:
        self._due[tenant_id] = None
        try:
            self._loading.start()
        except Unavailable:  # the process stops
            log.debug("tools_not_looked_at", tenant_id=str(tenant_id))

    async def _load(self) -> None:
        while self._due:
            tenant_id = next(iter(self._due))
            del self._due[tenant_id]
            if (tenant := self._tenants.get(tenant_id)) is not None:
                try:
                    await self._load_one(tenant_id, tenant)
                except Exception:  # the tools of other tenants are looked at all the same
                    log.exception("tools_not_looked_at", tenant_id=str(tenant_id))

    async def _load_one(self, tenant_id: UUID, tenant: _Tenant) -> None:
        tenant.heard = []
        tools, reached = await persistently(lambda: self._read_heard(tenant_id))
        heard, tenant.heard = tenant.heard, None
        self._apply(tools, (event for event in heard if event.position > reached))
        tenant.tools = tools
        self._tell(tenant)

    async def _read_heard(self, tenant_id: UUID) -> tuple[dict[str, DataTool], int]:
        """As `_read`. What comes later is heard: the log is being read."""
        if not await self._live.begun(BEGUN_S):
            raise Unavailable("the log is not read yet")
        return await self._read(tenant_id)

    async def _read(self, tenant_id: UUID) -> tuple[dict[str, DataTool], int]:
        """The tools by name, and the position up to which the log was looked at. Raises Unavailable."""
        tools: dict[str, DataTool] = {}
        after, position = None, None
        while True:
            page = await self._reads.data(tenant_id, limit=PAGE, after=after)
            position = page.position if position is None else min(position, page.position)
            tools.update((tool.name, tool) for tool in page.value if tool.kind in DATA_KINDS)
            if len(page.value) < PAGE:
                break
            after = page.value[-1].name
        while True:
            events = await self._feed.read_tenant(tenant_id, after=position, limit=PAGE, topics=list(_TOPICS))
            self._apply(tools, events)
            position = events[-1].position if events else position
            if len(events) < PAGE:
                return tools, position

    # --- what is heard --------------------------------------------------------------------------------------------------------

    def _hear(self, events: Iterable[RecordedEvent]) -> None:
        changed: dict[UUID, _Tenant] = {}
        for event in events:
            if event.topic in _TOPICS and (tenant := self._tenants.get(event.tenant_id)) is not None:
                if tenant.heard is not None:
                    tenant.heard.append(event)
                elif tenant.tools is not None and self._apply(tenant.tools, [event]):
                    changed[event.tenant_id] = tenant
        for tenant in changed.values():
            self._tell(tenant)

    def _apply(self, tools: dict[str, DataTool], events: Iterable[RecordedEvent]) -> bool:
        """Whether anything has changed."""
        changed = False
        for recorded in events:
            try:
                event = self._registry.decode(recorded.topic, recorded.schema_version, recorded.state)
            except Exception:  # the reader of the log must go on
                log.exception("event_of_a_tool_not_read", position=recorded.position)
                continue
            assert isinstance(event, ToolRegistered | ToolRemoved)
            before = tools.pop(event.name, None)
            if isinstance(event, ToolRegistered) and event.kind in DATA_KINDS:
                tools[event.name] = DataTool(event.name, event.version, event.kind)
            changed = changed or before != tools.get(event.name)
        return changed

    def _tell(self, tenant: _Tenant) -> None:
        assert tenant.tools is not None
        for told in tuple(tenant.told):
            told(tenant.tools)


def served_of(tools: Tools, kinds: frozenset[str]) -> dict[str, str]:
    """The names and versions of the tools of some kinds, as far as one session offers them."""
    names = sorted(name for name, tool in tools.items() if tool.kind in kinds)
    if len(names) > MOST_SERVED:
        log.warning("tools_not_served", served=MOST_SERVED, left_out=len(names) - MOST_SERVED, first_left_out=names[MOST_SERVED])
    return {name: tools[name].version for name in names[:MOST_SERVED]}


class VersionDefinitions:
    """What a worker is told of the version of a tool that is called. Versions of such tools never change, so they are kept."""

    def __init__(self, commands: CommandLoop) -> None:
        self._commands = commands
        self._kept: dict[tuple[UUID, str, str], Json] = {}

    def known(self, tenant_id: UUID, tool: str, version: str) -> Json:
        """The definition, if nothing has to be loaded for it. None: something has to be. `version`: empty for the current one."""
        if (kept := self._kept.get((tenant_id, tool, version))) is not None:
            return kept
        loaded = self._commands.known(DECIDER, tenant_id, tool_id_of(tenant_id, tool))
        return None if loaded is None else self._of_current(tenant_id, loaded.state, version)

    async def load(self, tenant_id: UUID, tool: str, version: str) -> Json:
        """The definition; that of the kind `unknown` if the log has no such version. Raises Unavailable."""
        tool_id = tool_id_of(tenant_id, tool)
        loaded = await self._commands.load(DECIDER, tenant_id, tool_id)
        if (found := self._of_current(tenant_id, loaded.state, version)) is not None:
            return found
        history = await self._commands.history(tenant_id, tool_id)
        for recorded in reversed(history):  # an earlier version, or of a tool that was removed
            if recorded.topic == ToolRegistered.TOPIC:
                declared = self._commands.registry.decode(recorded.topic, recorded.schema_version, recorded.state)
                assert isinstance(declared, ToolRegistered)
                if declared.version == version:
                    return self._keep(tenant_id, declared)
        return {"kind": "unknown", "version": version}

    def _of_current(self, tenant_id: UUID, tool: ToolDefinition, version: str) -> Json:
        current = tool.current
        return None if current is None or version not in ("", current.version) else self._keep(tenant_id, current)

    def _keep(self, tenant_id: UUID, declared: ToolRegistered) -> Json:
        said = definition_of(declared)
        if declared.kind in DATA_KINDS:
            if len(self._kept) >= MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[tenant_id, declared.name, declared.version] = said
        return said


def definition_of(declared: ToolRegistered) -> dict[str, Json]:
    """What a worker needs to carry out a call of a version."""
    said: dict[str, Json] = {"kind": declared.kind, "version": declared.version}
    if declared.kind == "http":
        return said | {"request": declared.request, "parameters": declared.parameters}
    return said | {"builtin": declared.builtin} if declared.kind == "builtin" else said
