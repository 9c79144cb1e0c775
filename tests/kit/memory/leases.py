"""Leases in memory: one board for all members. Each beat follows the rules of the SQL function `beat_v3`."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction
from math import ceil
from uuid import UUID, uuid4

from adapters.memory.clock import Clock, SystemClock
from application.engine.ports.leases import Beat, Share
from domain.errors import Unavailable


@dataclass
class LeaseBoard:
    """The living members and the holder of each unit."""

    clock: Clock = field(default_factory=SystemClock)
    members: dict[UUID, tuple[datetime, float, dict[str, frozenset[str]]]] = field(default_factory=dict)
    """Member → alive until, seconds of a lease, and the units that it could run, by their groups."""
    leases: dict[str, tuple[str, UUID]] = field(default_factory=dict)
    """Unit → its group and its member."""
    any_session: bool = False
    away: bool = False

    def reach(self) -> None:
        if self.away:
            raise Unavailable("the database is away")

    def living(self, now: datetime) -> dict[UUID, dict[str, frozenset[str]]]:
        """The units of each member that lives, by group."""
        return {
            member: units
            for member, (until, lease_s, units) in self.members.items()
            if now <= until <= now + timedelta(seconds=lease_s + 1)
        }

    def held_by(self, member_id: UUID, group: str) -> frozenset[str]:
        return frozenset(unit for unit, holder in self.leases.items() if holder == (group, member_id))


class MemoryLeases:
    """Implements `application.engine.ports.leases.Leases` for one process."""

    def __init__(self, board: LeaseBoard, *, lease_s: float, member_id: UUID | None = None) -> None:
        self.board = board
        self.member_id = member_id or uuid4()
        self._lease_s = lease_s

    async def beat(self, units: Mapping[str, Sequence[str]], given_back: Collection[str]) -> Beat:
        self.board.reach()
        board, me, now = self.board, self.member_id, self.board.clock.now()
        before = board.living(now)
        known = {group: frozenset(own) for group, own in units.items() if own}
        board.members[me] = (now + timedelta(seconds=self._lease_s), self._lease_s, known)
        alive = board.living(now)
        board.leases = {
            unit: (group, member)
            for unit, (group, member) in board.leases.items()
            if member in alive and not (member == me and unit in given_back)
        }
        shares = {group: self._share(group, own, alive) for group, own in units.items() if own}
        return Beat(shares, board.any_session, frozenset().union(*before.values()))

    def _share(self, group: str, own: Sequence[str], alive: Mapping[UUID, Mapping[str, frozenset[str]]]) -> Share:
        board, me = self.board, self.member_id
        offers = {unit: sum(unit in units.get(group, ()) for units in alive.values()) for unit in own}
        fair = ceil(sum(Fraction(1, members) for members in offers.values()))
        held = board.held_by(me, group)
        ours = [unit for unit in own if unit in held or unit not in board.leases]
        for unit in sorted(ours, key=lambda unit: (offers[unit], unit not in held, unit))[:fair]:
            board.leases[unit] = (group, me)
        held = board.held_by(me, group)
        return Share(fair, held, {unit: offers.get(unit, 1) for unit in held})

    async def leave(self) -> None:
        self.board.reach()
        self.board.members.pop(self.member_id, None)
        self.board.leases = {unit: holder for unit, holder in self.board.leases.items() if holder[1] != self.member_id}
