"""The api is killed under load, again and again, and nothing else. No worker loses an attempt, and no call becomes ambiguous.

The api is back soon, and now and then only after a time that is longer than every lease. TIDELOG_CHAOS_KILLS, TIDELOG_CHAOS_SEED:
see storm.py. These kills are counted apart: a fifth of `KILLS` more.
"""

import asyncio
import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest

from adapters.embedded import EmbeddedServices
from application.engine.background import end
from domain import invocations
from tests.chaos.checker import check_snapshot
from tests.chaos.checks.clients import check_answers
from tests.chaos.checks.losses import check_losses
from tests.chaos.checks.snapshot import Fact, Snapshot
from tests.chaos.fleet import Fleet
from tests.chaos.load import POSTING, Load
from tests.chaos.storm import KILLS, seed_of
from tests.chaos.test_fleet import check_outputs
from tests.chaos.test_fleet import settled as settled_fleet
from tests.chaos.test_kills import AGENTS, END_TIMEOUT_S, work_goes_on
from tests.chaos.witness import Line, check_witness, read_lines
from tests.integration.system_kit import empty_work_queue
from tests.pace import ended, slowness_lately, until
from tidelog.http_client import http_client

pytestmark = pytest.mark.chaos

SHORT_KILLS = 2
AT_ONCE = 12
CALLS = 5
"""Calls that must begin after each return, before the next kill: work is under way at each kill."""
SOON, LONG_S, LONG_EVERY = 0.3, (8.0, 28.0), 20
"""The longest pause before the next kill; how long the api is away in every so many kills, in seconds."""
BACK_S = 10.0
"""Seconds from the api's return until calls begin again."""
AGAIN_S = 3.0
"""Seconds from the api's return until a call begins that was claimed before the kill. A worker tries to connect each 0.8 s."""


@dataclass
class Kills:
    """What was done to the api. Times in seconds since 1970."""

    killed: list[float] = field(default_factory=list)
    ready: list[float] = field(default_factory=list)
    back_s: list[float] = field(default_factory=list)

    def under_way(self, spans: list[tuple[float, float]]) -> int:
        """How many of these spans had a kill inside, counted for each kill."""
        return sum(began < killed < over for killed in self.killed for began, over in spans)

    def late_s(self, claimed_at: float, begun_at: float) -> float:
        """How long after the api's return a call began that was claimed before a kill. 0: no kill in between."""
        between = [ready for killed, ready in zip(self.killed, self.ready, strict=True) if claimed_at < killed < begun_at]
        return max(0.0, begun_at - between[-1]) if between else 0.0


async def test_kills_of_the_api_lose_no_attempt_and_leave_no_call_in_doubt(
    services: EmbeddedServices, database_url: str, tmp_path: Path
) -> None:
    seed, kills = seed_of(0), KILLS // 5 or SHORT_KILLS
    print(f"\n{kills} kills of the api alone: TIDELOG_CHAOS_SEED={seed}", flush=True)
    chance, story, began = random.Random(seed), Kills(), time.monotonic()
    await empty_work_queue(services.nats_url)
    async with Fleet(services, database_url, tmp_path, AGENTS, apis=1, engines=1) as fleet:
        headers = {"Authorization": f"Bearer {fleet.key}"}
        async with http_client(fleet.urls[0], headers=headers, timeout_s=10) as http:
            load, stop = Load(http, seed, at_once=AT_ONCE, pause_s=0.1, shapes=POSTING), asyncio.Event()
            loading = asyncio.create_task(load.run(stop), name="load")
            try:
                await calls_go_on(fleet.witness)
                for number in range(1, kills + 1):
                    await asyncio.sleep(chance.uniform(0.0, SOON))
                    away_s = chance.uniform(*LONG_S) if number % LONG_EVERY == 0 else 0.0
                    await kill_api(fleet, story, away_s)
                    if number % 10 == 0:
                        rate = number * 60 / (time.monotonic() - began)
                        print(f"  {number} kills of the api, {rate:.0f} a minute; {load.over} runs over", flush=True)
                await work_goes_on(load, loading, 1)
                stop.set()
                await ended(loading, END_TIMEOUT_S)
                snapshot = await settled_fleet(database_url, services.nats_url)
            finally:
                await end(loading)
            lines = read_lines(fleet.witness)
            violations = [
                *await check_snapshot(snapshot, services.nats_url, expected={run.id: run.expected for run in load.runs}),
                *check_witness(lines, snapshot),
                *check_losses(snapshot, []),
                *check_answers(load.runs, snapshot),
                *check_outputs(fleet.machines),
            ]
            assert violations == [], f"seed {seed}\n" + "\n".join(map(str, violations[:50]))
    report(story, snapshot, lines)
    latest = max((story.late_s(*span) for span in begun(snapshot, lines)), default=0.0)
    assert latest < AGAIN_S or latest < AGAIN_S * await slowness_lately(), latest


