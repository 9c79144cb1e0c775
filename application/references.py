"""References to blobs in the events of the log: which roots refer to which blobs is noted before an event is appended."""

import re
from collections.abc import Collection, Iterable
from uuid import UUID

import orjson
import structlog
from pydantic_core import to_json

from application.engine.ports.blobs import BlobStore
from application.engine.ports.log import AppendRequest, AppendResult, EventStore
from domain.errors import Forbidden, InvalidCommand
from domain.kernel import Json

log = structlog.get_logger(__name__)

MARK = b'"$blob":"'
_REFERENCE = re.compile(rb'"\$blob":"([0-9a-f]{64})"')
"""How a reference begins in compact JSON. Inside a text the quotes would have backslashes in front."""
NOT_REFERRING = ("tool.", "agent.", "audit.")
"""Beginnings of the topics of events in which a reference is only an example, or the words of a person."""
OF_KEYS = "key:"
"""How the names of those begin who ask from outside."""


class NoSuchBlob(InvalidCommand):
    """A value refers to a blob that is not there."""

    code = "no-such-blob"

    def __init__(self, sha256s: Collection[str]) -> None:
        names = sorted(sha256s)
        more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
        super().__init__(f"there is no blob {names[0]}{more}: put its content there before something refers to it")


class ReferencesRefused(Forbidden):
    """A key that is narrowed to projects refers to a blob, which is of the whole tenant."""

    def __init__(self) -> None:
        super().__init__("a key that is narrowed to projects refers to no blobs: who knows a hash would get the content by it")


def references_in(text: bytes) -> set[str]:
    """The hashes of the blobs to which compact JSON text refers."""
    return {found.decode() for found in _REFERENCE.findall(text)} if MARK in text else set()


def refers(value: Json) -> bool:
    """Whether JSON data has a reference to a blob somewhere inside."""
    try:
        text = orjson.dumps(value)
    except TypeError:  # an integer of more than 64 bits
        text = to_json(value)
    return bool(references_in(text))


class ReferringStore:
    """Implements the port `EventStore` over another store: notes to which blobs events refer, before they are appended.

    Each event goes through here, whoever brought it about. So no entrance can forget it, and an append without a blob costs a
    search for nine bytes.
    """

    def __init__(self, store: EventStore, blobs: BlobStore) -> None:
        self._store = store
        self._blobs = blobs
        self.read_stream = store.read_stream
        self.read_streams = store.read_streams
        self.read_page = store.read_page
        self.find_command = store.find_command
        self.read_append = store.read_append

    async def append(self, request: AppendRequest) -> AppendResult:
        """Raises NoSuchBlob, and what the port says."""
        for placed in request.events:
            if MARK in placed.event.state:
                await self._note(request)
                break
        return await self._store.append(request)

    async def _note(self, request: AppendRequest) -> None:
        by_root: dict[UUID, set[str]] = {}
        for placed in request.events:
            if not placed.event.topic.startswith(NOT_REFERRING) and (found := references_in(placed.event.state)):
                by_root.setdefault(request.streams[placed.stream].root_id, set()).update(found)
        missing: set[str] = set()
        for root_id, sha256s in by_root.items():
            missing |= sha256s - set(await self._blobs.refer(request.tenant_id, sha256s, [root_id]))
        if not missing:
            return
        if _asked_from_outside(command.metadata for command in request.commands):
            raise NoSuchBlob(missing)
        log.warning("events_refer_to_missing_blobs", tenant_id=str(request.tenant_id), blobs=sorted(missing)[:10])


def _asked_from_outside(metadata: Iterable[str]) -> bool:
    """Whether a command is of a client or a worker. What follows inside must not stop for what was accepted before."""
    return any(str(orjson.loads(text).get("actor", "")).startswith(OF_KEYS) for text in metadata)
