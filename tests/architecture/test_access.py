"""The page about access says what the table of permissions says, cell by cell."""

import re

import pytest

from api.http.app import ROUTERS
from api.http.conventions.permissions import Reach
from api.http.conventions.routing import DirectRoute
from application.workers.hosting import messages
from domain.access import PERMISSIONS, Action, Role, may, may_give, roles_that_may
from tests.architecture.sources import ROOT

PAGE = (ROOT / "docs" / "reference" / "access.md").read_text()


def rows(heading: str) -> list[list[str]]:
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


HEADER, *TABLE = rows("Permissions")
CELLS = {(row[0].strip("`"), role.strip("`")): cell for row in TABLE for role, cell in zip(HEADER[2:], row[2:], strict=True)}


def test_the_page_has_each_action_once() -> None:
    assert [row[0] for row in TABLE] == [f"`{action}`" for action in Action]
    assert all(row[1] for row in TABLE)


def test_the_page_has_each_role_once() -> None:
    assert HEADER[2:] == [f"`{role}`" for role in Role]
    assert [row[0] for row in rows("Roles")[1:]] == [f"`{role}`" for role in Role]


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("action", Action)
def test_each_cell_of_the_page_is_true(action: Action, role: Role) -> None:
    assert CELLS[action, role] == ("yes" if may(role, action) else "–")
    assert (role in roles_that_may(action)) is may(role, action)


def test_what_the_page_says_about_roles_in_words() -> None:
    changing = {action for action in Action if not re.search(r"\.(read|export)$|^sessions\.", action)}
    assert not PERMISSIONS[Role.AUDITOR] & changing and PERMISSIONS[Role.AUDITOR] == set(Action) - changing
    assert PERMISSIONS[Role.WORKER] == {Action.WORKERS_WORK}
    assert PERMISSIONS[Role.OWNER] == PERMISSIONS[Role.ADMIN] == set(Action)
    assert [giver for giver in Role if may_give(giver, Role.OWNER)] == [Role.OWNER]
    assert [giver for giver in Role if may_give(giver, Role.AUDITOR)] == [Role.OWNER, Role.ADMIN]


def test_the_page_says_what_narrowed_keys_may_do() -> None:
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, DirectRoute)]
    open_to_them = {
        route.permission.action for route in routes if route.permission.action and route.permission.reach is not Reach.TENANT
    }
    assert [row[0] for row in rows("Narrowed keys")[1:]] == [f"`{action}`" for action in Action if action in open_to_them]


def test_no_action_is_without_a_route_and_no_message_without_an_action() -> None:
    named = {route.permission.action for router in ROUTERS for route in router.routes if isinstance(route, DirectRoute)}
    assert set(Action) <= named
    kinds = messages.Saying.__args__  # type: ignore[attr-defined]
    assert len(kinds) > 10 and {type(kind.ACTION) for kind in kinds} == {Action}
