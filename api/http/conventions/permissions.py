"""Each route names its action, or that it is public. The table in domain/access.py says which roles may do it.

It also names its reach: what a key gets from it that is narrowed to projects. A route without a reach is one of the whole tenant,
and refuses such keys. So a route that forgets its reach shows too little, never too much.

The decorators stand below the decorator of the route, so that the route finds the name when it is declared:

    @router.post("/v1/runs")
    @needs(Action.RUNS_START, Reach.LIMITED)
    async def post_run(request: Request) -> Response: ...
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from api.http.conventions.request import Principal
from domain.access import Action, KeyIsNarrowed, NotPermitted, Role, roles_that_may

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

PROTECTED = "/v1/"
"""Requests to paths that begin so need a key, or the cookie of a browser that was signed in by one."""
KEYLESS = frozenset({"/v1/sessions"})
"""But these: a browser signs in there. Each route there checks the permission itself, once it knows the key (`signs_in`)."""
_NAME = "__tidelog_permission__"


class Reach(Enum):
    """What of its tenant a route is about. The value: the parameter of the path that names it."""

    TENANT = ""
    """The whole tenant. A narrowed key is refused with 403."""
    CATALOG = "-"
    """What all projects share: agents and tools. A narrowed key gets all of it."""
    LIMITED = "*"
    """Several things, or a new one. The endpoint itself keeps to the projects of the key (`projects_of`, `seen_by`)."""
    RUN = "run_id"
    """One run. Where the key is for other projects, the run is not there; so with the next ones."""
    CALL = "invocation_id"
    APPROVAL = "approval_id"
    EVENT = "position"
    PROJECT = "project_id"


BY_PATH = frozenset({Reach.RUN, Reach.CALL, Reach.APPROVAL, Reach.EVENT, Reach.PROJECT})


@dataclass(frozen=True, slots=True)
class Permission:
    """What a route needs. `action`: None for a public route, which needs no key."""

    action: Action | None
    roles: frozenset[Role] = frozenset()
    reach: Reach = Reach.TENANT
    by_endpoint: bool = False
    """The endpoint itself calls `check`: the request has no principal before."""
    by_key: bool = False
    """The cookie of a browser does not count: the route needs the key itself."""

    @classmethod
    def of(cls, path: str, endpoint: Callable[..., Any]) -> "Permission":
        """Raises TypeError for a route that does not say what it needs, and for one that says what cannot be."""
        found: Permission | None = getattr(endpoint, _NAME, None)
        if found is None:
            raise TypeError(f"{path}: the endpoint does not say what it needs; write @needs(Action.…) or @public above it")
        if (found.action is None) is path.startswith(PROTECTED):
            raise TypeError(f"{path}: routes under {PROTECTED} need an action, and all others are public")
        if found.by_endpoint is not (path in KEYLESS):
            raise TypeError(f"{path}: the routes of {', '.join(KEYLESS)}, and no others, say @signs_in")
        if found.reach in BY_PATH and f"{{{found.reach.value}}}" not in path:
            raise TypeError(f"{path}: the route is about one {found.reach.name}, and has no {{{found.reach.value}}}")
        return found

    def check(self, principal: Principal) -> None:
        """Raises NotPermitted, KeyIsNarrowed."""
        if self.action is not None:
            if principal.role not in self.roles:
                raise NotPermitted(principal.role, self.action)
            if principal.projects is not None and self.reach is Reach.TENANT:
                raise KeyIsNarrowed(self.action)


def needs(action: Action, reach: Reach = Reach.TENANT, *, by_key: bool = False) -> Callable[[Endpoint], Endpoint]:
    """The endpoint needs a key whose role may do the action, and has this reach. `by_key`, and work of workers: by no cookie."""
    by_key = by_key or action is Action.WORKERS_WORK
    return _says(Permission(action, frozenset(roles_that_may(action)), reach, by_key=by_key))


def signs_in(action: Action) -> Callable[[Endpoint], Endpoint]:
    """The endpoint makes its caller known, and then checks that the role may do the action (`permission_of`)."""
    return _says(Permission(action, frozenset(roles_that_may(action)), Reach.LIMITED, by_endpoint=True))


def permission_of(endpoint: Callable[..., Any]) -> Permission:
    permission: Permission = getattr(endpoint, _NAME)
    return permission


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
