"""The table of permissions: what it allows, and what a refusal says."""

import itertools
from uuid import UUID

import pytest

from domain.access import (
    PERMISSIONS,
    Action,
    KeyIsNarrowed,
    NotPermitted,
    Role,
    is_within,
    may,
    may_give,
    must_be_allowed,
    roles_that_may,
)


def test_who_may_not_is_refused_with_the_roles_that_may() -> None:
    for role, action in itertools.product(Role, Action):
        if action in PERMISSIONS[role]:
            must_be_allowed(role, action)
            continue
        with pytest.raises(NotPermitted) as refused:
            must_be_allowed(role, action)
        assert (refused.value.role, refused.value.action, refused.value.roles) == (role, action, roles_that_may(action))
    with pytest.raises(NotPermitted) as refused:
        must_be_allowed(Role.AUDITOR, Action.RUNS_START)
    assert refused.value.message == (
        "`runs.start` is not allowed to a key of the role auditor; roles that may: owner, admin, developer"
    )


def test_a_worker_only_works_and_an_auditor_changes_nothing() -> None:
    assert [action for action in Action if may(Role.WORKER, action)] == [Action.WORKERS_WORK]
    signs_in = {Action.SESSIONS_BEGIN, Action.SESSIONS_END}
    assert all(action.endswith((".read", ".export")) for action in Action if may(Role.AUDITOR, action) and action not in signs_in)


def test_only_owners_give_what_owners_have() -> None:
    given = {(giver, role) for giver, role in itertools.product(Role, Role) if may_give(giver, role)}
    assert given == {(Role.OWNER, role) for role in Role} | {(Role.ADMIN, role) for role in Role if role is not Role.OWNER}


@pytest.mark.parametrize("kind", [Role, Action])
def test_each_request_looks_up_the_table_without_a_call_into_python(kind: type[Role] | type[Action]) -> None:
    assert kind.__hash__ is str.__hash__
    assert all(hash(member) == hash(member.value) and kind(member.value) is member for member in kind)


def test_what_is_narrowed_is_inside_of_what_is_narrowed_less() -> None:
    one, two = UUID(int=1), UUID(int=2)
    for projects, bounds in ((None, None), ((one,), None), ((one,), (one,)), ((one, two), (two, one)), ((one,), (one, two))):
        assert is_within(projects, bounds)
    for projects, bounds in ((None, (one,)), ((one, two), (one,)), ((two,), (one,))):
        assert not is_within(projects, bounds)
    assert KeyIsNarrowed(Action.KEYS_ISSUE).message == (
        "`keys.issue` is for the whole tenant here: a key that is narrowed to projects may not do it"
    )
