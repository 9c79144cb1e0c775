"""Tools of the server's catalogue: a call comes with the definition of the version that was called, and is carried out by it."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from tidelog.builtin.definitions import HttpTool
from tidelog.builtin.http_tools import DefinedTool
from tidelog.errors import PermanentError
from tidelog.guard.client import MAX_ANSWER_BYTES, GuardedClient
from tidelog.guard.secrets import Secrets
from tidelog.tools import Tool

MOST_KEPT = 1_000
LONGEST_S = 600.0
"""Of one request. The server's limit of the call counts besides."""


class UnusableDefinitionError(PermanentError):
    """The worker cannot carry out a definition: it is of a newer release, or of another kind of worker."""


class DefinedTools:
    def __init__(self, client: GuardedClient, secrets: Secrets, built_in: Iterable[Tool[..., Any]]) -> None:
        self._client = client
        self._secrets = secrets
        self._built_in = {tool.name: tool for tool in built_in}
        self._kept: dict[tuple[str, str, bool], tuple[Mapping[str, Any], Tool[..., Any]]] = {}
        """By name, version and whether the tool is idempotent."""

    def tool(self, name: str, definition: Mapping[str, Any], *, idempotent: bool, timeout_s: float | None) -> Tool[..., Any]:
        """The tool that carries out a call. Raises UnusableDefinitionError."""
        place = (name, str(definition.get("version")), idempotent)
        kept = self._kept.get(place)
        if kept is not None and kept[0] == definition:
            return kept[1]
        made = self._made(name, definition, idempotent, timeout_s)
        if len(self._kept) >= MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[place] = (definition, made)
        return made

    def _made(self, name: str, definition: Mapping[str, Any], idempotent: bool, timeout_s: float | None) -> Tool[..., Any]:
        what = f"version {str(definition.get('version'))!r:.120} of the tool {name!r:.120}"
        kind = definition.get("kind")
        if kind == "builtin":
            found = self._built_in.get(str(definition.get("builtin")))
            if found is None:
                there = ", ".join(sorted(self._built_in))
                raise UnusableDefinitionError(f"{what}: there is no built-in {definition.get('builtin')!r:.120}; there are {there}")
            return found
        if kind != "http" or not isinstance(definition.get("request"), Mapping):
            raise UnusableDefinitionError(f"{what} is of the kind {str(kind)!r:.50}, which this worker does not carry out")
        try:
            return DefinedTool(_http_tool(name, definition, idempotent, timeout_s), self._client, self._secrets)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            place = "/".join(map(str, first["loc"]))
            raise UnusableDefinitionError(f"{what}: {place and f'{place}: '}{first['msg']}") from None


def _http_tool(name: str, definition: Mapping[str, Any], idempotent: bool, timeout_s: float | None) -> HttpTool:
    request, parameters = dict(definition["request"]), definition.get("parameters")
    schema = {"type": "object", "properties": {}, **(parameters if isinstance(parameters, Mapping) else {})}
    if isinstance(request.get("max_bytes"), int):
        request["max_bytes"] = min(request["max_bytes"], MAX_ANSWER_BYTES)
    return HttpTool.model_validate({
        **request, "name": name, "version": str(definition.get("version")), "parameters": schema,
        "timeout_s": min(timeout_s or LONGEST_S, LONGEST_S), "idempotent": True if idempotent else None,
    })  # fmt: skip
