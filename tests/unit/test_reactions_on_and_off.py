"""The same work with reactions in the append and without: the same states, and the same events in each stream."""

import json
import random
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from domain.errors import TidelogError
from domain.kernel import derive_id
from domain.runs import CancelRun, PauseRun, Plan, ResumeRun, Step
from tests.kit.engine import RETRY, Claim, Engine, PlayedWorker
from tests.kit.waiting import TENANT

AGENTS, TOOLS = ("alpha", "beta", "gamma"), ("add", "mail")
ACTIONS = 90


class Play:
    """Seeded requests of clients and workers, each after all that follows from the one before."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self.engine = engine
        self.chance = random.Random(seed)
        self.worker: PlayedWorker = engine.worker()
        self.runs: list[UUID] = []
        self.claims: list[Claim] = []
        self.told: list[Any] = []
        """What each request was answered: must be the same, too."""

    async def begin(self) -> None:
        await self.engine.set_up()
        await self.worker.register(*AGENTS, tools_={"add": {"max_attempts": 3}, "mail": {"idempotent": False}})
        await self.start()
        await self.engine.settled()

    async def act(self) -> None:
        weights = {self.start: 1, self.claim: 14, self.call: 5, self.send: 4, self.write: 3, self.end: 12}
        weights |= {self.cancel: 1, self.wait: 1, self.pause: 1, self.resume: 1}
        [action] = self.chance.choices(list(weights), list(weights.values()))
        try:
            answer = await action()
        except TidelogError as error:
            answer = type(error).__name__
        self.told.append((action.__name__, answer))
        await self.engine.settled()

    async def start(self) -> Any:
        run_id = derive_id(UUID(int=7 << 76), f"run:{len(self.runs)}")
        self.runs.append(run_id)
        steps: list[Step] = []
        for n in range(self.chance.randint(1, 5)):
            after = self.chance.sample([step.key for step in steps], self.chance.randint(0, min(2, len(steps))))
            steps.append(
                Step(
                    key=f"s{n}",
                    agent=self.chance.choice(AGENTS),
                    after=tuple(after),
                    on_failure=self.chance.choice(("fail", "continue")),
                    timeout_s=self.chance.choice((None, 60 + n)),
                    retry=RETRY,
                )
            )
        await self.engine.start(plan=Plan(steps=tuple(steps)), run_id=run_id)

    async def claim(self) -> Any:
        kind, pool = self.chance.choice([("agent", agent) for agent in AGENTS] + [("tool", tool) for tool in TOOLS])
        found = await self.engine.queue.pull(self.worker.queues[kind, pool], 1)
        if not found:
            return "nothing"
        self.claims.append(await self.worker.claim(found[0]))
        return str(found[0].item.work_id)

    def _held(self, kind: str) -> Claim:
        held = [claim for claim in self.claims if claim.kind == kind]
        if not held:
            raise TidelogError("nothing is held")
        return self.chance.choice(held)

    async def call(self) -> Any:
        return str(await self._held("agent").call(f"k{self.chance.randint(0, 9)}", self.chance.choice(TOOLS), a=1))

    async def send(self) -> Any:
        claim = self._held("agent")
        to = self.chance.choice([claim.given.step_key, *claim.given.peers])
        message_id = await claim.send(f"m{self.chance.randint(0, 9)}", to, {"n": self.chance.random()})
        if mail := (await claim.journal()).mailbox:
            await claim.receive(f"r{self.chance.randint(0, 9)}", mail[0].message_id)
        return str(message_id)

    async def write(self) -> Any:
        claim = self._held("agent")
        await claim.step(f"j{self.chance.randint(0, 9)}", 1)
        return await claim.set(f"c{self.chance.randint(0, 9)}", "shared", 2)

    async def end(self) -> Any:
        claim = self._held(self.chance.choice(("agent", "agent", "tool")))
        self.claims.remove(claim)
        how = self.chance.choice(("complete",) * 6 + ("transient", "permanent"))
        if how == "complete":
            await claim.complete({"done": True})
            return how
        return await claim.fail(how)

    async def cancel(self) -> Any:
        if self.runs:
            await self.engine.give(CancelRun(run_id=self.chance.choice(self.runs), reason="enough"))

    async def pause(self) -> Any:
        await self.engine.give(PauseRun(run_id=self.chance.choice(self.runs)))

    async def resume(self) -> Any:
        await self.engine.give(ResumeRun(run_id=self.chance.choice(self.runs)))

    async def wait(self) -> Any:
        """Timers that are due at once would race with the sagas, so each one has its own moment."""
        clock = self.engine.clock
        until = clock.now() + timedelta(seconds=self.chance.choice((3, 11, 61)))
        while due := [due_at for due_at, _ in self.engine.timers.rows.values() if due_at <= until]:
            clock.advance(max((min(due) - clock.now()).total_seconds(), 0))
            await self.engine.settled()
        clock.advance((until - clock.now()).total_seconds())

    def events(self) -> dict[UUID, list[tuple[str, Any]]]:
        """The events of each stream. Times come from the clock of the machine, and differ."""
        return {
            stream_id: [(event.topic, {**json.loads(event.state), "sent_at": None}) for event in events]
            for stream_id, events in self.engine.log.streams.items()
        }

    async def statuses(self) -> dict[UUID, str]:
        return {run_id: (await self.engine.run(run_id)).status for run_id in self.runs}


async def played(seed: int, *, reactions: bool) -> Play:
    play = Play(Engine(reactions=reactions), seed)
    async with play.engine.running():
        await play.begin()
        for _ in range(ACTIONS):
            await play.act()
        play.told.append(await play.statuses())
    return play


@pytest.mark.parametrize("seed", range(12))
async def test_reactions_in_the_append_change_nothing_but_the_number_of_appends(seed: int) -> None:
    on, off = [await played(seed, reactions=reactions) for reactions in (True, False)]
    assert on.told == off.told
    assert on.events() == off.events()
    assert on.engine.checkpoints.parked == off.engine.checkpoints.parked == {}
    assert any(event.settled for event in on.engine.log.events) and not any(event.settled for event in off.engine.log.events)


@pytest.mark.parametrize("seed", range(100, 104))
async def test_without_their_bits_the_events_are_read_again_and_nothing_is_added(seed: int) -> None:
    play = await played(seed, reactions=True)
    log = play.engine.log
    log.events[:] = [event._replace(settled=0) for event in log.events]
    before, streams = play.events(), len(log.events)
    play.engine.checkpoints.rows.clear()
    async with play.engine.running():
        assert await play.engine.settled() == streams
    assert play.events() == before and play.engine.checkpoints.parked == {} and log.head == streams
    assert {event.tenant_id for event in log.events} == {TENANT}
