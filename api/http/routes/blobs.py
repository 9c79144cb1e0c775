"""Blobs over HTTP: contents that are too large for an event. Neither a body nor an answer is ever in memory as a whole."""

import re
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel
from starlette.responses import Response, StreamingResponse

from api.http.conventions.answers import answer, knows, next_link
from api.http.conventions.audit import REASON, audited
from api.http.conventions.bodies import takes_content
from api.http.conventions.errors import RangeNotSatisfiable, UnsupportedBody, tidelog_problem
from api.http.conventions.narrowing import seen_by
from api.http.conventions.permissions import Reach, needs
from api.http.conventions.releases import must_all_know_blobs
from api.http.conventions.request import container_of, header, principal_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from api.http.documents.headers import headers
from application.blobs import NotSatisfiable, Stored, span_of
from application.engine.ports.blobs import MAX_BLOB_BYTES, Blob
from application.engine.ports.pages import MAX_LIMIT, position_cursor
from application.engine.ports.views import Timestamp
from application.workers.blobs import LEASE, root_of_lease
from domain.access import Action
from domain.errors import InvalidCommand, NotFound

router = APIRouter(tags=["blobs"], route_class=DirectRoute)
of_work = APIRouter(tags=["workers"], route_class=DirectRoute)

Hash = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="The SHA-256 of the content, in lower case")]
RunOfBlob = Annotated[UUID | None, Query(description="Only as part of this run, whose events refer to the blob")]

