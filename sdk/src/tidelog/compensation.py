"""Taking back the effects of a run, as a part of `Client`; what the server says of it."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal
from uuid import UUID

from tidelog.models import Model, StartedRun
from tidelog.requests import parse
from tidelog.steering import SteeringClient

OnBusy = Literal["queue", "reject", "replace"]
Compensate = Literal["on_failure", "on_cancel", "on_failure_or_cancel", "never"]
"""When the effects of a run are taken back."""


class Effect(Model):
    """A call whose effect can be taken back.

    `number`: the highest is taken back first. `status`: "recorded", "running", "compensated", "failed" or "skipped". `unknown`:
    nobody knows whether the call had its effect. `compensation_id`: the last call of the tool `compensated_by`, of `round` calls.
    `error`: why the effect was not taken back. `reason`, `by`: who skipped it, and why.
    """

    number: int
    invocation_id: UUID
    key: str
    tool: str
    status: str
    unknown: bool = False
    compensated_by: str
    compensation_id: UUID | None = None
    round: int = 0
    error: dict[str, Any] | None = None
    reason: str | None = None
    by: str | None = None


class AwaitedCall(Model):
    invocation_id: UUID
    status: str


class RunCompensation(Model):
    """Taking back the effects of a run.

    `status`: "none", "waiting" for calls of the run, "running", "partial" (not every effect was taken back, and nothing goes on by
    itself) or "compensated". `effects`: how many can be taken back; `compensated`, `failed`, `skipped`: how many of them.
    `stopped_on`: number of the effect at which it stands. `needs_person`: whether it goes on only with a person's word. `data`: the
    effects, the one that is taken back first in front.
    """

    run_id: UUID
    status: str
    because: str | None = None
    reason: str | None = None
    by: str | None = None
    effects: int = 0
    compensated: int = 0
    failed: int = 0
    skipped: int = 0
    stopped_on: int | None = None
    needs_person: bool = False
    waits_for: tuple[AwaitedCall, ...] = ()
    version: int = 0
    data: tuple[Effect, ...] = ()


class CompensationClient(SteeringClient):
    """The methods of `Client` for taking effects back."""

    async def compensation(self, run_id: UUID) -> RunCompensation:
        """What became of taking back the effects of a run, with all its effects."""
        path, wanted = f"/v1/runs/{run_id}/compensation", {"limit": "1000"}
        answer: Any = await self._get(path, wanted)
        whole, page = answer, answer
        while isinstance(page, Mapping) and page.get("next_cursor"):
            page = await self._get(path, {**wanted, "cursor": page["next_cursor"]})
            whole["data"] += page["data"]
        return parse(RunCompensation, whole)

    async def compensate_run(self, run_id: UUID, reason: str, *, on_behalf_of: str | None = None) -> StartedRun:
        """Take back the effects of a run that has ended, also of a completed one, the last one first."""
        return await self._said(f"/v1/runs/{run_id}/compensation", {"reason": reason}, on_behalf_of)

    async def resume_compensation(
        self, run_id: UUID, reason: str, *, skip: Sequence[UUID] = (), go_on: bool = False, on_behalf_of: str | None = None
    ) -> StartedRun:
        """Say how a compensation goes on that waits for a person: what failed is tried again.

        `skip`: ids of calls whose effects are left as they are, or whose outcome is not waited for. `go_on`: what failed is left,
        and the effects before it are taken back.
        """
        body = {"reason": reason, "skip": [str(call) for call in skip], "go_on": go_on}
        return await self._said(f"/v1/runs/{run_id}/compensation/resume", body, on_behalf_of)
