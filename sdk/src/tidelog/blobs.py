"""Blobs: contents that are too large for the log, such as files. The log has a reference; the content is read and put in pieces."""

import asyncio
import hashlib
import mimetypes
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from contextvars import ContextVar
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from uuid import UUID

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    JsonValue,
    PrivateAttr,
    ValidationError,
    model_serializer,
)  # fmt: skip
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from tidelog.audit import reason_header
from tidelog.errors import BlobError, ConflictError, TidelogAPIError, TidelogConnectionError, TransientError
from tidelog.retries import NO_RETRY, RetryPolicy
from tidelog.transport import Transport, json_of, pieces_of_answer

if TYPE_CHECKING:
    from tidelog.journal import Journal, Recorder
    from tidelog.requests import Requests

MAX_BLOB_BYTES = 64 * 1024 * 1024
PIECE_BYTES = 256 * 1024
UNKNOWN_TYPE = "application/octet-stream"
IDLE_S = 60.0
"""Seconds without a byte after which a transfer is given up."""

T = TypeVar("T")

Data = bytes | bytearray | memoryview | PathLike[str] | AsyncIterable[bytes]
"""A content: bytes, the path of a file, or pieces as they come. A `str` is neither: give `Path(…)` or `text.encode()`."""


class BlobAccess(Protocol):
    """Where contents are. `loop`: the loop on which it is used; None: any."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None: ...

    async def put(self, data: Data, type: str) -> tuple[str, int]:
        """Hash and size of the content. Raises BlobError, TransientError, TidelogConnectionError."""
        ...

    def stream(self, sha256: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]: ...


class Blob(BaseModel):
    """A reference to a content. As JSON: `{"$blob": "<sha256>", "size": 3, "type": "image/png", "name": "x.png"}`.

    Such an object may stand wherever JSON may: in the input of a run, in arguments and results, messages and shared values. As the
    type of a tool's parameter it is checked, and has the methods.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    sha256: str = Field(alias="$blob", pattern="^[0-9a-f]{64}$")
    size: int | None = Field(default=None, ge=0)
    type: str = UNKNOWN_TYPE
    name: str | None = None
    _access: BlobAccess | None = PrivateAttr(default=None)

    @model_serializer
    def reference(self) -> dict[str, Any]:
        """The reference as JSON data."""
        more = {"size": self.size, "type": self.type, "name": self.name}
        return {"$blob": self.sha256, **{name: value for name, value in more.items() if value is not None}}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {
            "type": "object",
            "title": "Blob",
            "description": "A reference to a file: the SHA-256 of a content that was put to /v1/blobs",
            "format": "tidelog-blob",
            "properties": {
                "$blob": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
                "size": {"type": "integer", "minimum": 0},
                "type": {"type": "string"},
                "name": {"type": "string"},
            },
            "required": ["$blob"],
        }

    def at(self, access: BlobAccess | None) -> "Blob":
        """The same reference, whose content is read there."""
        bound = self.model_copy()
        bound._access = access
        return bound

    def open(self) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The content in pieces: `async with blob.open() as pieces: async for piece in pieces: …`.

        The hash is checked: at the end, BlobError is raised for a content that is not the one of the reference.
        """
        return self._opened()

    @asynccontextmanager
    async def _opened(self) -> AsyncGenerator[AsyncIterator[bytes], None]:
        async with self._there().stream(self.sha256) as pieces:
            yield _checked(pieces, self.sha256)

    async def read(self) -> bytes:
        """The whole content. Raises BlobError if it is not there; TransientError, TidelogConnectionError."""
        async with self.open() as pieces:
            return b"".join([piece async for piece in pieces])

    async def save(self, path: PathLike[str] | str) -> None:
        """Writes the content to a file, in pieces. The file has the name only when all of it is there."""
        target = Path(path)
        part = target.with_name(f".{target.name}.{self.sha256[:8]}.part")
        try:
            async with self.open() as pieces:
                with await asyncio.to_thread(part.open, "wb") as file:
                    async for piece in pieces:
                        await asyncio.to_thread(file.write, piece)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def read_now(self) -> bytes:
        """As `read`, for functions that are not async: it waits in their thread."""
        return _now(self._there(), self.read())

    def _there(self) -> BlobAccess:
        return self._access or BLOBS.get()


def blob_of(reference: "Blob | Mapping[str, Any] | str") -> Blob:
    """A reference as a Blob: an object with `$blob`, or a hash. Raises BlobError."""
    if isinstance(reference, Blob):
        return reference
    try:
        return Blob.model_validate({"$blob": reference} if isinstance(reference, str) else reference)
    except ValidationError as error:
        raise BlobError(f"{reference!r:.100} is no reference to a blob: it is {{'$blob': '<sha256>', …}}") from error


async def _checked(pieces: AsyncIterator[bytes], sha256: str) -> AsyncGenerator[bytes, None]:
    digest = hashlib.sha256()
    async for piece in pieces:
        digest.update(piece)
        yield piece
    if digest.hexdigest() != sha256:
        raise BlobError(f"the content that came is not the one of the blob {sha256}")


def _now(access: BlobAccess, work: Coroutine[Any, Any, T]) -> T:
    """Waits for work in the thread of a function that is not async."""
    if access.loop is None:
        return asyncio.run(work)
    if _running_loop() is access.loop:
        work.close()
        raise BlobError("an async function awaits `read` and `put`; `read_now` and `put_now` would stop the worker")
    return asyncio.run_coroutine_threadsafe(work, access.loop).result()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class ToolBlobs:
    """`ToolContext.blob`: puts contents there, and reads those to which the run refers."""

    def __init__(self, access: BlobAccess) -> None:
        self._access = access

    async def put(self, data: Data, *, type: str | None = None, name: str | None = None) -> Blob:
        """Puts a content there, and returns the reference, for the result. `type`: a media type; default: by the name.

        Raises:
            BlobError: the content is over 64 MiB, there is no room, or the server refuses it.
            TransientError, TidelogConnectionError: the server is away.
        """
        return await put(self._access, data, type, name)

    def put_now(self, data: Data, *, type: str | None = None, name: str | None = None) -> Blob:
        """As `put`, for functions that are not async."""
        return _now(self._access, put(self._access, data, type, name))

    def get(self, reference: "Blob | Mapping[str, Any] | str") -> Blob:
        """The blob of a reference, to be read. Raises BlobError for what is no reference."""
        return blob_of(reference).at(self._access)


class AgentBlobs:
    """`ctx.blob`: puts contents there once, and reads those to which the run refers."""

    def __init__(self, journal: "Journal", recorder: "Recorder", access: BlobAccess) -> None:
        self._journal = journal
        self._recorder = recorder
        self.access = access

    def put(
        self, data: Data, *, type: str | None = None, name: str | None = None, key: str | None = None
    ) -> Coroutine[Any, Any, Blob]:
        """Puts a content there and records the reference: a replay gets the same reference at once, and puts nothing.

        `type`: a media type; default: by the name. Raises as `ToolBlobs.put`.
        """
        return self._put(self._journal.take_key(key, f"blob.put:{name}" if name else "blob.put"), data, type, name)

    def get(self, reference: "Blob | Mapping[str, Any] | str") -> Blob:
        """The blob of a reference, to be read: `await ctx.blob.get(ctx.input["file"]).read()`. Raises BlobError."""
        return blob_of(reference).at(self.access)

    async def _put(self, key: str, data: Data, type: str | None, name: str | None) -> Blob:
        recorded = self._journal.find(key)
        if recorded is not None:
            return blob_of(_object(recorded.result)).at(self.access)
        blob = await put(self.access, data, type, name)
        await self._recorder.record_step(key, blob.reference())
        return blob


def _object(value: JsonValue) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


async def put(access: BlobAccess, data: Data, type: str | None, name: str | None) -> Blob:
    """Puts a content there. See `ToolBlobs.put`."""
    if isinstance(data, str):
        raise BlobError("a content is bytes, the Path of a file, or an async iterator: for a text give text.encode()")
    if name is None and isinstance(data, PathLike):
        name = Path(fspath(data)).name
    kind = type or (mimetypes.guess_type(name)[0] if name else None) or UNKNOWN_TYPE
    sha256, size = await access.put(data, kind)
    return Blob.model_validate({"$blob": sha256, "size": size, "type": kind, "name": name}).at(access)


class NoBlobs:
    """Implements `BlobAccess` where there are none."""

    loop = None

    def __init__(self, why: str) -> None:
        self._why = why

    async def put(self, data: Data, type: str) -> tuple[str, int]:
        raise BlobError(self._why)

    def stream(self, sha256: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        raise BlobError(self._why)


class MemoryBlobs:
    """Implements `BlobAccess` in memory, for tests of agents and tools without a server."""

    loop = None

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}

    async def put(self, data: Data, type: str) -> tuple[str, int]:
        async with aclosing(_pieces_of(data)) as pieces:
            content = b"".join([piece async for piece in pieces])
        _must_fit(len(content))
        sha256 = hashlib.sha256(content).hexdigest()
        self.contents[sha256] = content
        return sha256, len(content)

    @asynccontextmanager
    async def stream(self, sha256: str) -> AsyncGenerator[AsyncIterator[bytes], None]:
        if sha256 not in self.contents:
            raise BlobError(
                f"there is no blob {sha256} in the memory of this process: a blob of a server is read inside an agent or a tool, "
                "or where client.blobs.get has given it"
            )
        yield _pieces_of(self.contents[sha256])


IN_MEMORY = MemoryBlobs()
"""What agents and tools without a worker share, as in tests."""
BLOBS: ContextVar[BlobAccess] = ContextVar("tidelog_blobs", default=IN_MEMORY)
"""Where the agent or the tool that runs now has its blobs."""


class HttpBlobs:
    """Implements `BlobAccess` over a server's routes."""

    def __init__(
        self,
        transport: Callable[[], Transport],
        path: str,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        retry: RetryPolicy = NO_RETRY,
    ) -> None:
        """`path`: of the blobs. `params`: of the reads."""
        self.loop = _running_loop()
        self._transport = transport
        self._path = path
        self._headers = dict(headers or {})
        self._params = dict(params or {})
        self._retry = retry

    async def put(self, data: Data, type: str) -> tuple[str, int]:
        headers = {**self._headers, "Content-Type": type}
        if isinstance(data, AsyncIterable) and not isinstance(data, PathLike):  # can be sent once, and its hash is not known
            answer = await self._sent("POST", self._path, lambda: _bounded(data), headers, NO_RETRY)
        else:
            sha256, size = await asyncio.to_thread(_hash_of, data)
            _must_fit(size)
            headers["Content-Length"] = str(size)
            answer = await self._sent("PUT", f"{self._path}/{sha256}", lambda: _pieces_of(data), headers, self._retry)
        try:
            return str(answer["sha256"]), int(answer["size"])
        except (KeyError, TypeError, ValueError) as error:
            raise TidelogConnectionError("the server's answer is not one about a blob") from error

    async def _sent(
        self, method: str, path: str, content: Callable[[], AsyncIterable[bytes]], headers: Mapping[str, str], retry: RetryPolicy
    ) -> Any:
        with _told():
            response = await self._transport().send(method, path, content, headers=headers, retry=retry, read_timeout_s=IDLE_S)
        return json_of(response)

    @asynccontextmanager
    async def stream(self, sha256: str) -> AsyncGenerator[AsyncIterator[bytes], None]:
        with _told():
            response = await self._transport().download(
                f"{self._path}/{sha256}", params=self._params, headers=self._headers, retry=self._retry, read_timeout_s=IDLE_S
            )
        try:
            yield pieces_of_answer(response)
        finally:
            await response.aclose()


