"""Sharing the engine's work among processes: each process runs its fair share of the units, and takes over units of processes that
died.

A process beats about once a second. A process that has not beaten for `LEASE_S` loses its units to the next process that beats. A
paused process that wakes up may run a unit beside its new owner for a moment. That harms nothing, because checkpoints are fenced by
an epoch, the stream by compare-and-set, and reactions and timers by derived ids. So leases decide who works; correctness does not
depend on them.

A unit may have a better place: the relay works best beside the writer of the log. Processes elsewhere stand in for it.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from application.engine.background import TaskEnded, end
from application.engine.ports.checkpoints import LostOwnership, SteppedBack
from application.engine.ports.leases import Leases, Share
from domain.errors import Unavailable

log = structlog.get_logger(__name__)

BEAT_S = 1.0
LEASE_S = 3.0
"""Another process takes a vanished process's unit at most a lease, a beat and a start later: under 5 seconds."""
BEAT_TIMEOUT_S = 2.0
WITHOUT_UNITS_BEAT_S, WITHOUT_UNITS_LEASE_S = 10.0, 30.0
"""For a process that does none of the engine's work. Nobody waits for its end, so it costs the database little."""
AGAIN_AFTER_S = 0.2
"""Pause, in seconds, before a unit is taken up again whose ownership was lost although the lease is still ours."""


@dataclass(frozen=True, slots=True)
class Group:
    """Units of one kind, which a process runs together. `run` works on the given units until it is cancelled."""

    name: str
    units: tuple[str, ...]
    run: Callable[[frozenset[str]], Coroutine[Any, Any, None]]
    stands_in_for: str | None = None
    """Another group with the same units. While a process with that group lives, this process leaves the units to it."""


class SessionPresence:
    """Whether any worker has a session, as the last beat of this process said."""

    def __init__(self) -> None:
        self._there = asyncio.Event()
        self._calls: list[Callable[[], None]] = []

    def call(self, function: Callable[[], None]) -> None:
        """Lets a function be called at each beat that finds a session. It must not wait."""
        self._calls.append(function)

    def tell(self, any_session: bool) -> None:
        if any_session:
            self._there.set()
            for function in self._calls:
                function()
        else:
            self._there.clear()

    @property
    def there(self) -> bool:
        return self._there.is_set()

    async def wait(self) -> None:
        """Returns as soon as a worker has a session."""
        await self._there.wait()


class Membership:
    """The beat of this process, and for each group a loop that runs the units which the beat assigned."""

    def __init__(
        self,
        leases: Leases,
        groups: Sequence[Group],
        *,
        beat_s: float | None = None,
        presence: SessionPresence | None = None,
    ) -> None:
        """`beat_s`: seconds between two beats. None: `BEAT_S`. `presence`: learns at each beat whether any worker has a session."""
        self._leases = leases
        self._presence = SessionPresence() if presence is None else presence
        self._beat_s = beat_s
        self._sooner = asyncio.Event()
        self.workers = {group.name: UnitWorker(group, self._sooner) for group in groups}
        """By group; the owner runs each of them beside `run`."""
        self.joined = asyncio.Event()
        """Set when the first beat has been answered."""

    async def run(self) -> None:
        """Beats until cancelled, then gives the units of this process back.

        Outages are waited out: nobody can take over meanwhile.
        """
        try:
            while True:
                try:
                    async with asyncio.timeout(BEAT_TIMEOUT_S):
                        await self._beat()
                except (Unavailable, TimeoutError) as error:
                    log.warning("beat_failed", error=str(error) or "no answer in time")
                self._sooner.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(BEAT_S if self._beat_s is None else self._beat_s):
                        await self._sooner.wait()
        finally:
            await self._leave()

    async def _beat(self) -> None:
        given_back = {unit for worker in self.workers.values() for unit in worker.given_back()}
        units = {name: offered for name, worker in self.workers.items() if (offered := worker.offered())}
        beat = await self._leases.beat(units, given_back)
        self._presence.tell(beat.any_session)
        for name, worker in self.workers.items():
            worker.look(beat.groups)
            worker.take(beat.shares.get(name, Share(0, frozenset())))
        self.joined.set()

    async def _leave(self) -> None:
        for worker in self.workers.values():
            worker.take(Share(0, frozenset()))
        try:
            async with asyncio.timeout(BEAT_TIMEOUT_S):
                await self._leases.leave()
        except (Unavailable, TimeoutError) as error:
            log.info("leases_left_to_expire", error=str(error) or "no answer in time")


class UnitWorker:
    """Runs the units of one group that this process holds, in one call.

    A change of the units ends the call and begins a new one.
    """

    def __init__(self, group: Group, sooner: asyncio.Event) -> None:
        self.group = group
        self._sooner = sooner
        """Set to have the next beat at once."""
        self._held: frozenset[str] = frozenset()
        self._wanted: frozenset[str] = frozenset()
        self._running: frozenset[str] = frozenset()
        self._changed = asyncio.Event()
        self._leaves_units = group.stands_in_for is not None
        """The units are left to others. A process that stands in looks for others before it takes anything."""

    def look(self, groups: Collection[str]) -> None:
        """Learns which groups living processes have."""
        self._leaves_units = self.group.stands_in_for in groups

    def offered(self) -> tuple[str, ...]:
        """The units that this process could run, as the next beat says them."""
        return tuple(self._held - self.given_back()) if self._leaves_units else self.group.units

    def take(self, share: Share) -> None:
        """Takes the answer of a beat: keeps units up to the fair share, and gives the others back. It keeps what the fewest members
        could run, for nobody else might take it, and of those what runs already.
        """
        self._held = share.held
        by_need = sorted(share.held, key=lambda unit: (share.offered_by.get(unit, 0), unit not in self._running, unit))
        wanted = frozenset(() if self._leaves_units else by_need[: share.size])
        if wanted != self._wanted:
            log.debug("units_shared", group=self.group.name, units=sorted(wanted), of=len(self.group.units))
            self._wanted = wanted
            self._changed.set()

    def given_back(self) -> frozenset[str]:
        """Units that this process holds, does not want, and no longer runs. Units that are left to others may still be held from
        the process's last start.
        """
        held = self._held.union(self.group.units) if self._leaves_units else self._held
        return held - self._wanted - self._running

    async def run(self) -> None:
        """Runs until cancelled. Raises the errors of the group's work, but not LostOwnership."""
        while True:
            self._changed.clear()
            self._running = self._wanted
            if self._running:
                await self._work()
                self._running = frozenset()
                self._sooner.set()
            else:
                await self._changed.wait()

    async def _work(self) -> None:
        """Runs the units until other units are wanted, or another process has taken one of them."""
        work = asyncio.create_task(self.group.run(self._running), name=f"work-{self.group.name}")
        changed = asyncio.create_task(self._changed.wait())
        try:
            await asyncio.wait({work, changed}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                return
            ended = TaskEnded.of(work, f"the work of group {self.group.name}")
            if not isinstance(ended.__cause__, LostOwnership):
                raise ended
            stepped_back = isinstance(ended.__cause__, SteppedBack)
            log.info(
                "checkpoints_stepped_back" if stepped_back else "ownership_lost", group=self.group.name, error=str(ended.__cause__)
            )
            await asyncio.sleep(AGAIN_AFTER_S)
        finally:
            await end(work, changed)
