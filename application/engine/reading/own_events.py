"""What this process has appended itself for some roots: who follows a root from before its first event need not ask the log for it.

Nearly all events of a run are appended by the process that started it. They are kept until the follower leaves, within a bound.
"""

from uuid import UUID

from application.engine.ports.log import AppendRequest, AppendResult
from domain.kernel import RecordedEvent

MAX_BYTES = 16 * 1024 * 1024
"""Of all events that are kept. A root that would go beyond is not followed any more."""
MAX_ROOT_BYTES = 128 * 1024
EVENT_BYTES = 400
"""An event beside its state."""

Key = tuple[int, int]
"""(tenant, root), as numbers: hashing an int costs a tenth of hashing a UUID."""


class FollowedRoot:
    """One root, and the events of it that this process has appended."""

    __slots__ = ("bytes", "events", "followers")

    def __init__(self) -> None:
        self.followers = 0
        self.events: list[RecordedEvent] | None = []
        """None: they were too many."""
        self.bytes = 0


class OwnEvents:
    """Own events of roots that somebody follows. `appended` costs nothing for other roots."""

    def __init__(self, max_bytes: int = MAX_BYTES, max_root_bytes: int = MAX_ROOT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._max_root_bytes = max_root_bytes
        self._roots: dict[Key, FollowedRoot] = {}
        self.bytes = 0
        """What all kept events are taken to need."""

    def following(self, tenant_id: UUID, root_id: UUID) -> "Following":
        """Keeps the root's events that are appended during the block."""
        return Following(self, (tenant_id.int, root_id.int))

    def follow(self, key: Key) -> FollowedRoot:
        root = self._roots.get(key)
        if root is None:
            root = self._roots[key] = FollowedRoot()
        root.followers += 1
        return root

    def leave(self, key: Key, root: FollowedRoot) -> None:
        root.followers -= 1
        if not root.followers and self._roots.get(key) is root:
            del self._roots[key]
            self.bytes -= root.bytes

    def appended(self, request: AppendRequest, result: AppendResult) -> None:
        """The append is durable, and was not recorded before."""
        if not self._roots:
            return
        tenant = request.tenant_id.int
        roots = [self._roots.get((tenant, stream.root_id.int)) for stream in request.streams]
        if not any(roots):
            return
        position = result.last_position - result.event_count
        versions = [stream.expected_version for stream in request.streams]
        commands = iter(request.commands)
        left, metadata = 0, ""
        for place, event, settled in request.events:
            while not left:
                command = next(commands)
                left, metadata = command.event_count, command.metadata
            left -= 1
            position += 1
            versions[place] += 1
            root, stream = roots[place], request.streams[place]
            if root is not None and root.events is not None:
                recorded = RecordedEvent(
                    position, request.tenant_id, stream.stream_id, versions[place], stream.root_id, event.topic,
                    event.schema_version, event.state, metadata, result.recorded_at, settled,
                )  # fmt: skip
                self._keep(root, recorded)

    def _keep(self, root: FollowedRoot, recorded: RecordedEvent) -> None:
        assert root.events is not None
        size = len(recorded.state) + EVENT_BYTES
        if root.bytes + size > self._max_root_bytes or self.bytes + size > self._max_bytes:
            self._drop(root)
            return
        root.events.append(recorded)
        root.bytes += size
        self.bytes += size

    def _drop(self, root: FollowedRoot) -> None:
        self.bytes -= root.bytes
        root.events, root.bytes = None, 0

    def whole(self, tenant_id: UUID, root_id: UUID) -> list[RecordedEvent]:
        """The kept events in the order of the log, if every stream among them is there from its first event on, without a gap.

        Empty: the log must be asked. Whether a stream is missing as a whole, or its last events are, is for the caller to know.
        """
        root = self._roots.get((tenant_id.int, root_id.int))
        if root is None or not root.events:
            return []
        events = sorted(root.events)  # by position, the first field
        versions: dict[int, int] = {}
        for event in events:
            stream = event.stream_id.int
            if event.version != versions.get(stream, 0) + 1:
                return []
            versions[stream] = event.version
        return events

    def forget(self) -> None:
        """Drops all events: the log that had them is gone."""
        for root in self._roots.values():
            self._drop(root)


class Following:
    """A follower of one root for the time of a block. Smaller than a generator, because thousands may wait."""

    __slots__ = ("_key", "_own", "_root")

    def __init__(self, own: OwnEvents, key: Key) -> None:
        self._own = own
        self._key = key

    def __enter__(self) -> None:
        self._root = self._own.follow(self._key)

    def __exit__(self, *_: object) -> None:
        self._own.leave(self._key, self._root)
