"""Steering a run that was started, as a part of `Client`."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote
from uuid import UUID

from uuid_utils.compat import uuid7

from tidelog.models import SentSignal, StartedRun
from tidelog.requests import Requests, parse
from tidelog.run_models import RunWait, RunWaits
from tidelog.transport import json_of
from tidelog.values import to_json

SAME: Any = object()
"""As the run has it."""


class SteeringClient(Requests):
    """The methods of `Client` for stopping runs and letting them go on."""

    async def cancel_run(
        self, run_id: UUID, reason: str | None = None, *, compensate: bool | None = None, on_behalf_of: str | None = None
    ) -> StartedRun:
        """Cancel a run: running work is stopped, waiting work is dropped.

        `compensate`: whether the run's effects are taken back. None: as its start said.
        """
        body: dict[str, Any] = {} if reason is None else {"reason": reason}
        if compensate is not None:
            body["compensate"] = compensate
        return await self._said(f"/v1/runs/{run_id}/cancel", body, on_behalf_of)

    async def pause_run(self, run_id: UUID, reason: str | None = None, *, on_behalf_of: str | None = None) -> StartedRun:
        """Pause a run: nothing begins in it, nor in its child runs, until it is resumed.

        Agents are taken from their workers, and go on from their journals later. A call of a tool that has begun ends, and its
        outcome is recorded. A run that is paused already stays so.
        """
        return await self._said(f"/v1/runs/{run_id}/pause", {} if reason is None else {"reason": reason}, on_behalf_of)

    async def resume_run(self, run_id: UUID, reason: str | None = None, *, on_behalf_of: str | None = None) -> StartedRun:
        """Let a paused run go on where it was. A run that is not paused goes on anyway."""
        return await self._said(f"/v1/runs/{run_id}/resume", {} if reason is None else {"reason": reason}, on_behalf_of)

    async def change_priority(
        self,
        run_id: UUID,
        priority: Literal["high", "normal", "low"],
        reason: str | None = None,
        *,
        on_behalf_of: str | None = None,
    ) -> StartedRun:
        """Give a run another priority: what it dispatches from now on has it, and what waits for a worker. So do its child runs.

        What a worker has goes on there. A step with a priority of its own keeps it.
        """
        body = {"priority": priority} if reason is None else {"priority": priority, "reason": reason}
        return await self._said(f"/v1/runs/{run_id}/priority", body, on_behalf_of)

    async def skip_step(self, run_id: UUID, step: str, reason: str, *, on_behalf_of: str | None = None) -> StartedRun:
        """Skip a step that has not ended, or an item of a list (`reviews.3`). What is under way is cancelled.

        The steps after it see a skipped step, as where a condition was false. `reason`: recorded.
        """
        return await self._said(f"/v1/runs/{run_id}/steps/{quote(step, safe='')}/skip", {"reason": reason}, on_behalf_of)

    async def force_step(
        self, run_id: UUID, step: str, reason: str, *, result: Any = None, error: Mapping[str, Any] | None = None,
        on_behalf_of: str | None = None,
    ) -> StartedRun:  # fmt: skip
        """Say how a step ends that has not ended, or a part of one. What is under way is cancelled.

        `error`: `{type, message}`; the plan says what follows. None: it completes with the result. `reason`: recorded.
        """
        outcome: dict[str, Any] = {"result": result} if error is None else {"error": dict(error)}
        return await self._said(
            f"/v1/runs/{run_id}/steps/{quote(step, safe='')}/force", {**outcome, "reason": reason}, on_behalf_of
        )

    async def dispatch_step(
        self, run_id: UUID, step: str, reason: str, *, invocation_id: UUID | None = None, on_behalf_of: str | None = None
    ) -> StartedRun:
        """Dispatch the agent of a step again, or one of its calls: another worker gets it, and a retry does not wait.

        `reason`: recorded.
        """
        body: dict[str, Any] = {"reason": reason} if invocation_id is None else {"reason": reason, "invocation_id": invocation_id}
        return await self._said(f"/v1/runs/{run_id}/steps/{quote(step, safe='')}/dispatch", body, on_behalf_of)

    async def run_waits(self, run_id: UUID) -> tuple[RunWait, ...]:
        """What each open step of a run waits for, and why. Empty: the run has ended."""
        return parse(RunWaits, await self._get(f"/v1/runs/{run_id}/waits", {})).data

    async def retry_run(
        self,
        run_id: UUID,
        reason: str,
        *,
        steps: Sequence[str] = (),
        versions: Mapping[str, str] | None = None,
        fresh: bool = False,
        deadline_s: float | None = None,
        on_behalf_of: str | None = None,
    ) -> StartedRun:
        """Run again what failed in a run. Finished steps keep their results and effects, and agents go on where they were.

        The run may have failed, been cancelled, or ended degraded; or it still goes on.

        `steps`: failed steps; none: all that failed. `versions`: step → version of its agent. `fresh`: the agents begin from
        nothing, so that what they did before they failed is done again. `deadline_s`: seconds by which the run must have ended.
        """
        body: dict[str, Any] = {"reason": reason}
        if steps:
            body["steps"] = list(steps)
        if versions:
            body["versions"] = dict(versions)
        if fresh:
            body["fresh"] = True
        if deadline_s is not None:
            body["deadline_s"] = deadline_s
        return await self._said(f"/v1/runs/{run_id}/retry", body, on_behalf_of)

    async def set_deadline(
        self, run_id: UUID, deadline_s: float | None, reason: str, *, on_behalf_of: str | None = None
    ) -> StartedRun:
        """Give a run so many seconds from now, more or less than it had. None: it takes the time that it takes."""
        return await self._said(f"/v1/runs/{run_id}/deadline", {"deadline_s": deadline_s, "reason": reason}, on_behalf_of)

    async def signal_run(
        self,
        run_id: UUID,
        name: str,
        payload: Any = None,
        *,
        step: str | None = None,
        id: str | None = None,
        reason: str | None = None,
        on_behalf_of: str | None = None,
    ) -> SentSignal:
        """Send a signal to the agents of a run. The first that waits for this name (`ctx.signal`) receives it, now or later.

        `step`: only the agent of this step receives it. `id`: your name for the signal: sent twice with one name, it counts once.

        Raises:
            ConflictError: the run or the step has ended, or keeps too many signals that nobody has received.
        """
        body: dict[str, Any] = {"name": name, "payload": to_json(payload, "the payload")}
        body |= {what: given for what, given in (("step", step), ("id", id), ("reason", reason)) if given is not None}
        headers = {"Idempotency-Key": str(uuid7()), **self._for(on_behalf_of)}
        answer = await self._request("POST", f"/v1/runs/{run_id}/signals", body=body, headers=headers)
        sent = parse(SentSignal, json_of(answer))
        self._position = max(self._position, sent.position)
        return sent

    async def fork_run(
        self,
        run_id: UUID,
        *,
        step: str | None = None,
        before: str | None = None,
        position: int | None = None,
        input: Any = SAME,
        plan: Mapping[str, Any] | None = None,
        agents: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        reason: str | None = None,
        on_behalf_of: str | None = None,
    ) -> StartedRun:
        """Fork a run: a new run begins with what the run was, and nothing that had ended runs again.

        `step`: goes on from what it had recorded; what comes after it runs again. `before`: as `step`, with nothing recorded.
        `position`: the run as it was then. Without any of them the steps that failed go on from what they had recorded.
        `input`, `plan`, `metadata`: instead of the run's. `agents`: step → another agent, or a version of it (`"critic@3"`).
        """
        at = {name: value for name, value in (("step", step), ("before", before), ("position", position)) if value is not None}
        said = {"at": at or None, "plan": plan, "agents": agents, "metadata": metadata, "reason": reason}
        body: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
        if input is not SAME:
            body["input"] = to_json(input, "the input")
        return await self._said(f"/v1/runs/{run_id}/fork", body, on_behalf_of)

    async def _said(self, path: str, body: Mapping[str, Any], on_behalf_of: str | None) -> StartedRun:
        """Gives a command to a run."""
        headers = {"Idempotency-Key": str(uuid7()), **self._for(on_behalf_of)}
        return self._noted(parse(StartedRun, json_of(await self._request("POST", path, body=body, headers=headers))))

    def _noted(self, accepted: StartedRun) -> StartedRun:
        """Later reads of this client see the command."""
        self._position = max(self._position, accepted.position)
        return accepted
