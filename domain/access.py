"""Who may do what: roles, actions, and the table of permissions.

A key has one role. Each route and each message of a session names its action, and the table says which roles may do it. No
route compares roles.
"""

from collections.abc import Collection
from enum import StrEnum
from uuid import UUID

from domain.errors import Forbidden


class Role(StrEnum):
    """What a key may do in its tenant."""

    __hash__ = str.__hash__  # that of enumerations is a function in Python, which each request would call twice
    OWNER = "owner"
    """Everything, keys of owners included."""
    ADMIN = "admin"
    """Everything but keys of owners."""
    OPERATOR = "operator"
    """Reads, cancels, forks and retries runs, takes their effects back, approves and resolves tool calls, holds breakers, lifts
    budgets, rebuilds read models."""
    DEVELOPER = "developer"
    """Reads, starts, cancels, forks and retries runs, makes projects."""
    AUDITOR = "auditor"
    """Reads everything, keys and the audit trail included, and changes nothing."""
    WORKER = "worker"
    """Has a session of a worker, and does the work that comes to it. Reads nothing else."""


class Action(StrEnum):
    """What a route or a message does, as the audit trail and a refusal name it."""

    __hash__ = str.__hash__
    RUNS_READ = "runs.read"
    """Runs and everything inside: steps, calls, journals, messages, logs, values."""
    RUNS_START = "runs.start"
    RUNS_CANCEL = "runs.cancel"
    RUNS_STEER = "runs.steer"
    """Pauses runs and lets them go on; dispatches work again that waits."""
    RUNS_FORCE = "runs.force"
    """Skips steps, and says how they end."""
    RUNS_DEADLINE = "runs.deadline"
    """Gives a run that goes on a deadline, another one, or none."""
    RUNS_RETRY = "runs.retry"
    """What failed in a run runs again, and a run that had ended goes on."""
    RUNS_SIGNAL = "runs.signal"
    """Sends signals to the agents of a run."""
    RUNS_BULK = "runs.bulk"
    """Gives one command to all runs that a filter finds. The right to give that command to a run is needed, too."""
    RUNS_FORK = "runs.fork"
    """Starts a run that begins with what another one was."""
    RUNS_COMPENSATE = "runs.compensate"
    """Takes back the effects of a run that has ended, and says how that goes on."""
    EVENTS_READ = "events.read"
    TRIGGERS_READ = "triggers.read"
    """Triggers, what came of them, and dry runs."""
    TRIGGERS_DEFINE = "triggers.define"
    """Creates, changes and removes triggers, and rotates the secrets of their webhooks."""
    TRIGGERS_PAUSE = "triggers.pause"
    """Pauses and resumes triggers."""
    INVOCATIONS_READ = "invocations.read"
    INVOCATIONS_RESOLVE = "invocations.resolve"
    INVOCATIONS_CANCEL = "invocations.cancel"
    """A call that belongs to no run."""
    APPROVALS_READ = "approvals.read"
    """Approvals, with what is asked, and the policies that ask for them."""
    APPROVALS_DECIDE = "approvals.decide"
    """Approves and denies what waits for it, and changes the arguments with which a call is approved."""
    APPROVALS_DEFINE = "approvals.define"
    """Publishes and removes the policies that say which calls need an approval."""
    CATALOG_READ = "catalog.read"
    """Registered agents and tools, workflows, and what an id names."""
    TOOLS_DEFINE = "tools.define"
    """Tools that are data and their versions; deprecates any tool."""
    TOOLS_REMOVE = "tools.remove"
    TOOLS_CALL = "tools.call"
    """Without a run."""
    WORKFLOWS_DEFINE = "workflows.define"
    """Drafts and versions of workflows; deprecates them."""
    BLOBS_READ = "blobs.read"
    """Contents that are too large for events, and the list of them."""
    BLOBS_WRITE = "blobs.write"
    BLOBS_REMOVE = "blobs.remove"
    BREAKERS_FORCE = "breakers.force"
    """Holds the breaker of a tool open or closed, whatever the outcomes of its calls are."""
    BUDGETS_READ = "budgets.read"
    """Budgets, and what calls have used."""
    BUDGETS_SET = "budgets.set"
    """Sets and removes budgets."""
    BUDGETS_LIFT = "budgets.lift"
    """Gives more of a budget, for today or for a run."""
    SCHEDULES_READ = "schedules.read"
    SCHEDULES_DEFINE = "schedules.define"
    """Creates, changes and removes schedules, and starts a run of one out of turn."""
    SCHEDULES_PAUSE = "schedules.pause"
    """And resumes them."""
    PROJECTS_READ = "projects.read"
    PROJECTS_CREATE = "projects.create"
    PROJECTS_REMOVE = "projects.remove"
    WORKERS_READ = "workers.read"
    WORKERS_WORK = "workers.work"
    """A session of a worker, its messages, and the reports of workers of 0.1.0."""
    PROJECTIONS_READ = "projections.read"
    PROJECTIONS_VERIFY = "projections.verify"
    PROJECTIONS_REBUILD = "projections.rebuild"
    """Everything that changes which version of a read model is live, or ends such work."""
    PROJECTIONS_RETRY = "projections.retry"
    LOG_READ = "log.read"
    """The gaps of the log."""
    SELF_READ = "self.read"
    """The caller's own key: its role, projects and expiry."""
    SESSIONS_BEGIN = "sessions.begin"
    """Signs a browser in."""
    SESSIONS_END = "sessions.end"
    """Signs the caller's own browser out."""
    KEYS_READ = "keys.read"
    KEYS_ISSUE = "keys.issue"
    KEYS_ROTATE = "keys.rotate"
    KEYS_REVOKE = "keys.revoke"
    AUDIT_READ = "audit.read"
    AUDIT_EXPORT = "audit.export"