async def calls_go_on(witness: Path) -> None:
    """Waits until more calls have begun."""
    before = len(read_lines(witness))

    async def more() -> bool:
        return len(read_lines(witness)) >= before + CALLS

    await until(more, BACK_S + 5)


async def kill_api(fleet: Fleet, story: Kills, away_s: float) -> None:
    """Kills the api, and starts it again after the seconds. Returns when work goes on."""
    [api] = fleet.apis
    story.killed.append(time.time())
    await api.kill()
    await asyncio.sleep(away_s)
    await api.start()
    story.ready.append(time.time())
    await calls_go_on(fleet.witness)
    story.back_s.append(time.time() - story.ready[-1])


def calls(snapshot: Snapshot) -> Iterator[tuple[UUID, invocations.InvocationRequested, list[Fact]]]:
    for invocation_id, facts in snapshot.streams("invocation.").items():
        requested = facts[0].event
        assert isinstance(requested, invocations.InvocationRequested)
        yield invocation_id, requested, facts


def attempts(snapshot: Snapshot, *, idempotent: bool) -> list[tuple[float, float]]:
    """When each attempt was claimed, and when its outcome was recorded."""
    found = []
    for _, requested, facts in calls(snapshot):
        times = [fact.recorded.recorded_at.timestamp() for fact in facts]
        claims = [at for at, fact in zip(times, facts, strict=True) if isinstance(fact.event, invocations.AttemptStarted)]
        if requested.idempotent == idempotent:
            found += [(at, min(later for later in times if later > at)) for at in claims]
    return found


def begun(snapshot: Snapshot, lines: list[Line]) -> Iterator[tuple[float, float]]:
    """When each attempt of a call was claimed, and when it began."""
    at = {(line.work, line.attempt): line.at for line in lines if line.kind == "tool"}
    for invocation_id, _, facts in calls(snapshot):
        for fact in facts:
            if isinstance(fact.event, invocations.AttemptStarted) and (str(invocation_id), fact.event.attempt) in at:
                yield fact.recorded.recorded_at.timestamp(), at[str(invocation_id), fact.event.attempt]


def report(story: Kills, snapshot: Snapshot, lines: list[Line]) -> None:
    in_doubt, repeatable = (story.under_way(attempts(snapshot, idempotent=idempotent)) for idempotent in (False, True))
    late = [late for span in begun(snapshot, lines) if (late := story.late_s(*span))]
    print(f"{len(story.killed)} kills of the api alone: no call ambiguous, no attempt lost; {snapshot.head} events")
    print(f"  under way at the kills: {in_doubt} calls that must not be repeated, {repeatable} others")
    print(f"  claimed before a kill and begun after it: {len(late)}, at most {max(late, default=0.0):.1f} s after the api's return")
    middle = statistics.median(story.back_s)
    print(f"  {CALLS} calls after the api's return: {middle:.1f} s, at most {max(story.back_s):.1f} s", flush=True)
