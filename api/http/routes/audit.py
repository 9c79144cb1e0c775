"""The audit trail over HTTP: a list for questions, and an export for files."""

import asyncio
import csv
import io
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.responses import Response, StreamingResponse

from api.http.conventions.answers import OF_LISTS, page_answer
from api.http.conventions.audit import REASON, audited
from api.http.conventions.callers import Callers
from api.http.conventions.permissions import needs
from api.http.conventions.positions import POSITION, caught_up
from api.http.conventions.request import container_of, principal_of
from api.http.conventions.routing import DirectRoute
from api.http.documents import openapi
from application.audit import Export
from application.engine.ports.pages import MAX_LIMIT, position_cursor
from application.reads import AuditWanted
from application.views.audit import AuditEntryView
from domain.access import Action
from domain.audit import Result
from domain.errors import InvalidCommand, Unauthenticated

router = APIRouter(tags=["audit"], route_class=DirectRoute)

Text = Annotated[str | None, Query(min_length=1, max_length=500, pattern=r"^[^\x00]+$")]
Target = Annotated[
    str | None,
    Query(min_length=1, max_length=500, pattern=r"^[^\x00]+$", description="Id of the run, call, read model, key or project"),
]
Time = Annotated[str | None, Query(description="An RFC 3339 time with its zone")]


@dataclass(frozen=True, slots=True)
class AuditFilters:
    """The filters of the list and of the export."""

    actor: Text = None
    action: Text = None
    target: Target = None
    on_behalf_of: Text = None
    result: Result | None = None
    after: Time = None
    before: Time = None

    async def wanted(self, request: Request, limit: int, before: int | None = None) -> AuditWanted:
        """A page of the entries that the filters leave. The times are told as positions: entries after the last position of the
        one time, and up to that of the other. Raises InvalidCommand.
        """
        feed, tenant_id = container_of(request).feed, principal_of(request).tenant_id
        since = 0 if self.after is None else await feed.position_at(tenant_id, _time("after", self.after))
        until = None if self.before is None else await feed.position_at(tenant_id, _time("before", self.before))
        return AuditWanted(limit, before, self.actor, self.action, self.target, self.on_behalf_of, self.result, since, until)


Filters = Annotated[AuditFilters, Depends()]
Format = Literal["jsonl", "csv"]

COLUMNS = tuple(AuditEntryView.model_fields)
_TIME: TypeAdapter[datetime] = TypeAdapter(datetime)
_DATE = re.compile(r"\d{4}-\d\d-\d\d[Tt ]", re.ASCII)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # a spreadsheet takes the wide forms, too
"""A cell that begins so would be calculated by a spreadsheet."""


class AuditPage(BaseModel):
    data: list[AuditEntryView]
    next_cursor: str | None


@router.get(
    "/v1/audit",
    summary="The audit trail, newest first",
    responses={200: openapi.gives(AuditPage, *OF_LISTS)},
    openapi_extra=openapi.takes_headers(POSITION),
)
@needs(Action.AUDIT_READ)
async def get_audit(
    request: Request,
    filters: Filters,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
    cursor: str | None = None,
) -> Response:
    """What operators did, and how many requests were refused.

    With several filters a page looks at 2,000 entries at most. So a page may have fewer entries than `limit`, or none, and a
    `next_cursor`.
    """
    wanted = await filters.wanted(request, limit, position_cursor(cursor))
    await caught_up(request, "audit")
    return page_answer(request, AuditPage, await container_of(request).reads.audit.list(principal_of(request).tenant_id, wanted))


@router.get(
    "/v1/audit/export",
    summary="The audit trail as a file, newest first",
    responses={
        200: openapi.gives_content(
            {"application/jsonl": {"type": "string"}, "text/csv": {"type": "string"}},
            "Tidelog-Position", "Cache-Control", "Content-Disposition", description="JSON Lines or CSV",
        )
    },
    openapi_extra=openapi.takes_headers(POSITION, REASON),
)  # fmt: skip
@needs(Action.AUDIT_EXPORT)
async def export_audit(
    request: Request,
    filters: Filters,
    format: Format = "jsonl",
) -> Response:
    """All entries that the filters leave, up to the position of the answer. The export leaves an entry itself, and has it not.

    A file that is cut off is an answer that does not end: the connection is closed in the middle.
    """
    wanted = await filters.wanted(request, MAX_LIMIT)
    await caught_up(request, "audit")
    async with audited(request, Action.AUDIT_EXPORT, "audit", operation=format) as entry:
        export = await Export.begun(container_of(request).reads.audit, principal_of(request).tenant_id, wanted)
        if request.method != "HEAD":
            await entry.begin()
    attached = f'attachment; filename="audit.{format}"'
    headers = {POSITION: str(export.position), "Cache-Control": "no-store", "Content-Disposition": attached}
    kind = "application/jsonl" if format == "jsonl" else "text/csv; charset=utf-8"
    return StreamingResponse(_text(request, export, format), 200, headers, kind)


async def _text(request: Request, export: Export, format: Format) -> AsyncIterator[bytes]:
    """The text of an export. The server asks for the next piece when the peer has taken the piece before.

    Raises Unauthenticated in the middle, when the key is no longer valid: the answer must not look complete.
    """
    callers: Callers = request.app.state.callers
    ended = asyncio.Event()
    release = callers.hold(request.scope, ended.set)
    try:
        if format == "csv":
            yield _csv([COLUMNS])
        async with aclosing(export.pages()) as pages:
            async for page in pages:
                if ended.is_set():
                    raise Unauthenticated("the API key is not valid any more")
                yield _lines(page) if format == "jsonl" else _csv([_row(entry) for entry in page])
    finally:
        release()


def _lines(entries: Sequence[AuditEntryView]) -> bytes:
    return b"".join(entry.__pydantic_serializer__.to_json(entry) + b"\n" for entry in entries)


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()


def _row(entry: AuditEntryView) -> list[str]:
    values = entry.model_dump(mode="json")
    return [_cell(values[name]) for name in COLUMNS]


def _cell(value: object) -> str:
    """A text that a spreadsheet shows as it is."""
    if value is None:
        return ""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _time(name: str, text: str) -> datetime:
    try:
        at = _TIME.validate_python(text) if _DATE.match(text) else None
    except ValidationError:
        at = None
    if at is None or at.tzinfo is None:
        raise InvalidCommand(f"{name} must be an RFC 3339 time with its zone", pointer=f"/{name}")
    return at
