"""Carries out a definition: arguments into a request, the answer into a result."""

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from pydantic import JsonValue

from tidelog.builtin import placeholders, pointers
from tidelog.builtin.definitions import Auth, HttpTool
from tidelog.errors import DefinitionError, PermanentError
from tidelog.guard.client import Credential, GuardedClient, checked_headers
from tidelog.guard.secrets import Secrets
from tidelog.naming import TOOL_NAME, check_capabilities, check_json, check_name, check_version
from tidelog.tools import InvalidArgumentsError, Tool, ToolContext, ToolDefinition
from tidelog.values import to_json


class DefinedTool(Tool[..., Any]):
    """A tool of a definition. Its schema is that of the definition; its function is the request."""

    def __init__(self, definition: HttpTool, client: GuardedClient, secrets: Secrets) -> None:
        self.definition = definition
        super().__init__(
            _function(definition, client, secrets),
            name=definition.name,
            capabilities=definition.capabilities,
            idempotent=definition.is_idempotent,
            timeout_s=definition.timeout_s,
            max_attempts=definition.max_attempts,
            version=definition.version,
        )

    def describe(self) -> ToolDefinition:
        what = f"tool {self.name!r:.120}"
        described = ToolDefinition(
            name=check_name(self.name, TOOL_NAME, what),
            version=check_version(self.version, what),
            description=self.definition.description,
            capabilities=check_capabilities(self.capabilities, what),
            parameters=self.definition.parameters,
            idempotent=self.idempotent,
            timeout_s=self.timeout_s,
            max_attempts=self.max_attempts,
        )
        check_json(described, what)
        return described

    def validate(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The server has checked them against the schema; what is left are names that nobody declared, in a schema that lets them
        pass, and arguments that must be there."""
        parameters = self.definition.parameters
        given = {name: value for name, value in arguments.items() if name in parameters["properties"]}
        missing = [name for name in parameters.get("required", ()) if name not in given]
        if missing:
            raise InvalidArgumentsError(f"tool {self.name!r} refuses its arguments: {missing[0]}: is missing")
        for name, schema in parameters["properties"].items():
            if name not in given and isinstance(schema, dict) and "default" in schema:
                given[name] = schema["default"]
        return given

    async def invoke(self, arguments: Mapping[str, Any], context: ToolContext) -> JsonValue:
        result = await self.function(self.validate(arguments), context.idempotency_key)
        return to_json(result, f"the result of tool {self.name!r}")


def http_tools(definitions: list[HttpTool], client: GuardedClient, secrets: Secrets) -> list[DefinedTool]:
    """Raises DefinitionError for one that the server could not take."""
    tools = [DefinedTool(definition, client, secrets) for definition in definitions]
    for tool in tools:
        tool.describe()
        if (auth := tool.definition.auth) is not None:
            try:
                secrets.get(auth.secret)
            except PermanentError as error:
                raise DefinitionError("invalid-metadata", f"tool {tool.name!r}: {error}") from None
    return tools


def _function(definition: HttpTool, client: GuardedClient, secrets: Secrets) -> Callable[..., Any]:
    async def request(arguments: dict[str, Any], key: str) -> JsonValue:
        body = None
        headers = {name.lower(): text for name, text in _filled(definition.headers, arguments).items()}
        if definition.body is not None:
            filled = placeholders.fill_body(definition.body, arguments)
            body = json.dumps(filled, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
            headers = {"content-type": "application/json", **headers}
        if definition.idempotency_header is not None:
            headers[definition.idempotency_header] = key
        answer = await client.request(
            definition.method,
            url_of(definition, arguments),
            headers=checked_headers(headers),
            body=body,
            credential=None if definition.auth is None else _credential(definition.auth, secrets),
            timeout_s=definition.timeout_s,
            max_bytes=definition.max_bytes,
            repeatable=definition.is_idempotent,
        )
        if not definition.pick:
            return answer.value
        try:
            return pointers.value_at(answer.json, definition.pick)
        except pointers.NotThereError as error:
            raise PermanentError(f"the answer has not the part that the definition picks: {error}") from None

    return request


def url_of(definition: HttpTool, arguments: Mapping[str, Any]) -> str:
    """The URL of a request. An argument that was not given leaves its part of the query out. Raises PlaceholderError."""
    url = placeholders.fill_url(definition.url, arguments)
    path = url.partition("://")[2].partition("?")[0]
    if any(segment in (".", "..") for segment in path.split("/")[1:]):
        raise placeholders.PlaceholderError("the path of the URL has a step to the folder above")
    query = urlencode(_filled(definition.query, arguments))
    return f"{url}{'&' if '?' in url else '?'}{query}" if query else url


def _filled(texts: Mapping[str, str], arguments: Mapping[str, Any]) -> dict[str, str]:
    """The texts with their arguments; without those that name an argument that was not given."""
    found = {}
    for name, text in texts.items():
        values = [placeholders.lookup(each, arguments) for each in placeholders.names_in(text)]
        if not any(value is placeholders.MISSING or value is None for value in values):
            found[name] = placeholders.fill(text, arguments)
    return found


def _credential(auth: Auth, secrets: Secrets) -> Credential:
    """Raises SecretMissingError."""
    secret = secrets.get(auth.secret)
    if auth.kind == "header":
        return Credential(auth.header or "", secret.value, secret)
    if auth.kind == "basic":
        pair = base64.b64encode(f"{auth.user}:{secret.value}".encode()).decode()
        return Credential("Authorization", f"Basic {pair}", secret)
    return Credential("Authorization", f"Bearer {secret.value}", secret)
