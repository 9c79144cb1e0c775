"""An HTTP tool as data, and files of such definitions."""

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import httpx2
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from tidelog.builtin import placeholders, pointers
from tidelog.errors import PermanentError
from tidelog.guard.client import MAX_ANSWER_BYTES, METHODS, REPEATABLE, checked_headers
from tidelog.guard.secrets import NAME as SECRET_NAME

MAX_FILE = 1024 * 1024
SUFFIXES = (".json", ".toml")

SecretName = Annotated[str, Field(pattern=f"^{SECRET_NAME.pattern}$")]


class Auth(BaseModel):
    """Which secret of the worker goes with each request, and how. The definition has the name, never the secret."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    secret: SecretName
    kind: Literal["bearer", "basic", "header"] = "bearer"
    header: str | None = None
    """Of the kind `header`: its name."""
    user: str | None = Field(default=None, max_length=200, pattern=r"^[\x20-\x39\x3b-\x7e]*$")
    """Of the kind `basic`: the user. The secret is the password."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.kind == "header") != (self.header is not None):
            raise ValueError("`header` is the name of the header, for the kind `header` only")
        if (self.kind == "basic") != (self.user is not None):
            raise ValueError("`user` is for the kind `basic` only, which needs it")
        if self.header is not None:
            _headers_of({self.header: ""})
        return self


class HttpTool(BaseModel):
    """A tool that is one HTTP request. `{{name}}` in `url`, `query`, `headers` and `body` is the argument of that name."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    version: str = "1"
    description: str = Field(default="", max_length=4_000)
    capabilities: tuple[str, ...] = ()
    method: str = "GET"
    url: str = Field(max_length=4_000)
    """Scheme, host and port are as they stand: an argument goes into the path or the query."""
    query: dict[str, str] = {}
    headers: dict[str, str] = {}
    body: JsonValue = None
    """Of POST, PUT and PATCH: sent as JSON. A text that is one placeholder becomes the argument itself."""
    parameters: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
    """JSON Schema of the arguments. The server checks them before the call is recorded."""
    auth: Auth | None = None
    pick: str = ""
    """JSON Pointer to the part of the answer that is the result. Empty: all of it."""
    timeout_s: float = Field(default=30.0, gt=0, le=600)
    max_bytes: int = Field(default=128 * 1024, ge=1, le=MAX_ANSWER_BYTES)
    max_attempts: int = Field(default=3, ge=1, le=20)
    idempotent: bool | None = None
    """None: as the method promises (GET, HEAD, OPTIONS, PUT, DELETE)."""
    idempotency_header: str | None = None
    """The header in which the service takes a key that makes twice once, such as `Idempotency-Key`."""

    @property
    def is_idempotent(self) -> bool:
        if self.idempotent is not None:
            return self.idempotent
        return self.method in REPEATABLE or self.idempotency_header is not None

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.method not in METHODS:
            raise ValueError(f"method: one of {', '.join(sorted(METHODS))}")
        if self.body is not None and self.method not in ("POST", "PUT", "PATCH"):
            raise ValueError(f"body: {self.method} has none")
        for what, text in self._texts():
            placeholders.check(text, what)
        self._check_url()
        _headers_of(self.headers | ({self.idempotency_header: ""} if self.idempotency_header else {}))
        pointers.parts_of(self.pick)
        known = self.parameters.get("properties")
        if self.parameters.get("type") != "object" or not isinstance(known, dict):
            raise ValueError('parameters: a JSON Schema with "type": "object" and "properties"')
        if "key" in known:
            raise ValueError("parameters: `key` is taken by ctx.tool(name, key=...); rename the parameter")
        used = {name.partition(".")[0] for _, text in self._texts() for name in placeholders.names_in(text)}
        if unknown := sorted(used - set(known)):
            raise ValueError(f"the placeholder {unknown[0]!r} is no parameter: there are {', '.join(sorted(known)) or 'none'}")
        return self

    def _texts(self) -> list[tuple[str, str]]:
        found = [("url", self.url), *((f"query {name}", text) for name, text in self.query.items())]
        found += [(f"header {name}", text) for name, text in self.headers.items()]
        return [*found, *(("body", text) for text in placeholders.texts_in(self.body))]

    def _check_url(self) -> None:
        scheme, _, rest = self.url.partition("://")
        authority = rest.split("/", 1)[0].split("?", 1)[0].split("#", 1)[0].split("\\", 1)[0]
        if scheme not in ("http", "https") or not authority:
            raise ValueError("url: http://HOST/… or https://HOST/…")
        if "{" in authority or "@" in authority:
            raise ValueError("url: scheme, host and port are fixed, without placeholders, user and password")
        try:
            httpx2.URL(f"{scheme}://{authority}/").raw_host.decode("ascii")
        except (httpx2.InvalidURL, ValueError) as error:
            raise ValueError(f"url: {error}") from None


class DefinitionsError(ValueError):
    """A file of definitions that cannot be used. The text names the file, the tool and the field."""


def read_definitions(path: Path) -> list[HttpTool]:
    """The tools of a file: `{"tools": [{…}]}` in JSON, or `[[tools]]` in TOML. Raises DefinitionsError."""
    document = _document(path)
    listed = document.get("tools")
    if not isinstance(listed, list) or set(document) != {"tools"}:
        raise DefinitionsError(f'{path}: one field, "tools", with a list of definitions')
    found: list[HttpTool] = []
    for number, each in enumerate(listed):
        name = str(each.get("name", "")) if isinstance(each, dict) else ""
        try:
            found.append(HttpTool.model_validate(each))
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            place = "/".join(map(str, first["loc"]))
            told = f"{place}: {first['msg']}" if place else first["msg"].removeprefix("Value error, ")
            raise DefinitionsError(f"{path}: tool {number + 1} {name!r:.60}: {told}") from None
    names = [tool.name for tool in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DefinitionsError(f"{path}: two tools have the name {twice!r}")
    return found


def _document(path: Path) -> dict[str, Any]:
    if path.suffix in (".yaml", ".yml"):
        raise DefinitionsError(f"{path}: YAML is not read here; write the definitions in JSON or TOML")
    if path.suffix not in SUFFIXES:
        raise DefinitionsError(f"{path}: the name must end in {' or '.join(SUFFIXES)}")
    try:
        if path.stat().st_size > MAX_FILE:
            raise DefinitionsError(f"{path}: over {MAX_FILE:,} bytes")
        text = path.read_text("utf-8")
        document = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise DefinitionsError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # also of UTF-8
        raise DefinitionsError(f"{path}: cannot be read: {error}") from None
    if not isinstance(document, dict):
        raise DefinitionsError(f"{path}: an object with the field tools")
    return document


def _headers_of(headers: dict[str, str]) -> None:
    """Raises ValueError for a header that cannot be sent. A placeholder counts as text."""
    try:
        checked_headers(dict.fromkeys(headers, "x"))
    except PermanentError as error:
        raise ValueError(str(error)) from None
