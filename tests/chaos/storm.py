"""A storm of blows: each kills a part of a server, or freezes it for a while. The storm counts what it did, and tells the story.

TIDELOG_CHAOS_SEED     the order and the moments of the blows (default: a new one each time, printed)
TIDELOG_CHAOS_KILLS    the number of kills in all, split into storms of `KILLS_OF_A_STORM` (default: each part once)
"""

import asyncio
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from application.engine.background import end
from tests.chaos.checks.losses import Blow
from tests.chaos.checks.snapshot import Violation
from tests.chaos.server import Server
from tests.pace import within

KILLS = int(os.environ.get("TIDELOG_CHAOS_KILLS") or 0)
"""0: the short form, as a part of `make test`."""
KILLS_OF_A_STORM = 150
"""The checks read the whole log: two short storms take less time than a long one."""
TOGETHER = 0.15
"""The share of the blows that come together with the blow before."""
FROZEN = 0.5
"""The share of the rounds with a part that is frozen."""
SHORT_S, LONG_S, LONG = (0.1, 3.0), (3.0, 14.0), 0.3
"""How long a part is frozen, and the share of the long times: longer than each time-out and lease."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A blow after a pause. `frozen_s`: seconds for which the part is frozen; 0: it is killed."""

    pause_s: float
    part: str
    frozen_s: float = 0.0


def seed_of(number: int) -> int:
    """The seed of a storm. With a given seed, the storms have that seed and the numbers after it."""
    given = os.environ.get("TIDELOG_CHAOS_SEED")
    return int(given) + number if given else random.SystemRandom().randrange(10**6)


def storms(kills: int = KILLS) -> list[int]:
    """The numbers of kills of the storms. A single 0: the short form."""
    return [min(KILLS_OF_A_STORM, kills - done) for done in range(0, kills, KILLS_OF_A_STORM)] or [0]


def plan_of(seed: int, kills: int, parts: Sequence[str]) -> Iterator[list[Planned]]:
    """Rounds in which each part is killed once, some together. In some rounds a part is frozen, too."""
    chance = random.Random(seed)
    first = True
    while kills > 0:
        order = chance.sample(parts, len(parts))[:kills]
        kills -= len(order)
        blows = [Planned(0.0 if chance.random() < TOGETHER else chance.uniform(0.1, 2.0), part) for part in order]
        if not first and chance.random() < FROZEN:
            seconds = chance.uniform(*(LONG_S if chance.random() < LONG else SHORT_S))
            blows.insert(chance.randrange(len(blows)), Planned(chance.uniform(0.1, 1.0), chance.choice(parts), seconds))
        first = False
        yield blows


class Storm:
    """Strikes the parts of one server. `close` thaws what is frozen."""

    def __init__(self, server: Server, seed: int) -> None:
        self.seed = seed
        self.blows: list[Blow] = []
        self._server = server
        self._began = time.monotonic()
        self._frozen: set[asyncio.Task[None]] = set()
        self._story: list[str] = []

    @property
    def kills(self) -> int:
        return sum(not blow.frozen for blow in self.blows)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    async def strike(self, planned: Planned) -> None:
        await asyncio.sleep(planned.pause_s)
        if planned.frozen_s:
            task = asyncio.create_task(self._freeze(planned.part, planned.frozen_s), name=f"frozen-{planned.part}")
            self._frozen.add(task)
            task.add_done_callback(self._frozen.discard)
        else:
            await self.kill(planned.part)

    async def kill(self, part: str, why: str = "") -> None:
        """Kills a part. Waits for the part first if it is just being started again."""
        async with within(30):
            while (pid := self._server.kill(part)) is None:
                assert self._server.returncode is None, "the server ended"
                await asyncio.sleep(0.02)
        now = time.time()
        self.blows.append(Blow(part, now, now))
        self._note(f"{part} {pid} killed{why}")

    async def _freeze(self, part: str, seconds: float) -> None:
        began, pid = time.time(), self._server.freeze(part)
        if pid is None:
            return
        self._note(f"{part} {pid} frozen for {seconds:.1f} s")
        try:
            await asyncio.sleep(seconds)
        finally:
            self._server.thaw(part)
            self.blows.append(Blow(part, began, time.time(), frozen=True))

    async def close(self) -> None:
        await end(*self._frozen)

    def _note(self, what: str) -> None:
        self._story.append(f"{self.seconds:6.1f} s  {what}")

    def told(self) -> str:
        """What was killed and frozen how often, and how fast."""
        kills = Counter(blow.part for blow in self.blows if not blow.frozen)
        frozen = sum(blow.frozen for blow in self.blows)
        parts = ", ".join(f"{part} {count}" for part, count in sorted(kills.items()))
        rate = self.kills * 60 / max(self.seconds, 1.0)
        return f"{self.seconds:4.0f} s: {self.kills} kills ({parts}), {frozen} times frozen; {rate:.0f} kills a minute"

    def explain(self, violations: Sequence[Violation]) -> str:
        shown = "\n".join(f"  {violation}" for violation in violations[:50])
        kept = Path(tempfile.gettempdir()) / f"tidelog-chaos-{self.seed}.log"
        kept.write_text(self._server.output())
        story = "\n".join(f"  {line}" for line in self._story)
        return f"{len(violations)} violations; seed {self.seed}; output kept in {kept}\n{shown}\n{story}"
