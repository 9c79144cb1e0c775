"""The part of `Client` that calls tools without a run."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote
from uuid import UUID

from uuid_utils.compat import uuid7

from tidelog.audit import reason_header
from tidelog.bodies import object_of
from tidelog.errors import TidelogAPIError, api_error
from tidelog.large import fill
from tidelog.models import Invocation, ResolvedInvocation, StartedCall
from tidelog.requests import Requests, parse
from tidelog.transport import json_of
from tidelog.values import to_json

LONGEST_WAIT_S = 60
"""Seconds that one request waits at most."""


class ToolCalls(Requests):
    """Calls of tools without a run. Use it as a part of `Client`."""

    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        wait_s: float | None = None,
        key: str | None = None,
        priority: Literal["high", "normal", "low"] = "normal",
        timeout_s: float | None = None,
        cache: bool = True,
        on_behalf_of: str | None = None,
        reason: str | None = None,
    ) -> StartedCall:
        """Call a tool by the effect ledger, without an agent and a run.

        Without `wait_s` the call goes on in the background: `wait_for_call` waits for its outcome. With it, `.invocation` is the
        call at its end, or as it is after so many seconds. A call that failed raises nothing: look at its `status`.
        `key`: a name for the call; the same key again is the same call. If not given, the client makes one, so that retries of this
        method are safe. `priority`: as of `start_run`. `timeout_s`: limit of one attempt, at most what the tool declares.
        `cache`: whether a result of before may answer, where the tool keeps results (`cached_from` of `.invocation`, which is then
        there at once). `reason`: for the audit trail. Arguments are converted like the input of `start_run`.

        Raises:
            NotFoundError: no such tool is registered (`unknown-tool`).
            InvalidRequestError: the arguments do not fit the tool's JSON Schema; `errors` has each fault with its place.
        """
        body = _body(arguments, None, priority, timeout_s, cache)
        headers = {"Idempotency-Key": key or str(uuid7()), **self._for(on_behalf_of), **reason_header(reason)}
        answer = await self._called(f"/v1/tools/{quote(name, safe='')}/calls", body, headers, wait_s)
        await self._fill([answer])
        started = parse(StartedCall, answer)
        if wait_s is not None and started.invocation is not None and not started.invocation.over and wait_s > LONGEST_WAIT_S:
            call = await self._over(started.invocation_id, wait_s - LONGEST_WAIT_S)
            started = started.model_copy(update={"invocation": call})
        return started

    async def call_tool_each(
        self,
        name: str,
        calls: Sequence[Mapping[str, Any]],
        *,
        wait_s: float | None = None,
        keys: Sequence[str] | None = None,
        priority: Literal["high", "normal", "low"] = "normal",
        timeout_s: float | None = None,
        cache: bool = True,
        on_behalf_of: str | None = None,
        reason: str | None = None,
    ) -> list[StartedCall | TidelogAPIError]:
        """Call a tool up to 100 times at once, with the arguments `calls`. In the same order: each call, or the error of one that
        was refused; nothing is raised for it. `wait_s`: at most 60. `keys`: a name for each call.
        """
        if keys is not None and len(keys) != len(calls):
            raise ValueError("give as many keys as calls")
        bodies = [_body(each, None if keys is None else keys[i], priority, timeout_s, cache) for i, each in enumerate(calls)]
        headers = {"Idempotency-Key": str(uuid7()), **self._for(on_behalf_of), **reason_header(reason)}
        path = f"/v1/tools/{quote(name, safe='')}/calls:batch"
        answers = [each for each in (await self._called(path, {"calls": bodies}, headers, wait_s)).get("calls", ())]
        await self._fill(answers)
        return [api_error(each["status"], each["problem"]) if each.get("problem") else parse(StartedCall, each) for each in answers]

    async def wait_for_call(self, invocation_id: UUID, timeout: float | None = None) -> Invocation:
        """Wait for the outcome of a tool call, whatever it is, also that the call is ambiguous.

        Raises:
            TimeoutError: the call goes on after `timeout` seconds.
        """
        call = await self._over(invocation_id, timeout)
        if not call.over:
            raise TimeoutError(f"the call {invocation_id} is {call.status} after {timeout} seconds")
        return call

    async def cancel_call(
        self, invocation_id: UUID, reason: str | None = None, *, on_behalf_of: str | None = None
    ) -> ResolvedInvocation:
        """Cancel a call that belongs to no run. Where its tool runs, the outcome is still recorded.

        Raises:
            ConflictError: the call is of a run (`invalid-state`): cancel the run.
        """
        body = {} if reason is None else {"reason": reason}
        headers = {"Idempotency-Key": str(uuid7()), **self._for(on_behalf_of)}
        response = await self._request("POST", f"/v1/invocations/{invocation_id}/cancel", body=body, headers=headers)
        return parse(ResolvedInvocation, json_of(response))

    async def _called(self, path: str, body: dict[str, Any], headers: dict[str, Any], wait_s: float | None) -> dict[str, Any]:
        asked = min(int(wait_s), LONGEST_WAIT_S) if wait_s is not None else 0
        if asked > 0:
            headers["Prefer"] = f"wait={asked}"
        answer = json_of(await self._request("POST", path, body=body, headers=headers, read_timeout_s=30 + asked))
        return answer if isinstance(answer, dict) else {}

    async def _over(self, invocation_id: UUID, seconds: float | None) -> Invocation:
        """The call at its end, or after the time. None: without an end."""
        deadline = None if seconds is None else time.monotonic() + seconds
        path = f"/v1/invocations/{invocation_id}"
        while True:
            left = LONGEST_WAIT_S if deadline is None else min(LONGEST_WAIT_S, max(0, round(deadline - time.monotonic())))
            headers = {"Accept": "application/json", **({"Prefer": f"wait={left}"} if left else {})}
            answer = json_of(await self._request("GET", path, headers=headers, read_timeout_s=30 + left))
            call = parse(Invocation, answer)
            if call.over or (deadline is not None and time.monotonic() >= deadline):
                await self._fill([{"invocation": answer}])
                return parse(Invocation, answer)
            if not left:
                await asyncio.sleep(0.1)

    async def _fill(self, answers: Sequence[dict[str, Any]]) -> None:
        await fill([each["invocation"] for each in answers if isinstance(each.get("invocation"), dict)], self._get)


def _body(
    arguments: Mapping[str, Any] | None, key: str | None, priority: str, timeout_s: float | None, cache: bool
) -> dict[str, Any]:
    body: dict[str, Any] = {"arguments": object_of(arguments or {}, "the arguments")}
    if key is not None:
        body["key"] = to_json(key, "the key")
    if priority != "normal":
        body["priority"] = priority
    if not cache:
        body["cache"] = False
    if timeout_s is not None:
        body["timeout_s"] = timeout_s
    return body
