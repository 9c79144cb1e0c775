"""The tools that come with Tidelog. None of them runs code of others. `http.get`, `http.post` and `smtp.send` call out."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import httpx2
from pydantic import Field, JsonValue

from tidelog.builtin import mail, placeholders
from tidelog.builtin.pointers import NotThereError, value_at
from tidelog.errors import PermanentError
from tidelog.guard.client import SAFE_HEADERS, Credential, GuardedClient, checked_headers
from tidelog.guard.secrets import NAME as SECRET_NAME
from tidelog.guard.secrets import SecretMissingError, Secrets
from tidelog.tools import Tool, ToolContext, tool

GET_BYTES = 128 * 1024
GET_TIMEOUT_S = POST_TIMEOUT_S = 30.0
MAIL_TIMEOUT_S = 120.0

SecretName = Annotated[str, Field(pattern=f"^{SECRET_NAME.pattern}$")]
Url = Annotated[str, Field(max_length=8_192)]
Headers = Annotated[dict[str, str], Field(max_length=20)]


def built_in_tools(client: GuardedClient, secrets: Secrets) -> list[Tool[..., Any]]:
    """Those that call out do so through the client. They name secrets, and never have them as arguments."""

    @tool("http.get", capabilities=("http",), idempotent=True, timeout_s=GET_TIMEOUT_S + 5)
    async def get(
        url: Url,
        headers: Headers = {},  # noqa: B006  # never changed
        max_bytes: Annotated[int, Field(ge=1, le=GET_BYTES)] = GET_BYTES,
    ) -> JsonValue:
        """Get a page or document of the public internet: its status, headers, and its body as JSON or text."""
        chosen = checked_headers(headers, only=SAFE_HEADERS)
        answer = await client.request("GET", url, headers=chosen, timeout_s=GET_TIMEOUT_S, max_bytes=max_bytes)
        return {"status": answer.status, "url": answer.url, "headers": dict(answer.headers), "body": answer.value}

    @tool("http.post", capabilities=("http",), timeout_s=POST_TIMEOUT_S + 5)
    async def post(
        context: ToolContext,
        body: JsonValue,
        url: Url | None = None,
        url_secret: SecretName | None = None,
        values: dict[str, JsonValue] = {},  # noqa: B006  # never changed
        headers: Headers = {},  # noqa: B006  # never changed
        secret: SecretName | None = None,
        key_header: Annotated[str, Field(max_length=100)] | None = None,
    ) -> JsonValue:
        """Post JSON to a service, such as the webhook of a chat. Placeholders of the body, {{name}}, are filled with values. A URL
        that is itself secret is named by url_secret; secret goes as a bearer token; key_header gets the key of the call."""
        target, credential = _where(secrets, url, url_secret, secret)
        try:
            for each in placeholders.texts_in(body):
                placeholders.check(each, "the body")
        except ValueError as error:
            raise PermanentError(str(error)) from None
        chosen = {"content-type": "application/json", **checked_headers(headers, only=SAFE_HEADERS)}
        if key_header is not None:
            chosen |= checked_headers({key_header: context.idempotency_key})
        filled = placeholders.fill_body(body, values)
        answer = await client.request(
            "POST", target, headers=chosen, credential=credential, timeout_s=POST_TIMEOUT_S, max_bytes=GET_BYTES,
            body=json.dumps(filled, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(),
            repeatable=key_header is not None,
        )  # fmt: skip
        return {"status": answer.status, "headers": _but(answer.headers, "location"), "body": answer.value}

    @tool("smtp.send", capabilities=("mail",), timeout_s=MAIL_TIMEOUT_S)
    async def send(
        context: ToolContext,
        to: Annotated[list[Annotated[str, Field(max_length=320)]], Field(min_length=1, max_length=mail.MOST_RECIPIENTS)],
        subject: Annotated[str, Field(min_length=1, max_length=mail.MAX_SUBJECT)],
        text: Annotated[str, Field(max_length=mail.MAX_TEXT)],
        values: dict[str, JsonValue] = {},  # noqa: B006  # never changed
        secret: SecretName = "smtp",
    ) -> JsonValue:
        """Send a mail of text by the mail server that the secret names. Placeholders of subject and text, {{name}}, are filled with
        values. The sender is the operator's."""
        try:
            for what, each in (("the subject", subject), ("the text", text)):
                placeholders.check(each, what)
        except ValueError as error:
            raise PermanentError(str(error)) from None
        subject, text = placeholders.fill(subject, values), placeholders.fill(text, values)
        return await mail.send(client, secrets, secret=secret, to=to, subject=subject, text=text, key=context.idempotency_key)

    return [get, post, send, query, template, now]


def _where(secrets: Secrets, url: str | None, url_secret: str | None, secret: str | None) -> tuple[str, Credential | None]:
    """The URL, and the secret that answers must not show. Raises PermanentError, SecretMissingError."""
    if (url is None) == (url_secret is None):
        raise PermanentError("give either `url`, or `url_secret`, the name of a secret that is the URL")
    if url is not None:
        held = None if secret is None else secrets.get(secret)
        return url, None if held is None else Credential("Authorization", f"Bearer {held.value}", held)
    if secret is not None:
        raise PermanentError("`secret` goes with `url`: a URL that is secret needs no token")
    whole = secrets.get(str(url_secret))
    try:
        httpx2.URL(whole.value)
    except (httpx2.InvalidURL, ValueError):
        raise SecretMissingError(f"the secret {url_secret!r} is no URL") from None  # what is wrong with it would show some of it
    return whole.value, Credential(None, whole.value, whole)


def _but(headers: Mapping[str, str], left_out: str) -> dict[str, JsonValue]:
    return {name: value for name, value in headers.items() if name != left_out}


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
