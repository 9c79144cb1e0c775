"""Leases in memory: one board for all members. Each beat follows the rules of the SQL function `beat_v2`."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from adapters.memory.clock import Clock, SystemClock
from application.engine.ports.leases import Beat, Share
from domain.errors import Unavailable


@dataclass
class LeaseBoard:
    """The living members and the holder of each unit."""

    clock: Clock = field(default_factory=SystemClock)
    members: dict[UUID, tuple[datetime, float, frozenset[str]]] = field(default_factory=dict)
    """Member → alive until, seconds of a lease, and the groups whose units it shares."""
    leases: dict[str, tuple[str, UUID]] = field(default_factory=dict)
    """Unit → its group and its member."""
    any_session: bool = False
    away: bool = False

    def reach(self) -> None:
        if self.away:
            raise Unavailable("the database is away")

    def living(self, now: datetime) -> dict[UUID, frozenset[str]]:
        """The groups of each member that lives."""
        return {
            member: groups
            for member, (until, lease_s, groups) in self.members.items()
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
        groups = frozenset(group for group, own in units.items() if own)
        board.members[me] = (now + timedelta(seconds=self._lease_s), self._lease_s, groups)
        alive = board.living(now)
        board.leases = {
            unit: (group, member)
            for unit, (group, member) in board.leases.items()
            if member in alive and not (member == me and unit in given_back)
        }
        shares = {group: self._share(group, own, alive) for group, own in units.items() if own}
        return Beat(shares, board.any_session, frozenset().union(*before.values()))

    def _share(self, group: str, own: Sequence[str], alive: Mapping[UUID, frozenset[str]]) -> Share:
        board, me = self.board, self.member_id
        fair = math.ceil(len(own) / sum(group in groups for groups in alive.values()))
        free = sorted(unit for unit in own if unit not in board.leases)
        for unit in free[: max(0, fair - len(board.held_by(me, group)))]:
            board.leases[unit] = (group, me)
        return Share(fair, board.held_by(me, group))

    async def leave(self) -> None:
        self.board.reach()
        self.board.members.pop(self.member_id, None)
        self.board.leases = {unit: holder for unit, holder in self.board.leases.items() if holder[1] != self.member_id}
