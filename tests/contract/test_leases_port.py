"""The contract of the port `Leases`, in memory and on PostgreSQL."""

from uuid import uuid4

from application.engine.ports.leases import Leases, Share
from tests.contract.conftest import LEASE_S, LeaseSide

UNITS = tuple(f"unit:{number}" for number in range(5))


async def beat(member: Leases, *given_back: str, units: tuple[str, ...] = UNITS) -> Share:
    return (await member.beat({"things": units}, given_back)).shares["things"]


async def test_one_alone_holds_everything(shared_leases: LeaseSide) -> None:
    member = shared_leases.member()
    assert await beat(member) == Share(5, frozenset(UNITS))
    assert await beat(member) == Share(5, frozenset(UNITS))


async def test_a_share_is_the_units_by_the_members_rounded_up(shared_leases: LeaseSide) -> None:
    members = [shared_leases.member() for _ in range(6)]
    sizes = [(await beat(member)).size for member in members]
    assert sizes == [5, 3, 2, 2, 1, 1]
    assert [(await beat(member)).size for member in members] == [1] * 6


async def test_what_is_held_stays_until_it_is_given_back(shared_leases: LeaseSide) -> None:
    """Two members never hold one unit: the second member gets nothing before the first member has let go."""
    first, second = shared_leases.member(), shared_leases.member()
    await beat(first)
    assert await beat(second) == Share(3, frozenset())
    assert await beat(first) == Share(3, frozenset(UNITS)), "more than its share for a while"
    assert await beat(first, "unit:3", "unit:4") == Share(3, frozenset(UNITS[:3]))
    assert await beat(second) == Share(3, frozenset(UNITS[3:]))
    assert await beat(first) == Share(3, frozenset(UNITS[:3]))


async def test_nobody_gives_back_what_another_one_holds(shared_leases: LeaseSide) -> None:
    first, second = shared_leases.member(), shared_leases.member()
    await beat(first)
    await beat(second, *UNITS)
    assert (await beat(first)).held == frozenset(UNITS)


async def test_free_units_are_taken_up_to_the_fair_share_only(shared_leases: LeaseSide) -> None:
    first, second = shared_leases.member(), shared_leases.member()
    await beat(first)
    await beat(second)
    assert await beat(first, *UNITS[:4]) == Share(3, frozenset({"unit:0", "unit:1", "unit:4"})), "free ones in order of name"
    assert await beat(second) == Share(3, frozenset({"unit:2", "unit:3"})), "nothing more is free"


async def test_a_clock_that_is_set_back_does_not_keep_a_dead_member_alive(shared_leases: LeaseSide) -> None:
    dead, alive = shared_leases.member(), shared_leases.member()
    await beat(dead)
    assert (await beat(alive)).held == frozenset()
    await shared_leases.pass_time(-3_600)
    assert await beat(alive) == Share(5, frozenset(UNITS))
    assert await beat(alive) == Share(5, frozenset(UNITS))


async def test_a_member_without_units_takes_none_and_changes_no_share(shared_leases: LeaseSide) -> None:
    idle, working = shared_leases.member(), shared_leases.member()
    assert (await idle.beat({}, ())).shares == {}
    assert await beat(working) == Share(5, frozenset(UNITS))
    assert (await idle.beat({}, ())).shares == {}
    await idle.leave()


async def test_groups_are_shared_by_those_who_do_some_of_them(shared_leases: LeaseSide) -> None:
    both, one = shared_leases.member(), shared_leases.member()
    await both.beat({"things": UNITS, "single": ("s",)}, ())
    answer = (await one.beat({"things": UNITS}, ())).shares
    assert set(answer) == {"things"} and answer["things"].size == 3
    answer = (await both.beat({"things": UNITS, "single": ("s",)}, ())).shares
    assert answer == {"things": Share(3, frozenset(UNITS)), "single": Share(1, frozenset({"s"}))}


