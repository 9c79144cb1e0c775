"""The purse of an agent run: the portion of the budgets that it holds, and what its calls have set aside and spent of it.

A purse is drawn from the same allowances all its life. When other budgets apply, as on another day, a new purse begins, and the old
one ends with its last call.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from domain.agent_runs.commands import GrantPortion, ReleasePortion, StartCall
from domain.agent_runs.events import PortionGranted, PortionSettled
from domain.amounts import NOTHING, ONE_CALL, AllowanceRef, Amounts
from domain.errors import InvalidState
from domain.kernel import Event, replace


class PortionShort(InvalidState):
    """The agent run does not hold enough for the call. Draw more first."""

    code = "portion-short"


@dataclass(frozen=True)
class Purse:
    allowances: tuple[AllowanceRef, ...]
    granted: Amounts = NOTHING
    """Without what its allowances know to be spent or returned."""
    reserved: Amounts = NOTHING
    """Set aside for calls under way."""
    spent: Amounts = NOTHING
    """Of calls that have ended, as far as the allowances have not heard of it."""
    exact: bool = False
    """What is not needed goes back at once."""

    @property
    def free(self) -> Amounts:
        return self.granted - self.reserved - self.spent


class UnpaidCall(NamedTuple):
    """A call that is held until it is paid."""

    invocation_id: UUID
    allowances: tuple[AllowanceRef, ...]
    missing: tuple[UUID, ...]
    """Allowances that have not said yet that they have enough."""
    amounts: Amounts
    hold: UUID


class Reservation(NamedTuple):
    """What a call has set aside."""

    purse: int
    amounts: Amounts


def number_of(purses: Mapping[int, Purse], newest: int, allowances: tuple[AllowanceRef, ...]) -> int:
    """The number of the purse into which a portion of these allowances goes."""
    before = purses.get(newest)
    return newest if before is not None and before.allowances == allowances else newest + 1


def grant(purses: Mapping[int, Purse], newest: int, command: GrantPortion) -> list[Event]:
    """Another purse takes the place of the one before where it is drawn from other allowances."""
    before, number = purses.get(newest), number_of(purses, newest, command.allowances)
    events = [] if before is None or number == newest else settled(newest, before, exact=True)
    granted = PortionGranted(purse=number, allowances=command.allowances, amounts=command.amounts, exact=command.exact)
    return [*events, granted]


def check(purses: Mapping[int, Purse], newest: int, command: StartCall) -> None:
    """Raises PortionShort: the call is not paid for."""
    purse = purses.get(newest)
    if command.reserve is None:
        return
    if purse is None or command.purse != newest or not purse.free.covers(command.reserve):
        raise PortionShort("the agent run does not hold enough of its budgets for the call", pointer="/tool")


def release(purses: Mapping[int, Purse], command: ReleasePortion) -> list[Event]:
    """What is not needed of an allowance goes back. It is said, too, where that is nothing: somebody waits for the answer."""
    return [
        _settled(number, purse, exact=True)
        for number, purse in sorted(purses.items())
        if any(ref.allowance_id == command.allowance_id for ref in purse.allowances)
    ]


def settled(number: int, purse: Purse, *, exact: bool) -> list[Event]:
    """What its allowances are to know of a purse. Nothing, where they know."""
    return [_settled(number, purse, exact=exact)] if purse.spent or purse.free else []


def _settled(number: int, purse: Purse, *, exact: bool) -> PortionSettled:
    return PortionSettled(purse=number, allowances=purse.allowances, spent=purse.spent, returned=purse.free, exact=exact)


def paid(purses: Mapping[int, Purse], newest: int, reservation: Reservation, usage: Amounts | None) -> tuple[Amounts, list[Event]]:
    """What a call has cost that has ended, and what follows. Its allowances hear of it at once where portions are small, where the
    purse is not the newest any more, and where the call has cost more than was set aside."""
    cost = ONE_CALL if usage is None else usage + ONE_CALL
    purse = purses[reservation.purse]
    if not purse.exact and reservation.purse == newest and reservation.amounts.covers(cost):
        return cost, []
    after = pay(purse, reservation.amounts, cost)
    return cost, settled(reservation.purse, after, exact=True)


def pay(purse: Purse, reserved: Amounts, cost: Amounts) -> Purse:
    return replace(purse, reserved=purse.reserved - reserved, spent=purse.spent + cost)


def closing(purses: Mapping[int, Purse]) -> list[Event]:
    """The agent run ends. What calls under way have set aside stays with it until they have ended, too."""
    return [
        _settled(number, purse, exact=True)
        for number, purse in sorted(purses.items())
        if purse.spent or purse.free or (purse.reserved and not purse.exact)
    ]


def late(purses: Mapping[int, Purse], reservation: Reservation, key: str, cost: Amounts) -> PortionSettled:
    """A call has ended whose agent run has not waited for it."""
    purse = purses[reservation.purse]
    return PortionSettled(
        purse=reservation.purse, allowances=purse.allowances, spent=cost, returned=reservation.amounts - cost, exact=True, key=key
    )  # fmt: skip


def forfeited(purses: Mapping[int, Purse]) -> list[Event]:
    """The agent run goes on after its end. What calls of before have set aside counts as spent: nobody waits for them any more."""
    return [
        PortionSettled(purse=number, allowances=purse.allowances, spent=purse.reserved, returned=NOTHING, exact=True)
        for number, purse in sorted(purses.items())
        if purse.reserved
    ]


# --- how events change purses ---------------------------------------------------------------------------------------------


def with_grant(purse: Purse | None, event: PortionGranted) -> Purse:
    if purse is None:
        return Purse(event.allowances, event.amounts, exact=event.exact)
    return replace(purse, granted=purse.granted + event.amounts, exact=event.exact)


def with_settlement(purse: Purse, event: PortionSettled) -> Purse:
    granted = purse.granted - event.spent - event.returned
    return replace(purse, granted=granted, spent=purse.spent - event.spent, exact=purse.exact or event.exact)
