"""Rules of API keys: who gives which, how one takes the place of another, and that an owner is always left."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st
from pydantic import ValidationError

from domain import tenants
from domain.access import Role
from domain.errors import DomainError, Forbidden, InvalidCommand, InvalidState, NotFound
from domain.tenants import DECIDER, ApiKeyIssued, ApiKeyRevoked, ApiKeyRotated, IssueApiKey, RevokeApiKey, RotateApiKey
from tests.kit import fold, given

TENANT, ONE, TWO, THREE = UUID(int=9), UUID(int=1), UUID(int=2), UUID(int=3)
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
CREATED = tenants.TenantCreated(name="acme")


def sha(number: int) -> str:
    return f"{number:064x}"


def issued(number: int, role: Role = Role.OWNER, expires_at: datetime | None = None) -> ApiKeyIssued:
    return ApiKeyIssued(key_id=UUID(int=number), label="k", sha256=sha(number), role=role, expires_at=expires_at)


def issue(number: int, **changed: Any) -> IssueApiKey:
    said = {"tenant_id": TENANT, "key_id": UUID(int=number), "label": "k", "sha256": sha(number), "at": NOW}
    return IssueApiKey(**said | changed)


def rotate(**changed: Any) -> RotateApiKey:
    said = {"tenant_id": TENANT, "key_id": ONE, "to_key_id": TWO, "sha256": sha(2), "at": NOW}
    return RotateApiKey(**said | changed)


def revoke(number: int, **changed: Any) -> RevokeApiKey:
    return RevokeApiKey(tenant_id=TENANT, key_id=UUID(int=number), **changed)


# --- issue ----------------------------------------------------------------------------------------------------------------


def test_a_key_has_its_role_and_its_expiry() -> None:
    given(DECIDER, CREATED, issued(1)).when(issue(2, role=Role.AUDITOR, expires_at=NOW + DAY)).then(
        issued(2, Role.AUDITOR, NOW + DAY)
    )
    given(DECIDER, CREATED, issued(1)).when(issue(2, role=Role.WORKER)).then(issued(2, Role.WORKER))


def test_a_key_that_would_have_expired_already_is_refused() -> None:
    far = datetime(9999, 12, 31, 23, 59, tzinfo=timezone(-14 * HOUR))
    for at in (NOW, NOW - HOUR, far):
        given(DECIDER, CREATED, issued(1)).when(issue(2, expires_at=at)).refused(InvalidCommand, pointer="/expires_at")


def test_an_expiry_is_stored_in_utc() -> None:
    [event] = given(DECIDER, CREATED, issued(1)).when(issue(2, expires_at=(NOW + DAY).astimezone(timezone(2 * HOUR)))).events()
    assert isinstance(event, ApiKeyIssued) and event.expires_at is not None
    assert event.expires_at.isoformat() == "2026-02-01T12:00:00+00:00"


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValidationError):
        issue(2, expires_at=NOW.replace(tzinfo=None))


def test_the_first_key_of_an_owner_does_not_expire() -> None:
    given(DECIDER, CREATED).when(issue(1, expires_at=NOW + DAY)).refused(InvalidState, "must not expire")
    given(DECIDER, CREATED, issued(1)).when(issue(2, expires_at=NOW + DAY)).then(issued(2, expires_at=NOW + DAY))
    given(DECIDER, CREATED, issued(1, Role.ADMIN)).when(issue(2, expires_at=NOW + DAY)).refused(InvalidState)


@pytest.mark.parametrize("giver", Role)
@pytest.mark.parametrize("role", Role)
def test_only_who_may_give_gives(giver: Role, role: Role) -> None:
    may = giver is Role.OWNER or (giver is Role.ADMIN and role is not Role.OWNER)
    held = given(DECIDER, CREATED, issued(1, role), issued(9))
    commands = [issue(2, role=role, giver=giver), rotate(giver=giver), revoke(1, giver=giver)]
    for command, action in zip(commands, ("keys.issue", "keys.rotate", "keys.revoke"), strict=True):
        if may:
            assert held.when(command).events()
        else:
            held.when(command).refused(Forbidden, action)


def narrowed(number: int, *projects: UUID, role: Role = Role.OWNER) -> ApiKeyIssued:
    return issued(number, role).model_copy(update={"projects": projects})


def test_a_key_can_be_narrowed_to_projects() -> None:
    """They are in order and named once, and the key that takes its place has them, too."""
    held = given(DECIDER, CREATED, issued(9))
    held.when(issue(1, projects=(TWO, ONE, TWO))).then(narrowed(1, ONE, TWO))
    key = given(DECIDER, CREATED, issued(9), narrowed(1, ONE, role=Role.AUDITOR))
    key.when(rotate()).then(narrowed(2, ONE, role=Role.AUDITOR), ApiKeyRotated(key_id=ONE, rotated_to=TWO, expires_at=NOW + DAY))
    held.when(issue(1, projects=(ONE,), role=Role.WORKER)).refused(InvalidCommand, "role worker", pointer="/projects")
    for projects in ((), (ONE,) * (tenants.MOST_PROJECTS + 1)):
        with pytest.raises(ValidationError):
            issue(1, projects=projects)
    assert issue(1, projects=(ONE,) * tenants.MOST_PROJECTS).projects


def test_a_narrowed_key_of_an_owner_is_not_the_owner_that_is_left() -> None:
    given(DECIDER, CREATED).when(issue(1, projects=(ONE,))).refused(InvalidState, "must not be narrowed")
    held = given(DECIDER, CREATED, issued(1), narrowed(2, ONE))
    held.when(revoke(1)).refused(InvalidState, "last key of an owner")
    lasting = rotate(to_key_id=THREE, sha256=sha(3), expires_at=NOW + DAY)
    held.when(lasting).refused(InvalidState, "last key of an owner")
    assert held.when(revoke(2)).events()


def test_nobody_gives_or_takes_more_than_their_own_projects() -> None:
    held = given(DECIDER, CREATED, issued(9), issued(1), narrowed(3, ONE))
    for command in (
        issue(2, giver_projects=(ONE,)),
        issue(2, projects=(ONE, TWO), giver_projects=(ONE,)),
        rotate(giver_projects=(ONE,)),
        revoke(1, giver_projects=(ONE,)),
    ):
        held.when(command).refused(Forbidden, "narrowed to projects")
    assert held.when(issue(2, projects=(ONE,), giver_projects=(ONE, TWO))).events()
    assert held.when(rotate(key_id=THREE, giver_projects=(ONE,))).events()
    assert held.when(revoke(3, giver_projects=(ONE,))).events()


def test_releases_that_would_take_a_narrowed_key_for_more_do_not_read_it() -> None:
    assert (issued(1).stored_version, issued(1, Role.AUDITOR).stored_version) == (1, 2)
    assert (issued(1, expires_at=NOW).stored_version, narrowed(1, ONE).stored_version) == (2, 3)


def test_a_tenant_has_at_most_a_thousand_valid_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenants, "MOST_KEYS", 3)
    given(DECIDER, CREATED, issued(1), issued(2)).when(issue(3)).then(issued(3))
    full = given(DECIDER, CREATED, issued(1), issued(2), issued(3, expires_at=NOW + HOUR))
    full.when(issue(4)).refused(InvalidState, "3 valid keys")
    full.when(issue(4, at=None)).refused(InvalidState, "3 valid keys")
    full.when(rotate(to_key_id=UUID(int=4), sha256=sha(4))).refused(InvalidState, "3 valid keys")
    room = ApiKeyRevoked(key_id=THREE, reason="expired")
    full.when(issue(4, at=NOW + HOUR)).then(room, issued(4))
    full.when(issue(3, sha256=sha(7))).refused(InvalidState, "issued before")


# --- rotate ---------------------------------------------------------------------------------------------------------------


def test_a_rotated_key_is_valid_for_the_overlap() -> None:
    held = given(DECIDER, CREATED, issued(1))
    held.when(rotate()).then(issued(2), ApiKeyRotated(key_id=ONE, rotated_to=TWO, expires_at=NOW + DAY))
    held.when(rotate(overlap_s=60)).then(
        issued(2), ApiKeyRotated(key_id=ONE, rotated_to=TWO, expires_at=NOW + timedelta(minutes=1))
    )


def test_a_key_and_those_whose_place_it_took_are_of_one_holder() -> None:
    two_to_three = {"key_id": TWO, "to_key_id": UUID(int=3), "sha256": sha(3)}
    held = given(DECIDER, CREATED, issued(1), issued(9)).after(rotate(), rotate(**two_to_three))
    keys = {UUID(int=number) for number in (1, 2, 3)}
    assert [held.state.same_holder(UUID(int=number)) for number in (1, 2, 3, 9)] == [keys, keys, keys, {UUID(int=9)}]
    gone = given(DECIDER, CREATED, issued(1), issued(9)).after(rotate(overlap_s=0), rotate(**two_to_three, overlap_s=0))
    assert gone.state.same_holder(UUID(int=3)) == keys, "also where the keys of before were revoked"
    assert gone.state.same_holder(UUID(int=7)) == {UUID(int=7)}


def test_without_an_overlap_the_old_key_is_revoked_at_once() -> None:
    *_, rotated, revoked = given(DECIDER, CREATED, issued(1)).when(rotate(overlap_s=0)).events()
    assert (rotated, revoked) == (
        ApiKeyRotated(key_id=ONE, rotated_to=TWO, expires_at=NOW),
        ApiKeyRevoked(key_id=ONE, reason="rotated without an overlap"),
    )


def test_a_rotation_keeps_role_and_expiry_unless_another_is_given() -> None:
    held = given(DECIDER, CREATED, issued(9), issued(1, Role.DEVELOPER, NOW + HOUR))
    held.when(rotate()).then(
        issued(2, Role.DEVELOPER, NOW + HOUR), ApiKeyRotated(key_id=ONE, rotated_to=TWO, expires_at=NOW + HOUR)
    )
    [new, old] = held.when(rotate(expires_at=NOW + 9 * DAY)).events()
    assert isinstance(new, ApiKeyIssued) and new.expires_at == NOW + 9 * DAY
    assert isinstance(old, ApiKeyRotated) and old.expires_at == NOW + HOUR, "a rotation never prolongs the old key"


def test_what_cannot_be_rotated() -> None:
    given(DECIDER, CREATED).when(rotate()).refused(NotFound)
    given(DECIDER, CREATED, issued(1), issued(9), ApiKeyRevoked(key_id=ONE)).when(rotate()).refused(InvalidState, "revoked")
    given(DECIDER, CREATED, issued(1, Role.ADMIN, NOW)).when(rotate()).refused(InvalidState, "expired")
    once = given(DECIDER, CREATED, issued(1)).after(rotate())
    once.when(rotate()).then()
    once.when(rotate(to_key_id=THREE, sha256=sha(3))).refused(InvalidState, f"{TWO} has taken its place")
    given(DECIDER, CREATED, issued(1)).when(rotate(expires_at=NOW)).refused(InvalidCommand, pointer="/expires_at")
    given(DECIDER, CREATED, issued(1)).when(rotate(sha256=sha(1))).refused(InvalidState, "issued before")


@pytest.mark.parametrize("overlap_s", [-1, float("nan"), float("inf"), 90 * 86_400 + 1])
def test_bounds_of_an_overlap(overlap_s: float) -> None:
    with pytest.raises(ValidationError):
        rotate(overlap_s=overlap_s)


# --- the last owner -------------------------------------------------------------------------------------------------------


def test_the_last_owner_stays() -> None:
    alone = given(DECIDER, CREATED, issued(1), issued(2, Role.ADMIN), issued(3, expires_at=NOW + DAY))
    alone.when(revoke(1)).refused(InvalidState, "last key of an owner")
    alone.when(rotate(to_key_id=UUID(int=4), sha256=sha(4), expires_at=NOW + DAY)).refused(InvalidState, "must not expire")
    alone.when(revoke(2)).then(ApiKeyRevoked(key_id=TWO))
    alone.when(revoke(3, reason="done")).then(ApiKeyRevoked(key_id=THREE, reason="done"))
    alone.after(issue(5)).when(revoke(1)).then(ApiKeyRevoked(key_id=ONE))
    rotated = alone.after(rotate(to_key_id=UUID(int=4), sha256=sha(4)))
    rotated.when(revoke(1)).then(ApiKeyRevoked(key_id=ONE))
    rotated.when(revoke(4)).refused(InvalidState, "last key of an owner")


ids = st.integers(1, 6)
times = st.integers(0, 200).map(lambda hours: NOW + hours * HOUR)
roles = st.sampled_from(Role)
commands = st.one_of(
    st.builds(lambda n, role, giver, at, ends: issue(n, role=role, giver=giver, at=at, expires_at=ends),
              ids, roles, roles, times, st.none() | times),
    st.builds(
        lambda n, to, giver, at, overlap, ends: rotate(
            key_id=UUID(int=n), to_key_id=UUID(int=to), sha256=sha(to), giver=giver, at=at, overlap_s=overlap, expires_at=ends
        ),
        ids, ids, roles, times, st.sampled_from([0, 60, 86_400]), st.none() | times,
    ),
    st.builds(lambda n, giver: revoke(n, giver=giver), ids, roles),
)  # fmt: skip


@drawn(st.lists(commands, max_size=40))
def test_whatever_is_asked_an_owner_is_left_and_a_revoked_key_stays_revoked(asked: list[Any]) -> None:
    state = fold(DECIDER, [CREATED, issued(100)])
    ended: set[UUID] = set()
    for command in asked:
        try:
            events = DECIDER.decide(state, command)
        except (DomainError, Forbidden):
            continue
        assert command.giver in (Role.OWNER, Role.ADMIN) or not events
        for event in events:
            state = DECIDER.evolve(state, event)
            if isinstance(event, ApiKeyRevoked):
                ended.add(event.key_id)
        assert any(key.role is Role.OWNER and key.expires_at is None for key in state.keys.values())
        assert not ended & set(state.keys) and ended == set(state.revoked)
        assert len({key.sha256 for key in state.keys.values()}) == len(state.keys)
        if not isinstance(command, RotateApiKey) or command.overlap_s:
            assert DECIDER.decide(state, command) == [], "a repeat does nothing"


# --- stored events --------------------------------------------------------------------------------------------------------


def test_a_stored_key_without_a_role_is_one_of_an_owner() -> None:
    old = ApiKeyIssued.model_validate({"key_id": str(ONE), "label": "l", "sha256": sha(1)})
    assert (old.role, old.expires_at, old.stored_version) == (Role.OWNER, None, 1)


def test_what_the_release_before_would_take_for_an_owner_is_stored_in_a_version_that_it_does_not_read() -> None:
    assert issued(1).stored_version == 1
    assert issued(1, Role.WORKER).stored_version == issued(1, expires_at=NOW).stored_version == 2


def test_a_key_that_an_earlier_release_issued_again_stays_revoked() -> None:
    state = fold(DECIDER, [CREATED, issued(1), ApiKeyRevoked(key_id=ONE), issued(1)])
    assert not state.keys
