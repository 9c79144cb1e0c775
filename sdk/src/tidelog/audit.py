"""The audit trail: its filters, the reason of an action, and the pieces of an export."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import datetime
from typing import Any, Literal, TypedDict, TypeVar

import httpx2

from tidelog.errors import NotJsonError, TidelogConnectionError
from tidelog.transport import Transport, error_of

M = TypeVar("M")

PAUSE_S = 60.0
"""Seconds without a piece of an export after which the connection counts as dead."""


class AuditFilters(TypedDict, total=False):
    """Only entries that match all of these. `target`: id of what an action was done to. `after`, `before`: times with a zone."""

    actor: str
    action: str
    target: str
    on_behalf_of: str
    result: Literal["done", "begun", "refused", "failed"]
    after: datetime
    before: datetime


def query_of(filters: AuditFilters) -> dict[str, str]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else str(value)
        for name, value in filters.items()
        if value is not None
    }


async def first(entries: AsyncGenerator[M, None], limit: int) -> list[M]:
    found: list[M] = []
    async with aclosing(entries):
        async for entry in entries:
            found.append(entry)
            if len(found) >= limit:
                break
    return found


def reason_header(reason: str | None) -> dict[str, Any]:
    """The header with the reason of an action, in UTF-8. Raises NotJsonError for a text that is not one line."""
    if reason is None:
        return {}
    if not reason.strip() or not reason.isprintable():
        raise NotJsonError("the reason must be one line of text")
    return {"Tidelog-Reason": reason.strip().encode()}


async def pieces(transport: Transport, params: Mapping[str, str], headers: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
    """The bytes of an export. Raises TidelogConnectionError, also in the middle: then the export is not complete."""
    path = "/v1/audit/export"
    try:
        async with transport.stream(path, params=params, headers=headers, read_timeout_s=PAUSE_S) as response:
            if not response.is_success:
                raise error_of(response, await response.aread())
            async for piece in response.aiter_bytes():
                yield piece
    except (httpx2.HTTPError, httpx2.StreamError) as error:
        raise TidelogConnectionError(f"{path}: the export is not complete ({type(error).__name__}: {error})") from error
