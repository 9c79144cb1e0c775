"""Each route names its action, or that it is public. The table in domain/access.py says which roles may do it.

The decorators stand below the decorator of the route, so that the route finds the name when it is declared:

    @router.post("/v1/runs")
    @needs(Action.RUNS_START)
    async def post_run(request: Request) -> Response: ...
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from domain.access import Action, NotPermitted, Role, roles_that_may

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

PROTECTED = "/v1/"
"""Requests to paths that begin so need a key."""
_NAME = "__tidelog_permission__"


@dataclass(frozen=True, slots=True)
class Permission:
    """What a route needs. `action`: None for a public route, which needs no key."""

    action: Action | None
    roles: frozenset[Role] = frozenset()

    @classmethod
    def of(cls, path: str, endpoint: Callable[..., Any]) -> "Permission":
        """Raises TypeError for a route that does not say what it needs, and for one that says what cannot be."""
        found: Permission | None = getattr(endpoint, _NAME, None)
        if found is None:
            raise TypeError(f"{path}: the endpoint does not say what it needs; write @needs(Action.…) or @public above it")
        if (found.action is None) is path.startswith(PROTECTED):
            raise TypeError(f"{path}: routes under {PROTECTED} need an action, and all others are public")
        return found

    def check(self, role: Role) -> None:
        """Raises NotPermitted."""
        if role not in self.roles and self.action is not None:
            raise NotPermitted(role, self.action)


def needs(action: Action) -> Callable[[Endpoint], Endpoint]:
    """The endpoint needs a key whose role may do the action."""
    return _says(Permission(action, frozenset(roles_that_may(action))))


def public(endpoint: Endpoint) -> Endpoint:
    """The endpoint needs no key."""
    return _says(Permission(None))(endpoint)


def _says(permission: Permission) -> Callable[[Endpoint], Endpoint]:
    def name(endpoint: Endpoint) -> Endpoint:
        if hasattr(endpoint, _NAME):
            raise TypeError(f"{endpoint.__name__} says twice what it needs")
        setattr(endpoint, _NAME, permission)
        return endpoint

    return name
