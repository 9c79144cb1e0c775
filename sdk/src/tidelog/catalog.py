"""The part of `Client` for tools: what they declare, in each version, and what changes them."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from uuid_utils.compat import uuid7

from tidelog.audit import reason_header
from tidelog.bodies import object_of
from tidelog.models import BreakerInfo, ToolInfo, ToolVersion, Validation
from tidelog.requests import Requests, parse
from tidelog.transport import json_of
from tidelog.values import to_json


class Catalog(Requests):
    """Tools. Use it as a part of `Client`."""

    async def tools(self) -> list[ToolInfo]:
        """Tools that agents can call."""
        return [tool async for tool in self._all(ToolInfo, "/v1/tools")]

    async def tool(self, name: str) -> ToolInfo:
        """Raises NotFoundError."""
        return parse(ToolInfo, await self._get(_path(name), {}))

    async def tool_versions(self, name: str) -> list[ToolVersion]:
        """What each version of a tool declares, the one that was registered last first."""
        return [version async for version in self._all(ToolVersion, _path(name, "/versions"))]

    async def tool_version(self, name: str, version: str) -> ToolVersion:
        return parse(ToolVersion, await self._get(_path(name, f"/versions/{quote(version, safe='')}"), {}))

    async def define_tool(self, name: str, declaration: Mapping[str, Any], *, reason: str | None = None) -> None:
        """Define a tool that is data: `kind` `http` with a `request`, or `builtin` with the name of a part of Tidelog.

        Raises:
            InvalidRequestError: `errors` has all faults of the declaration, each with the JSON Pointer of its place.
            ConflictError: there is such a tool already (`already-exists`).
        """
        body = {"name": name, **object_of(declaration, "the declaration")}
        await self._change("POST", "/v1/tools", body, reason)

    async def add_tool_version(self, name: str, declaration: Mapping[str, Any], *, reason: str | None = None) -> None:
        """Declare a new version of a tool that is data. It is the current one from then on.

        Raises:
            ConflictError: the version is known with another declaration (`version-taken`).
        """
        await self._change("POST", _path(name, "/versions"), object_of(declaration, "the declaration"), reason)

    async def deprecate_tool(
        self, name: str, *, replaced_by: str | None = None, note: str | None = None, reason: str | None = None
    ) -> None:
        """A deprecated tool can still be called. Each run that calls it gets a warning in its log."""
        body = {"deprecated": True, "replaced_by": replaced_by, "note": note}
        await self._change("PATCH", _path(name), {name: value for name, value in body.items() if value is not None}, reason)

    async def reinstate_tool(self, name: str, *, reason: str | None = None) -> None:
        """The tool is not deprecated any more."""
        await self._change("PATCH", _path(name), {"deprecated": False}, reason)

    async def remove_tool(self, name: str, *, reason: str | None = None) -> None:
        """Remove a tool: it cannot be called any more. Again: nothing happens.

        Raises:
            ConflictError: workers offer the tool (`tool-in-use`).
        """
        await self._request("DELETE", _path(name), headers={**self._for(None), **reason_header(reason)})

    async def breakers(self) -> list[BreakerInfo]:
        """Breakers that have ever changed. A tool that is not among them has a closed one."""
        return [breaker async for breaker in self._all(BreakerInfo, "/v1/breakers")]

    async def breaker(self, name: str) -> BreakerInfo:
        """The breaker of a tool, with its policy and what was counted. Raises NotFoundError."""
        return parse(BreakerInfo, await self._get(_path(name, "/breaker"), {}))

    async def force_breaker(self, name: str, state: str, *, reason: str) -> None:
        """Hold a breaker `open` (nobody calls the tool) or `closed`, or let it follow the outcomes of calls again (`auto`)."""
        headers = {"Idempotency-Key": str(uuid7()), **self._for(None)}
        await self._request("POST", _path(name, "/breaker"), body={"state": state, "reason": reason}, headers=headers)

    async def validate_arguments(self, name: str, arguments: Mapping[str, Any]) -> Validation:
        """What is wrong with the arguments of a call, without the call."""
        return await self._validated(name, {"arguments": to_json(dict(arguments), "the arguments", max_bytes=None)})

    async def validate_declaration(self, name: str, declaration: Mapping[str, Any]) -> Validation:
        """What is wrong with a declaration, without any effect."""
        return await self._validated(name, {"declaration": object_of(declaration, "the declaration")})

    async def _validated(self, name: str, body: Mapping[str, Any]) -> Validation:
        return parse(Validation, json_of(await self._request("POST", _path(name, "/validate"), body=dict(body))))

    async def _change(self, method: str, path: str, body: Mapping[str, Any], reason: str | None) -> None:
        headers = {"Idempotency-Key": str(uuid7()), **self._for(None), **reason_header(reason)}
        await self._request(method, path, body=dict(body), headers=headers)


def _path(name: str, rest: str = "") -> str:
    return f"/v1/tools/{quote(name, safe='')}{rest}"