_CONTENT = frozenset(
    {
        Action.RUNS_READ,
        Action.EVENTS_READ,
        Action.TRIGGERS_READ,
        Action.INVOCATIONS_READ,
        Action.APPROVALS_READ,
        Action.CATALOG_READ,
        Action.BLOBS_READ,
        Action.BUDGETS_READ,
        Action.SCHEDULES_READ,
        Action.PROJECTS_READ,
        Action.WORKERS_READ,
        Action.PROJECTIONS_READ,
        Action.SELF_READ,
        Action.SESSIONS_BEGIN,
        Action.SESSIONS_END,
    }
)

PERMISSIONS: dict[Role, frozenset[Action]] = {
    Role.OWNER: frozenset(Action),
    Role.ADMIN: frozenset(Action),
    Role.OPERATOR: _CONTENT
    | {
        Action.RUNS_CANCEL,
        Action.RUNS_STEER,
        Action.RUNS_FORCE,
        Action.RUNS_DEADLINE,
        Action.RUNS_RETRY,
        Action.RUNS_SIGNAL,
        Action.RUNS_BULK,
        Action.RUNS_FORK,
        Action.RUNS_COMPENSATE,
        Action.INVOCATIONS_RESOLVE,
        Action.APPROVALS_DECIDE,
        Action.BREAKERS_FORCE,
        Action.BUDGETS_LIFT,
        Action.TRIGGERS_PAUSE,
        Action.INVOCATIONS_CANCEL,
        Action.SCHEDULES_PAUSE,
        Action.PROJECTIONS_VERIFY,
        Action.PROJECTIONS_REBUILD,
        Action.PROJECTIONS_RETRY,
        Action.LOG_READ,
    },
    Role.DEVELOPER: _CONTENT
    | {Action.RUNS_START, Action.RUNS_CANCEL, Action.RUNS_STEER, Action.RUNS_DEADLINE, Action.RUNS_RETRY}
    | {Action.RUNS_SIGNAL, Action.RUNS_BULK}
    | {Action.RUNS_FORK}
    | {Action.PROJECTS_CREATE, Action.PROJECTS_REMOVE}
    | {Action.TOOLS_DEFINE, Action.TOOLS_REMOVE, Action.TOOLS_CALL, Action.INVOCATIONS_CANCEL, Action.WORKFLOWS_DEFINE}
    | {Action.BLOBS_WRITE, Action.BLOBS_REMOVE, Action.TRIGGERS_DEFINE, Action.TRIGGERS_PAUSE}
    | {Action.SCHEDULES_DEFINE, Action.SCHEDULES_PAUSE},
    Role.AUDITOR: _CONTENT | {Action.LOG_READ, Action.KEYS_READ, Action.AUDIT_READ, Action.AUDIT_EXPORT},
    Role.WORKER: frozenset({Action.WORKERS_WORK}),
}
"""The table: role → its actions."""


