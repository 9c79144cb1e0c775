"""The tools that come with Tidelog. None of them runs code of others, and only `http.get` calls out."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, JsonValue

from tidelog.builtin import placeholders
from tidelog.builtin.pointers import NotThereError, value_at
from tidelog.errors import PermanentError
from tidelog.guard.client import SAFE_HEADERS, GuardedClient, checked_headers
from tidelog.tools import Tool, tool

GET_BYTES = 128 * 1024
GET_TIMEOUT_S = 30.0


def built_in_tools(client: GuardedClient) -> list[Tool[..., Any]]:
    """`http.get` calls through the client."""

    @tool("http.get", capabilities=("http",), idempotent=True, timeout_s=GET_TIMEOUT_S + 5)
    async def get(
        url: Annotated[str, Field(max_length=8_192)],
        headers: Annotated[dict[str, str], Field(max_length=20)] = {},  # noqa: B006  # never changed
        max_bytes: Annotated[int, Field(ge=1, le=GET_BYTES)] = GET_BYTES,
    ) -> JsonValue:
        """Get a page or document of the public internet: its status, headers, and its body as JSON or text."""
        chosen = checked_headers(headers, only=SAFE_HEADERS)
        answer = await client.request("GET", url, headers=chosen, timeout_s=GET_TIMEOUT_S, max_bytes=max_bytes)
        return {"status": answer.status, "url": answer.url, "headers": dict(answer.headers), "body": answer.value}

    return [get, query, template, now]


@tool("json.query", capabilities=("json",), idempotent=True, timeout_s=10)
async def query(
    document: JsonValue,
    pointer: str | None = None,
    pointers: Annotated[dict[str, str] | None, Field(max_length=100)] = None,
    missing: Literal["error", "null"] = "error",
) -> JsonValue:
    """Take parts out of a JSON document by JSON Pointers (RFC 6901), such as /items/0/name: one part, or several by name."""
    if (pointer is None) == (pointers is None):
        raise PermanentError("give either `pointer`, or `pointers` by name")

    def part(each: str) -> JsonValue:
        try:
            return value_at(document, each)
        except NotThereError as error:
            if missing == "null":
                return None
            raise PermanentError(str(error)) from None
        except ValueError as error:
            raise PermanentError(f"{each[:200]!r} is no JSON Pointer: {error}") from None

    return part(pointer) if pointer is not None else {name: part(each) for name, each in (pointers or {}).items()}


@tool("text.template", capabilities=("text",), idempotent=True, timeout_s=10)
async def template(text: str, values: dict[str, JsonValue]) -> str:
    """Fill the placeholders of a text, {{name}} or {{user.name}}, with values. Nothing is evaluated."""
    try:
        placeholders.check(text, "the text")
    except ValueError as error:
        raise PermanentError(str(error)) from None
    return placeholders.fill(text, values)


@tool("time.now", capabilities=("time",), idempotent=True, timeout_s=10)
async def now(zone: Annotated[str, Field(max_length=100)] = "UTC") -> dict[str, JsonValue]:
    """The time now, in a zone such as Europe/Berlin: RFC 3339, seconds since 1970, and the day of the week."""
    try:
        here = UTC if zone == "UTC" else ZoneInfo(zone)
    except (LookupError, ValueError, OSError):
        raise PermanentError(f"there is no time zone {zone!r} on this machine; write one as Europe/Berlin") from None
    at = datetime.now(here)
    return {"time": at.isoformat(timespec="milliseconds"), "unix": at.timestamp(), "weekday": at.strftime("%A"), "zone": zone}
