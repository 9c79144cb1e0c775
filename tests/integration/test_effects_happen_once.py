"""Wherever workers vanish, the effect of a call that must not be repeated happens once, and no call is lost.

Examples come from hypothesis. The store, the queue, the timers and the sessions are the real ones; the worker is played, and so is
the world that has the effects.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from domain import invocations
from domain.failures import Retry
from domain.tenants import DEFAULT_TENANT_ID
from tests.integration.played_worker import Claim, PlayedWorker
from tests.integration.system_kit import System, eventually

IN_THE_TOOL = (
    "succeeds", "vanishes before", "vanishes after", "vanishes after", "vanishes after", "fails", "fails for now",
    "is stopped before", "is stopped after",
    "vanishes and goes on", "is cancelled and vanishes", "is cancelled and succeeds", "never arrives",
)  # fmt: skip
IN_RECONCILE = ("tells the truth", "does not know", "vanishes", "fails for now", "fails", "lies", "first worker reports")
A_PERSON = ("says nothing", "says it happened", "says it did not happen", "says it failed", "first worker reports")

Moves = tuple[list[str], list[str], list[str]]
"""Of the tool, of its `reconcile` function, and of a person. After the last one of each everything goes well."""
chance = st.tuples(
    st.lists(st.sampled_from(IN_THE_TOOL), min_size=1, max_size=5),
    st.lists(st.sampled_from(IN_RECONCILE), max_size=5),
    st.lists(st.sampled_from(A_PERSON), max_size=3),
)
TOOLS = {
    "once": {"idempotent": False},
    "once-told": {"idempotent": False, "reconcile_timeout_s": 5.0},
    "again": {"idempotent": True},
    "again-told": {"idempotent": True, "reconcile_timeout_s": 5.0},
}


@dataclass
class World:
    """What has the effects, and what was said of them."""

    effects: Counter[str] = field(default_factory=Counter)
    keys: set[str] = field(default_factory=set)
    """Idempotency keys that the tool was called with."""
    said_not: int = 0
    """How often a person or the `reconcile` function said that there was no effect."""


@dataclass
class Play:
    system: System
    worker: PlayedWorker
    tool: str
    run_id: str = ""
    call_id: str = ""
    world: World = field(default_factory=World)
    newest: Claim | None = None
    """The newest call of the tool."""

    async def state(self) -> invocations.Invocation:
        loaded = await self.system.container.commands.load(invocations.DECIDER, DEFAULT_TENANT_ID, UUID(self.call_id))
        state: invocations.Invocation = loaded.state
        return state

    async def begin(self) -> Claim:
        self.run_id = await self.system.start("alpha")
        alpha = await self.worker.next("alpha")
        self.call_id = await alpha.call("k", self.tool)
        return alpha

    async def from_the_queue(self, kind: str) -> Claim | None:
        """Claims the call as the queue delivers it. None: the claim came to nothing, because the run was cancelled."""
        while True:
            work = await self.worker.take(self.tool, kind)
            claim = await self.worker.try_claim(work.work_id, kind, work.dispatch)
            await work.ack()
            if work.work_id == self.call_id:
                return claim

    def effect(self) -> None:
        self.world.effects[self.call_id] += 1

    async def tool_does(self, claim: Claim, what: str) -> None:
        self.newest = claim
        self.world.keys.add(claim.body["work"])
        if what.startswith("is cancelled"):
            await self.system.http.post(f"/v1/runs/{self.run_id}/cancel")
        if what in ("succeeds", "vanishes after", "is stopped after", "is cancelled and vanishes", "is cancelled and succeeds"):
            self.effect()
        match what:
            case "succeeds" | "is cancelled and succeeds":
                await claim.complete("done")
            case "fails":
                await claim.fail("permanent")
            case "fails for now":
                await claim.fail("transient")
            case "is stopped before" | "is stopped after":
                await claim.ok("fail", error={"type": "TimeoutError", "message": "slow", "kind": "transient"}, effect="unknown")
            case "never arrives":
                await claim.lose("unsent")
            case _:
                await claim.lose()
        if what == "vanishes and goes on":
            self.effect()

    async def reconcile_does(self, claim: Claim, what: str) -> None:
        assert claim.body["work"] == self.call_id
        happened = bool(self.world.effects[self.call_id])
        match what:
            case "tells the truth" if happened:
                await claim.ok("reconciled", outcome="succeeded", result="found")
            case "tells the truth" | "lies":
                self.world.said_not += 1
                await claim.ok("reconciled", outcome="not_happened")
            case "does not know":
                await claim.ok("reconciled", outcome="unknown")
            case "fails for now" | "fails":
                await claim.fail("transient" if what == "fails for now" else "permanent")
            case "first worker reports":
                await self.first_worker_reports()
                assert (await claim.post("reconciled", outcome="not_happened")).status_code == 409
            case _:
                await claim.lose()

    async def person_does(self, what: str) -> bool:
        """Whether the person said something."""
        said: dict[str, Any] = {"reason": "seen"}
        match what:
            case "says nothing":
                return False
            case "first worker reports":
                await self.first_worker_reports()
                return True
            case "says it happened":
                said |= {"result": "by hand"}
            case "says it failed":
                said |= {"error": {"type": "Lost", "message": "gone"}}
            case _:
                self.world.said_not += 1
                said |= {"not_happened": True}
        for _ in range(2):  # a repeat changes nothing
            response = await self.system.http.post(f"/v1/invocations/{self.call_id}/resolve", json=said)
            assert response.status_code == 200, response.text
        return True

    async def first_worker_reports(self) -> None:
        """The worker of the attempt in doubt comes back."""
        assert self.newest is not None
        await self.newest.complete("late")

    async def to_the_end(self, moves: Moves) -> invocations.Invocation:
        """Plays until the call has ended, or waits for a person who says nothing."""
        tool, reconcile, person = map(iter, moves)
        while True:
            state = await self.state()
            if state.status in invocations.TERMINAL:
                return state
            if state.status in ("waiting", "asking_later"):
                await eventually(lambda before=state: self._has_changed(before), "the timer")
                continue
            if state.status == "ambiguous":
                if not await self.person_does(next(person, "says nothing")):
                    return state
                continue
            kind = "tool" if state.status == "requested" else "reconcile"
            assert state.status in ("requested", "reconciling"), state
            if (claim := await self.from_the_queue(kind)) is not None:
                if kind == "tool":
                    await self.tool_does(claim, next(tool, "succeeds"))
                else:
                    await self.reconcile_does(claim, next(reconcile, "tells the truth"))

    async def _has_changed(self, before: invocations.Invocation) -> bool:
        return await self.state() != before


@pytest.fixture
async def playing(system: System, worker: PlayedWorker, monkeypatch: pytest.MonkeyPatch) -> PlayedWorker:
    monkeypatch.setattr("domain.invocations.reconciling.RETRY", Retry(max_attempts=3, initial_s=0.01))
    await worker.register(tools=[{"name": name, "parameters": {}, "max_attempts": 2, **more} for name, more in TOOLS.items()])
    return worker


@pytest.mark.parametrize("tool", TOOLS)
@settings(
    max_examples=30, deadline=None, phases=[Phase.explicit, Phase.generate], derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(moves=chance)
@example(moves=(["vanishes after"], ["vanishes", "fails for now", "tells the truth"], []))
@example(moves=(["vanishes before"], ["vanishes"], []))
@example(moves=(["is stopped after"], ["vanishes", "does not know"], ["says it did not happen"]))
@example(moves=(["is cancelled and vanishes"], ["lies"], []))
async def test_an_effect_happens_once_unless_somebody_says_that_it_did_not(
    system: System, playing: PlayedWorker, tool: str, moves: Moves
) -> None:
    play = Play(system, playing, tool)
    alpha = await play.begin()
    state = await play.to_the_end(moves)
    world = play.world
    if not TOOLS[tool]["idempotent"]:
        assert world.effects[play.call_id] <= 1 + world.said_not, (tool, moves)
    assert world.keys <= {play.call_id}, "the key is the same each time"
    await system.settled()
    assert await system.sql("SELECT 1 FROM open_work WHERE work_id = %s", UUID(play.call_id)) == []
    waiting = await system.http.get("/v1/invocations", params={"status": "ambiguous", "run_id": play.run_id})
    assert [call["invocation_id"] for call in waiting.json()["data"]] == ([play.call_id] if state.status == "ambiguous" else [])
    shown = (await system.http.get(f"/v1/invocations/{play.call_id}")).json()
    assert shown["status"] == state.status
    if state.cancel_request is None and state.status in ("succeeded", "failed"):
        [entry] = (await alpha.journal())["journal"]
        assert entry["status"] == ("ok" if state.status == "succeeded" else "error")
    await system.http.post(f"/v1/runs/{play.run_id}/cancel")
