"""The HTTP request of a tool, as data: a template of a URL, headers, a query and a body, and the name of a secret.

A request never holds a secret itself. What looks like a credential is refused, and the refusal does not repeat the text.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints

from domain.errors import json_pointer
from domain.kernel import Json, Value

Fault = tuple[str, str]
"""The JSON Pointer of a place, and what is wrong there."""
Template = Annotated[str, StringConstraints(max_length=4_000, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""A text with names of arguments in double braces: `{{owner}}`, and `{{owner.name}}` for a value inside."""
HeaderName = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")]

MOST_FIELDS = 50
_VARIABLE = re.compile(r"\{\{([^{}]*)\}\}")
_ARGUMENT = re.compile(r"\s{0,8}([A-Za-z0-9_-]{1,100})(\.[A-Za-z0-9_-]{1,100}){0,8}\s{0,8}")
_SECRET_NAME = re.compile(
    r"(^|[^a-z])(authorization|auth|cookie|token|secret|password|passwd|api[-_]?key|access[-_]?key|credentials?|signature)([^a-z]|$)",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(
    r"^\s*(bearer|basic|digest|negotiate)\s+[^\s{]|(^|[^A-Za-z0-9])(gh[pousr]_\w|github_pat_|glpat-|xox[a-z]-|AKIA[0-9A-Z]{8}|AIza\w"
    r"|eyJ[\w-]+\.|sk[-_]\w|tl_(key|worker)_|-----BEGIN)",
    re.IGNORECASE,
)
_LONG_TOKEN = re.compile(r"(?=[^ ]*[a-z])(?=[^ ]*[A-Z])(?=[^ ]*[0-9])[A-Za-z0-9+/_=-]{32,}")
_OF_THE_CONNECTION = frozenset({"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect"})
_USE_AUTH = "name the secret in /request/auth: a declaration never holds a secret itself"


class SecretAuth(Value):
    """How a request says who asks. `secret`: the name of a secret, which only the process that calls out can read."""

    secret: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    kind: Literal["bearer", "basic", "header"] = "bearer"
    header: HeaderName | None = None
    """Of the kind `header`: its name."""
    user: Annotated[str, StringConstraints(max_length=200, pattern=r"^[\x20-\x39\x3b-\x7e]*$")] | None = None
    """Of the kind `basic`: the user. The secret is the password."""


class HttpRequest(Value):
    method: Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    url: Annotated[Template, StringConstraints(min_length=1)]
    headers: dict[HeaderName, Template] = Field(default={}, max_length=MOST_FIELDS)
    query: dict[Annotated[str, StringConstraints(min_length=1, max_length=200)], Template] = Field(
        default={}, max_length=MOST_FIELDS
    )
    body: Json = None
    """A JSON value. A text `{{name}}` alone stands for the argument itself, whatever its type."""
    auth: SecretAuth | None = None
    pick: Annotated[str, StringConstraints(max_length=1_000, pattern=r"^(/[^\x00]*)?$")] = ""
    """JSON Pointer to the part of the answer that is the result. Empty: all of it."""
    max_bytes: int = Field(default=128 * 1024, ge=1, le=10 * 1024 * 1024)
    """Of the answer."""
    idempotency_header: HeaderName | None = None
    """The header in which the service takes a key that makes twice once."""


def faults_of(request: HttpRequest, parameters: Json) -> list[Fault]:
    """All that is wrong, with places inside the request. `parameters`: the JSON Schema, whose properties the braces may name."""
    return [
        *_faults_of_url(request.url),
        *_faults_of_headers(request.headers),
        *_faults_of_auth(request),
        *_credentials(request),
        *_faults_of_variables(request, parameters),
    ]


def _faults_of_url(url: str) -> Iterator[Fault]:
    fixed = _VARIABLE.sub("x", url)
    try:
        parts = urlsplit(fixed)
        host, _ = parts.hostname, parts.port
    except ValueError:
        yield "/url", "this is no URL"
        return
    if parts.scheme not in ("http", "https") or not host:
        yield "/url", "the URL must begin with https:// or http:// and a host"
    scheme, _, rest = url.partition("://")
    if "{" in scheme + re.split(r"[/?#]", rest, maxsplit=1)[0]:
        yield "/url", "scheme, host and port are fixed: no argument may choose where the request goes"
    if "@" in parts.netloc:
        yield "/url", f"a URL must not hold a user or a password; {_USE_AUTH}"
    if parts.fragment or url.endswith("#"):
        yield "/url", "a fragment (#) is never sent"
    if any(character.isspace() or character == "\\" for character in fixed) or not url.isascii():
        yield "/url", "a URL has neither spaces nor backslashes, and only ASCII: write other characters as %XX"


def _faults_of_headers(headers: Mapping[str, str]) -> Iterator[Fault]:
    names: set[str] = set()
    for name in headers:
        place = "/headers" + json_pointer((name,))
        if name.lower() in _OF_THE_CONNECTION:
            yield place, "this header belongs to the connection, and is set by the process that calls out"
        if name.lower() in names:
            yield place, "the header is given twice"
        names.add(name.lower())


def _faults_of_auth(request: HttpRequest) -> Iterator[Fault]:
    auth, taken = request.auth, _OF_THE_CONNECTION | {name.lower() for name in request.headers}
    if request.idempotency_header is not None and request.idempotency_header.lower() in taken:
        yield "/idempotency_header", "the header is taken"
    if auth is None:
        return
    if (auth.kind == "header") is (auth.header is None):
        yield "/auth/header", "the kind `header` names the header that takes the secret, and the others do not"
    elif auth.header is not None and auth.header.lower() in taken:
        yield "/auth/header", "the header is taken"
    if (auth.kind == "basic") is (auth.user is None):
        yield "/auth/user", "the kind `basic` names the user, whose password the secret is, and the others do not"


def _credentials(request: HttpRequest) -> Iterator[Fault]:
    for field, given in (("headers", request.headers), ("query", request.query)):
        for name, value in given.items():
            if _SECRET_NAME.search(name) or looks_secret(value):
                yield f"/{field}{json_pointer((name,))}", f"this looks like a credential; {_USE_AUTH}"
    for inner, field_name, value in _texts(request.body, ()):
        if (field_name is not None and _SECRET_NAME.search(field_name)) or looks_secret(value):
            yield f"/body{json_pointer(inner)}", f"this looks like a credential; {_USE_AUTH}"
    address, _, query = request.url.partition("?")
    pairs = [pair.partition("=") for pair in query.split("&")]
    if looks_secret(address.replace("/", " ")) or any(_SECRET_NAME.search(name) or looks_secret(value) for name, _, value in pairs):
        yield "/url", f"it has what looks like a credential; {_USE_AUTH}"


def looks_secret(text: str) -> bool:
    """Whether a text looks like a credential. What stands in braces is an argument's name."""
    fixed = _VARIABLE.sub(" ", text)
    return bool(_SECRET_VALUE.search(fixed) or _LONG_TOKEN.search(fixed))


def _faults_of_variables(request: HttpRequest, parameters: Json) -> Iterator[Fault]:
    known = parameters.get("properties") if isinstance(parameters, dict) else None
    known = known if isinstance(known, dict) else {}
    texts = [("/url", request.url)]
    texts += [(f"/headers{json_pointer((name,))}", value) for name, value in request.headers.items()]
    texts += [(f"/query{json_pointer((name,))}", value) for name, value in request.query.items()]
    texts += [(f"/body{json_pointer(place)}", value) for place, _, value in _texts(request.body, ())]
    for place, text in texts:
        for name in variables_of(text):
            found = _ARGUMENT.fullmatch(name)
            if found is None:
                yield place, "in double braces stands the name of an argument: letters, digits, `_` and `-`"
            elif found[1] not in known:
                yield place, f"there is no parameter {found[1]!r}"
        if re.search(r"\{\{|\}\}", _VARIABLE.sub("", text)):
            yield place, "double braces stand around the name of an argument, and nowhere else"
    if request.body is not None and request.method not in ("POST", "PUT", "PATCH"):
        yield "/body", f"a {request.method} request has no body"


def variables_of(template: str) -> list[str]:
    return [found[1] for found in _VARIABLE.finditer(template)]


def _texts(value: Json, place: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str | None, str]]:
    """Each text of a JSON value, with its place and the name of the field that has it."""
    if isinstance(value, str):
        yield place, place[-1] if place and isinstance(place[-1], str) else None, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _texts(inner, (*place, name))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _texts(inner, (*place, number))
