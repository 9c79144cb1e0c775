"""An append while it is being decided: streams with their states after the events so far, commands, events. Nothing here waits.

What was added can be taken back to any earlier mark: states are never changed in place, so a stream's fields are all there is to
restore.
"""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple
from uuid import UUID

from application.engine.commands.cache import Loaded
from application.engine.commands.handing import TakenWork
from application.engine.commands.part import Part
from application.engine.commands.request import CommandRequest
from application.engine.ports.log import AppendCommand, AppendRequest, NewEvent, Placed, StreamHead
from domain.kernel import Decider, Event


class OpenStream:
    """One stream of a draft: as it was loaded, and as it is after the events of the draft."""

    decider: Decider[Any] | None = None
    """The rules of the stream, once the draft has events for it."""
    last = -1
    """Place of the stream's last event among the events of the draft; -1: the draft has none."""
    used = False
    """Something was decided on the stream: its version is a condition of the append."""
    index = 0
    """Place among the streams of the append."""

    def __init__(self, stream_id: UUID, base: Loaded, fresh: bool) -> None:
        self.stream_id = stream_id
        self.base = base
        self.fresh = fresh
        """The stream was read for this draft. If not, the log may hold newer events than this process knows."""
        self.state: Any = base.state
        self.version = base.version
        self.size = base.size
        self.slice = base.slice
        self.root_id = base.root_id

    @property
    def begins_root(self) -> bool:
        """Whether the stream is its own root, and its first event is in the draft: nobody else can be deciding on it."""
        return not self.base.version and self.version > 0 and self.root_id == self.stream_id

    def kept(self) -> tuple[Any, ...]:
        return self.state, self.version, self.size, self.slice, self.root_id, self.decider, self.last, self.used

    def restore(self, kept: tuple[Any, ...]) -> None:
        self.state, self.version, self.size, self.slice, self.root_id, self.decider, self.last, self.used = kept

    def after(self, position_of_first: int) -> Loaded:
        """The stream once the draft is in the log."""
        return Loaded(self.state, self.version, position_of_first + self.last, self.size, self.slice, self.root_id)


class Drafted(NamedTuple):
    """An event of a draft."""

    stream: OpenStream
    version: int
    event: Event
    encoded: NewEvent


class Decided(NamedTuple):
    """Commands of one request and one command id, and the events of the draft that are theirs."""

    request: CommandRequest
    parts: Sequence[Part]
    first: int
    number: int
    """Of its events."""
    on_behalf_of: str | None = None
    """For whom the commands are, for the metadata of the events."""


Mark = tuple[int, int, int, int]
"""How much a draft held at one moment: changes of streams, events, requests, bytes."""
NOTHING: Mark = (0, 0, 0, 0)


class Draft:
    refresh: AbstractSet[UUID] = frozenset()
    """Streams that must be read before something is decided on them."""
    size = 0
    """Bytes of all events."""

    def __init__(self, tenant_id: UUID) -> None:
        self.tenant_id = tenant_id
        self.streams: dict[UUID, OpenStream] = {}
        self.events: list[Drafted] = []
        self.decided: list[Decided] = []
        self.settled: dict[int, int] = {}
        """Place of an event → mask of the sagas whose whole answer is in the draft."""
        self._taken: list[tuple[int, TakenWork]] = []
        """Work that is claimed in the draft, with the place of the claim among `decided`."""
        self._changes: list[tuple[OpenStream, tuple[Any, ...]]] = []

    def mark(self) -> Mark:
        return (len(self._changes), len(self.events), len(self.decided), self.size) if self.decided else NOTHING

    def undo(self, mark: Mark) -> None:
        """Takes everything back that was added since."""
        changes, events, decided, self.size = mark
        while len(self._changes) > changes:
            stream, kept = self._changes.pop()
            stream.restore(kept)
        del self.events[events:], self.decided[decided:]
        if self.settled:
            self.settled = {place: mask for place, mask in self.settled.items() if place < events}
        while self._taken and self._taken[-1][0] >= decided:
            self._taken.pop()[1].dropped()

    def takes(self, work: TakenWork) -> None:
        """The last commands that were decided claim this work."""
        self._taken.append((len(self.decided) - 1, work))

    def untie(self) -> Sequence[TakenWork]:
        """The work that is claimed in the draft, for who tells its takers what became of it. The draft forgets the work."""
        found, self._taken = [work for _, work in self._taken], []
        return found

    def add(self, stream: OpenStream, part: Part, state: Any, root_id: UUID, encoded: Sequence[NewEvent]) -> None:
        """Puts the events of a part in. `state`: the stream's state after them."""
        self._changes.append((stream, stream.kept()))
        version, size = stream.version, 0
        for event, new in zip(part.events, encoded, strict=True):
            version += 1
            self.events.append(Drafted(stream, version, event, new))
            size += len(new.state)
        self.size += size
        stream.decider = decider = part.route.decider
        stream.state, stream.root_id, stream.slice, stream.version = state, root_id, decider.slice, version
        stream.size += size
        stream.last, stream.used = len(self.events) - 1, True
        part.version, part.position = version, stream.base.position

    def rely_on(self, stream: OpenStream) -> None:
        """Makes the stream's version a condition of the append."""
        if not stream.used:
            self._changes.append((stream, stream.kept()))
            stream.used = True

    def reopen(self, stream_ids: Iterable[UUID]) -> bool:
        """Makes the draft read those of the streams again that it has not read itself. False: it has read all of them."""
        doubtful = {i for i in stream_ids if i in self.streams and not self.streams[i].fresh}
        for stream_id in doubtful:
            del self.streams[stream_id]
        self.refresh = {*self.refresh, *doubtful}
        return bool(doubtful)

    def uses(self, stream_ids: Iterable[UUID]) -> bool:
        """Whether something in the draft was decided on one of these streams."""
        return any(i in self.streams and self.streams[i].used for i in stream_ids)

    def append_request(self) -> AppendRequest:
        heads: list[StreamHead] = []
        for stream in self.streams.values():
            if stream.used:
                stream.index = len(heads)
                heads.append(StreamHead(stream.stream_id, stream.root_id or stream.stream_id, stream.base.version))
        settled = self.settled.get
        commands = [
            AppendCommand(request.command_id, request.metadata(on_behalf_of), count, request.content)
            for request, _, _, count, on_behalf_of in self.decided
        ]
        events = [Placed(stream.index, encoded, settled(i, 0)) for i, (stream, _, _, encoded) in enumerate(self.events)]
        return AppendRequest(self.tenant_id, tuple(commands), tuple(heads), tuple(events))