async def test_a_member_that_knows_more_leaves_nothing_without_a_member(shared_leases: LeaseSide) -> None:
    """As in an upgrade: the newer release knows more units. Before, it took those alone, and half of the others were nobody's."""
    new_units = (*UNITS, *(f"new:{number}" for number in range(5)))
    old, new = shared_leases.member(), shared_leases.member()
    await beat(old)
    assert await beat(new, units=new_units) == Share(8, frozenset(new_units[5:])), "its own, and half of what both know"
    assert await beat(old, "unit:3", "unit:4") == Share(3, frozenset(UNITS[:3]))
    share = await beat(new, units=new_units)
    assert share == Share(8, frozenset(new_units[3:]))
    assert share.offered_by == {unit: 1 if unit in new_units[5:] else 2 for unit in new_units[3:]}


async def test_units_that_few_know_go_first(shared_leases: LeaseSide) -> None:
    """Three releases side by side: whoever can run what others cannot takes that, though other units come first by name."""
    last = (*UNITS, "w:2", "w:3")
    first, second, third = shared_leases.member(), shared_leases.member(), shared_leases.member()
    await beat(first)
    await beat(second, units=last[:6])
    await beat(third, units=last)
    await beat(first, *UNITS)
    assert await beat(second, "w:2", units=last[:6]) == Share(3, frozenset({"w:2", "unit:2", "unit:3"}))
    assert await beat(third, units=last) == Share(4, frozenset({"w:3", "unit:4"}))


async def test_shares_are_whole_units(shared_leases: LeaseSide) -> None:
    """Six sixths are one, however they are added up."""
    members = [shared_leases.member() for _ in range(6)]
    for member in members:
        await beat(member, units=(*UNITS[:3], "x:1", "x:2", "x:3"))
    assert [(await beat(member, units=(*UNITS[:3], "x:1", "x:2", "x:3"))).size for member in members] == [1] * 6


async def test_who_is_silent_for_a_lease_loses_its_units_to_the_next_beat(shared_leases: LeaseSide) -> None:
    silent, other = shared_leases.member(), shared_leases.member()
    await beat(silent)
    await shared_leases.pass_time(LEASE_S / 2)
    assert (await beat(other)).held == frozenset(), "not yet"
    await shared_leases.pass_time(LEASE_S / 2 + 1)
    assert await beat(other) == Share(5, frozenset(UNITS))
    assert await beat(silent) == Share(3, frozenset()), "it comes back and finds everything taken"


async def test_a_beat_renews_the_lease(shared_leases: LeaseSide) -> None:
    member, other = shared_leases.member(), shared_leases.member()
    for _ in range(3):
        await beat(member)
        await shared_leases.pass_time(LEASE_S / 2)
    assert (await beat(other)).held == frozenset()


async def test_who_leaves_gives_everything_back_at_once(shared_leases: LeaseSide) -> None:
    leaver, other = shared_leases.member(), shared_leases.member()
    await beat(leaver)
    await beat(other)
    await leaver.leave()
    assert await beat(other) == Share(5, frozenset(UNITS))
    await leaver.leave()
    assert (await beat(other)).held == frozenset(UNITS)


async def test_a_member_that_starts_anew_under_its_id_holds_what_it_held(shared_leases: LeaseSide) -> None:
    member_id = uuid4()
    await beat(shared_leases.member(member_id))
    assert (await beat(shared_leases.member(member_id))).held == frozenset(UNITS)


async def test_a_beat_says_whether_any_worker_has_a_session(shared_leases: LeaseSide) -> None:
    """Also to a process without units."""
    member = shared_leases.member()
    for units in ({}, {"things": UNITS}):
        assert not (await member.beat(units, ())).any_session
    await shared_leases.open_session()
    for units in ({}, {"things": UNITS}):
        assert (await member.beat(units, ())).any_session


async def test_a_beat_says_which_groups_living_members_had_before(shared_leases: LeaseSide) -> None:
    first, second, third = shared_leases.member(), shared_leases.member(), shared_leases.member()
    assert (await first.beat({"things": UNITS}, ())).groups == frozenset()
    assert (await second.beat({"more": ("one",), "others": ("two",)}, ())).groups == {"things"}
    assert (await third.beat({}, ())).groups == {"things", "more", "others"}
    await shared_leases.pass_time(LEASE_S + 1)
    assert (await third.beat({}, ())).groups == frozenset()
