"""Answers: JSON with its position in the log, the version of a stream, the link to the next page; documents that are cached."""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlencode

import orjson
import pydantic_core
from fastapi import Request
from pydantic import BaseModel
from starlette.responses import Response

from api.http.conventions.positions import POSITION
from application.engine.commands.request import CommandOutcome
from application.engine.ports.pages import Page
from application.reads import Positioned

OF_COMMANDS = (POSITION, "ETag", "Idempotency-Replayed")
"""Headers of the answer to a command."""
OF_LISTS = (POSITION, "Link")
"""Headers of a page."""


def answer(value: Any, status: int = 200, *, position: int | None = None, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer; models are dumped by pydantic."""
    content = value.__pydantic_serializer__.to_json(value) if isinstance(value, BaseModel) else json_text(value)
    extra = dict(headers or {})
    if position is not None:
        extra[POSITION] = str(position)
    return Response(content, status, extra, "application/json")


def json_text(value: Any) -> bytes:
    """JSON data as text."""
    try:
        return orjson.dumps(value)
    except TypeError:  # an integer of more than 64 bits: rare, but legal
        return pydantic_core.to_json(value)


def accepted(
    outcome: CommandOutcome, version: int, body: dict[str, Any], *, status: int = 202, headers: Mapping[str, str] | None = None
) -> Response:
    """The answer to a command: its position and the version of its stream. `headers`: further ones."""
    given = {"ETag": f'"v{version}"', **replayed(outcome), **(headers or {})}
    return answer({**body, "position": outcome.position, "version": version}, status, position=outcome.position, headers=given)


def replayed(*outcomes: CommandOutcome) -> dict[str, str]:
    """`Idempotency-Replayed` if all outcomes were recorded before, so that the answer repeats the first answer."""
    return {"Idempotency-Replayed": "true"} if all(outcome.duplicate for outcome in outcomes) else {}


def page_answer(request: Request, model: type[BaseModel], found: Positioned[Page[Any]]) -> Response:
    """A page of a read model in the envelope of its list: `data` and `next_cursor`."""
    body = model(data=found.value.data, next_cursor=found.value.next_cursor)
    return answer(body, position=found.position, headers=next_link(request, found.value.next_cursor))


def next_link(request: Request, next_cursor: str | None) -> dict[str, str]:
    """The `Link` header (RFC 8288) to the next page.

    The reference is relative, with a query alone: so it holds under each name and path by which a proxy serves this server.
    """
    if next_cursor is None:
        return {}
    given = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
    query = urlencode([*given, ("cursor", next_cursor)], quote_via=quote, safe=":,-._~")
    return {"Link": f'<?{query}>; rel="next"'}


CACHING = "public, max-age=3600"
"""A version of an event may gain an optional field with a release. So a copy is valid for an hour, not for ever."""


def cached_document(request: Request, body: bytes, media_type: str) -> Response:
    """The document, or 304 if the client has it already."""
    tag = _tag(body)
    headers = {"ETag": tag, "Cache-Control": CACHING}
    return Response(status_code=304, headers=headers) if knows(request, tag) else Response(body, 200, headers, media_type)


def knows(request: Request, tag: str) -> bool:
    """Whether the client has the answer with this ETag already (RFC 9110, section 13.1.2)."""
    known = {part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(",")}
    return tag in known or "*" in known


@lru_cache(maxsize=1_000)  # the documents are few, and rendered once
def _tag(body: bytes) -> str:
    return tag_of(body)


def tag_of(content: bytes) -> str:
    """The ETag of an answer: a hash of its content."""
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'