UNKNOWN_TYPE = "application/octet-stream"
_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+( *; *[\w!#$&^.+-]+=([\w!#$&^.+-]+|\"[^\"\\]*\"))*", re.ASCII)
_TYPE_CHARACTERS = 200

GUARDED = {
    "Content-Disposition": "attachment",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, no-cache",
    "Accept-Ranges": "bytes",
}
"""Whatever the content says that it is: a browser runs nothing of it, and shows nothing of it as a page of this server."""
OF_CONTENT = ("ETag", *GUARDED)
PUT_HERE = openapi.takes_content(takes=("Content-Encoding",))
CONTENT: dict[int | str, dict[str, Any]] = {
    200: openapi.gives_content({"*/*": openapi.BINARY}, *OF_CONTENT, description="The content, with the type that it was given"),
    206: openapi.gives_content({"*/*": openapi.BINARY}, "Content-Range", *OF_CONTENT, description="The bytes that were asked for"),
    304: {"description": "The client has the content", "headers": headers(*OF_CONTENT)},
    416: openapi.problem_with("Content-Range", description="The content has no such bytes"),
}


class BlobView(BaseModel):
    sha256: str
    size: int
    type: str
    made_at: Timestamp
    made_by: str


class BlobDetails(BlobView):
    referred_by: list[UUID]
    """Roots of events that refer to the blob, 20 at most: runs, as a rule."""


class BlobPage(BaseModel):
    data: list[BlobView]
    next_cursor: str | None
    blobs: int
    bytes: int
    """Of all blobs of the tenant, and of uploads under way."""
    max_bytes: int


# --- of clients ---------------------------------------------------------------------------------------------------------------


@router.put(
    "/v1/blobs/{sha256}",
    status_code=201,
    summary="Put a content there, by its hash",
    responses={201: openapi.gives(BlobView, "Location", "ETag"), 200: openapi.gives(BlobView, "Location", "ETag")},
    openapi_extra=PUT_HERE,
)
@needs(Action.BLOBS_WRITE)
@takes_content(MAX_BLOB_BYTES)
async def put_blob(request: Request, sha256: Hash) -> Response:
    """200 if the tenant has the content already; its type stays. The hash is checked while the content arrives: of a content with
    another hash nothing is kept (422 `hash-mismatch`).
    """
    return await _taken(request, sha256)


@router.post(
    "/v1/blobs",
    status_code=201,
    summary="Put a content there, whose hash the server computes",
    responses={201: openapi.gives(BlobView, "Location", "ETag"), 200: openapi.gives(BlobView, "Location", "ETag")},
    openapi_extra=PUT_HERE,
)
@needs(Action.BLOBS_WRITE)
@takes_content(MAX_BLOB_BYTES)
async def post_blob(request: Request) -> Response:
    """A repeat needs no `Idempotency-Key`: the same content is the same blob."""
    return await _taken(request, None)


@router.get(
    "/v1/blobs",
    summary="Blobs, the newest first, and how many bytes they have",
    responses={200: openapi.gives(BlobPage, "Link")},
)
@needs(Action.BLOBS_READ)
async def get_blobs(
    request: Request, limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100, cursor: str | None = None
) -> Response:
    blobs, tenant_id = container_of(request).blobs, principal_of(request).tenant_id
    page = await blobs.store.list(tenant_id, limit=limit, before=position_cursor(cursor))
    usage = await blobs.store.usage(tenant_id)
    body = BlobPage(
        data=[_view(blob) for blob in page.data],
        next_cursor=page.next_cursor,
        blobs=usage.blobs,
        bytes=usage.bytes + usage.reserved,
        max_bytes=blobs.most_bytes,
    )
    return answer(body, headers=next_link(request, page.next_cursor))


@router.get(
    "/v1/blobs/{sha256}",
    summary="The content of a blob",
    responses=CONTENT,
    openapi_extra=openapi.takes_headers("Range", "If-Range", "If-None-Match"),
)
@needs(Action.BLOBS_READ, Reach.LIMITED)
async def get_blob(request: Request, sha256: Hash, run_id: RunOfBlob = None) -> Response:
    """A key that is narrowed to projects names the run as part of which it reads the blob."""
    seen = seen_by(request)
    if seen is not None and (run_id is None or not await seen.has(run_id)):
        hint = "; an API key that is narrowed to projects gives a `run_id` that it sees" if run_id is None else ""
        raise NotFound(f"there is no blob {sha256}{hint}")
    return await _content(request, await container_of(request).blobs.get(principal_of(request).tenant_id, sha256, root_id=run_id))


@router.get("/v1/blobs/{sha256}/details", summary="What is known of a blob", responses={200: openapi.gives(BlobDetails)})
@needs(Action.BLOBS_READ)
async def get_details(request: Request, sha256: Hash) -> Response:
    blobs, tenant_id = container_of(request).blobs, principal_of(request).tenant_id
    blob = await blobs.get(tenant_id, sha256)
    return answer(BlobDetails(**dict(_view(blob)), referred_by=list(await blobs.store.roots(tenant_id, sha256))))


@router.delete(
    "/v1/blobs/{sha256}",
    status_code=204,
    summary="Remove a blob to which nothing refers",
    responses={204: {"description": "The blob is removed"}},
    openapi_extra=openapi.takes_headers("Tidelog-On-Behalf-Of", REASON),
)
@needs(Action.BLOBS_REMOVE)
async def delete_blob(request: Request, sha256: Hash) -> Response:
    """Refused with 409 `blob-in-use` if events of the log refer to the blob: it stays as long as they do."""
    blobs, tenant_id = container_of(request).blobs, principal_of(request).tenant_id
    await blobs.get(tenant_id, sha256)
    async with audited(request, Action.BLOBS_REMOVE, "blob", sha256) as entry:
        await entry.begin()
        await blobs.remove(tenant_id, sha256)
    return Response(status_code=204)


# --- of workers ---------------------------------------------------------------------------------------------------------------


@of_work.put(
    "/v1/work/blobs/{sha256}",
    status_code=201,
    summary="Put a content there for the work in hand, by its hash",
    responses={201: openapi.gives(BlobView, "Location", "ETag"), 200: openapi.gives(BlobView, "Location", "ETag")},
    openapi_extra=openapi.takes_content(takes=(LEASE,)),
)
@needs(Action.WORKERS_WORK)
@takes_content(MAX_BLOB_BYTES)
async def put_blob_of_work(request: Request, sha256: Hash) -> Response:
    """The run of the work refers to the blob from then on."""
    return await _taken(request, sha256, root_id=await _root(request))


@of_work.post(
    "/v1/work/blobs",
    status_code=201,
    summary="Put a content there for the work in hand, whose hash the server computes",
    responses={201: openapi.gives(BlobView, "Location", "ETag"), 200: openapi.gives(BlobView, "Location", "ETag")},
    openapi_extra=openapi.takes_content(takes=(LEASE,)),
)
@needs(Action.WORKERS_WORK)
@takes_content(MAX_BLOB_BYTES)
async def post_blob_of_work(request: Request) -> Response:
    """The run of the work refers to the blob from then on."""
    return await _taken(request, None, root_id=await _root(request))


@of_work.get(
    "/v1/work/blobs/{sha256}",
    summary="The content of a blob to which the run of the work in hand refers",
    responses=CONTENT,
    openapi_extra=openapi.takes_headers(LEASE, "Range", "If-Range", "If-None-Match"),
)
@needs(Action.WORKERS_WORK)
async def get_blob_of_work(request: Request, sha256: Hash) -> Response:
    root_id, tenant_id = await _root(request), principal_of(request).tenant_id
    return await _content(request, await container_of(request).blobs.get(tenant_id, sha256, root_id=root_id))


async def _root(request: Request) -> UUID:
    """The root of the work in hand, which the lease in the header proves."""
    container = container_of(request)
    tokens = container.workers.sessions.tokens
    await tokens.ready()
    return await root_of_lease(container.commands, tokens, principal_of(request).tenant_id, header(request, LEASE.lower().encode()))


# --- contents -----------------------------------------------------------------------------------------------------------------


async def _taken(request: Request, sha256: str | None, root_id: UUID | None = None) -> Response:
    container, principal = container_of(request), principal_of(request)
    kind, length = _type_of(request), header(request, b"content-length")
    await must_all_know_blobs(container)
    stored = await container.blobs.put(
        principal.tenant_id,
        _pieces(request),
        made_by=principal.actor,
        type=kind,
        size=int(length) if length else None,
        sha256=sha256,
        root_id=root_id,
    )
    return _stored(stored)


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    """The body as it arrives. Raises ClientDisconnect if it ends in the middle."""
    async for piece in request.stream():
        yield piece


def _type_of(request: Request) -> str:
    """Raises UnsupportedBody, InvalidCommand."""
    coding = header(request, b"content-encoding")
    if coding and coding.strip().lower() != "identity":
        raise UnsupportedBody(f"the content must not be compressed on its way: Content-Encoding is {coding[:100]}")
    kind = header(request, b"content-type").strip() or UNKNOWN_TYPE
    if len(kind) > _TYPE_CHARACTERS or not _TYPE.fullmatch(kind):
        raise InvalidCommand(f"Content-Type is no media type of at most {_TYPE_CHARACTERS} characters, such as image/png")
    return kind


def _stored(stored: Stored) -> Response:
    blob = stored.blob
    found = {"Location": f"/v1/blobs/{blob.sha256}", "ETag": _tag(blob)}
    return answer(_view(blob), 201 if stored.new else 200, headers=found)


async def _content(request: Request, blob: Blob) -> Response:
    tag = _tag(blob)
    given = {**GUARDED, "ETag": tag}
    if knows(request, tag):
        return Response(status_code=304, headers=given)
    unchanged = header(request, b"if-range") in ("", tag)
    try:
        span = span_of(header(request, b"range"), blob.size) if unchanged and request.method == "GET" else None
    except NotSatisfiable:
        refusal = RangeNotSatisfiable(f"the blob has {blob.size:,} bytes, and none of them is in the range that was asked for")
        response = tidelog_problem(request.scope, refusal)  # type: ignore[arg-type]  # a Scope is a dict
        response.headers["Content-Range"] = f"bytes */{blob.size}"
        return response
    size = blob.size if span is None else span.last - span.first + 1
    given |= {"Content-Type": blob.type, "Content-Length": str(size)}
    if span is not None:
        given["Content-Range"] = f"bytes {span.first}-{span.last}/{blob.size}"
    content = container_of(request).blobs.content(principal_of(request).tenant_id, blob, span)
    return StreamingResponse(content, 200 if span is None else 206, given)


def _tag(blob: Blob) -> str:
    return f'"{blob.sha256}"'


def _view(blob: Blob) -> BlobView:
    return BlobView(sha256=blob.sha256, size=blob.size, type=blob.type, made_at=blob.made_at, made_by=blob.made_by)