class _told:
    """Turns refusals into errors that say what they are about."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, TidelogAPIError):
            if error.retryable and not isinstance(error, ConflictError):
                raise TransientError(f"the server does not take or give the blob now: {error.reason}") from error
            raise BlobError(error.reason) from error


def _must_fit(size: int) -> None:
    if size > MAX_BLOB_BYTES:
        raise BlobError(f"the content has {size:,} bytes; a blob may have {MAX_BLOB_BYTES:,} bytes (64 MiB)")


async def _bounded(pieces: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    size = 0
    async for piece in pieces:
        size += len(piece)
        _must_fit(size)
        yield piece


def _hash_of(data: Data) -> tuple[str, int]:
    if isinstance(data, PathLike):
        with open(data, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
    assert not isinstance(data, AsyncIterable)
    view = memoryview(data).cast("B")
    return hashlib.sha256(view).hexdigest(), view.nbytes


async def _pieces_of(data: Data) -> AsyncGenerator[bytes, None]:
    if isinstance(data, PathLike):
        with await asyncio.to_thread(open, data, "rb") as file:
            while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
                yield piece
    elif isinstance(data, AsyncIterable):
        async for piece in data:
            yield piece
    else:
        view = memoryview(data).cast("B")
        for place in range(0, view.nbytes, PIECE_BYTES):
            yield bytes(view[place : place + PIECE_BYTES])


class BlobInfo(BaseModel):
    """A blob of the tenant. `made_by`: who put its content there first."""

    model_config = ConfigDict(frozen=True)
    sha256: str
    size: int
    type: str
    made_at: AwareDatetime
    made_by: str
    referred_by: tuple[UUID, ...] | None = None
    """Runs, or other roots, whose events refer to the blob, 20 at most. None: was not asked for."""


class ClientBlobs:
    """`client.blobs`: the blobs of the tenant."""

    def __init__(self, requests: "Requests") -> None:
        self._requests = requests

    def _access(self, run_id: UUID | None = None) -> HttpBlobs:
        params = {} if run_id is None else {"run_id": str(run_id)}
        transport, retry = self._requests.transport, self._requests.retry
        return HttpBlobs(lambda: transport, "/v1/blobs", params=params, retry=retry)

    async def put(self, data: Data, *, type: str | None = None, name: str | None = None) -> Blob:
        """Puts a content of up to 64 MiB there, and returns the reference, for the input of a run.

        `data`: bytes, the `Path` of a file, or an async iterator of bytes. `type`: a media type; default: by the name.
        """
        return await put(self._access(), data, type, name)

    def get(self, reference: "Blob | Mapping[str, Any] | str", *, run_id: UUID | None = None) -> Blob:
        """The blob of a reference or of a hash, to be read: `await client.blobs.get(run.result["report"]).read()`.

        `run_id`: the run that refers to it, for a key that is narrowed to projects.
        """
        return blob_of(reference).at(self._access(run_id))

    async def details(self, sha256: str) -> BlobInfo:
        """What is known of a blob, and what refers to it. Raises `NotFoundError`."""
        return await self._requests.one(BlobInfo, f"/v1/blobs/{sha256}/details")

    def list(self) -> AsyncGenerator[BlobInfo, None]:
        """All blobs of the tenant, the newest first."""
        return self._requests.every(BlobInfo, "/v1/blobs")

    async def delete(self, sha256: str, reason: str | None = None) -> None:
        """Removes a blob. `reason`: for the audit trail.

        Raises:
            ConflictError: events of the log refer to the blob (`blob-in-use`).
            NotFoundError: there is no such blob.
        """
        headers = reason_header(reason)
        await self._requests.transport.request("DELETE", f"/v1/blobs/{sha256}", headers=headers, retry=self._requests.retry)