AUDITED = frozenset(
    {
        Action.TOOLS_DEFINE,
        Action.TOOLS_REMOVE,
        Action.TOOLS_CALL,
        Action.WORKFLOWS_DEFINE,
        Action.BLOBS_REMOVE,
        Action.BREAKERS_FORCE,
        Action.BUDGETS_SET,
        Action.BUDGETS_LIFT,
        Action.TRIGGERS_DEFINE,
        Action.TRIGGERS_PAUSE,
        Action.RUNS_CANCEL,
        Action.RUNS_STEER,
        Action.RUNS_FORCE,
        Action.RUNS_DEADLINE,
        Action.RUNS_RETRY,
        Action.RUNS_SIGNAL,
        Action.RUNS_BULK,
        Action.RUNS_FORK,
        Action.RUNS_COMPENSATE,
        Action.INVOCATIONS_RESOLVE,
        Action.INVOCATIONS_CANCEL,
        Action.APPROVALS_DECIDE,
        Action.APPROVALS_DEFINE,
        Action.SCHEDULES_DEFINE,
        Action.SCHEDULES_PAUSE,
        Action.PROJECTS_REMOVE,
        Action.PROJECTIONS_VERIFY,
        Action.PROJECTIONS_REBUILD,
        Action.PROJECTIONS_RETRY,
        Action.KEYS_ISSUE,
        Action.KEYS_ROTATE,
        Action.KEYS_REVOKE,
        Action.SESSIONS_BEGIN,
        Action.SESSIONS_END,
        Action.AUDIT_EXPORT,
    }
)
"""The actions of operators: each one leaves an entry in the audit trail (domain/audit.py)."""


def may(role: Role, action: Action) -> bool:
    return action in PERMISSIONS[role]


def roles_that_may(action: Action) -> list[Role]:
    """In the order of `Role`."""
    return [role for role in Role if may(role, action)]


class NotPermitted(Forbidden):
    """The role of the key does not allow the action."""

    def __init__(self, role: Role, action: Action) -> None:
        self.role, self.action, self.roles = role, action, roles_that_may(action)
        super().__init__(f"`{action}` is not allowed to a key of the role {role}; roles that may: {', '.join(self.roles)}")


def must_be_allowed(role: Role, action: Action) -> None:
    """Raises NotPermitted."""
    if not may(role, action):
        raise NotPermitted(role, action)


def may_give(giver: Role, given: Role) -> bool:
    """Whether a key of one role may issue, rotate or revoke keys of another. Only an owner gives what an owner has."""
    return may(giver, Action.KEYS_ISSUE) and (giver is Role.OWNER or given is not Role.OWNER)


def is_within(projects: Collection[UUID] | None, bounds: Collection[UUID] | None) -> bool:
    """Whether what is narrowed to some projects is inside the bounds. None: the whole tenant."""
    return bounds is None or (projects is not None and set(projects) <= set(bounds))


class KeyIsNarrowed(Forbidden):
    """The action is one of the whole tenant, and the key is for some projects of it."""

    def __init__(self, action: Action) -> None:
        super().__init__(f"`{action}` is for the whole tenant here: a key that is narrowed to projects may not do it")
