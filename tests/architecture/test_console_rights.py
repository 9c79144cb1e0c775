"""What the console says beforehand that the server would refuse is what the server refuses."""

import re
from pathlib import Path

from domain.access import PERMISSIONS, Action, Role

RIGHTS = Path(__file__).parents[2] / "console/src/api/rights.ts"


def roles_of_the_console() -> dict[str, set[str]]:
    """Action → the roles that may do it, as `rights.ts` says."""
    text = RIGHTS.read_text(encoding="utf-8")
    found = re.findall(r"^const (\w+) = \[(.*)\] as const$", text, re.M)
    lists = {name: set(re.findall(r"'(\w+)'", roles)) for name, roles in found}
    return {action: lists[name] for action, name in re.findall(r"^  '([\w.]+)': (\w+),$", text, re.M)}


def test_the_console_knows_who_may_do_what_it_offers() -> None:
    told = roles_of_the_console()
    assert len(told) > 10
    for action, roles in told.items():
        assert roles == {role.value for role in Role if Action(action) in PERMISSIONS[role]}, action
