"""The tables of this product: routes, events, sagas. The composition root passes them to the engine."""

from application.engine.catalog import Catalog
from application.engine.sagas.reactions import Reactions
from application.routes import ROUTES
from application.sagas import (
    approvals,
    budgets,
    chains,
    child_runs,
    compensations,
    message_delivery,
    notices,
    run_keys,
    run_lifecycle,
    steering,
    tool_execution,
    waits,
    work_dispatch,
)
from domain.registry import REGISTRY

SAGAS: dict[str, Reactions] = {
    "approvals": approvals.REACTIONS,
    "compensations": compensations.REACTIONS,
    "tool_execution": tool_execution.REACTIONS,
    "run_lifecycle": run_lifecycle.REACTIONS,
    "work_dispatch": work_dispatch.REACTIONS,
    "message_delivery": message_delivery.REACTIONS,
    "chains": chains.REACTIONS,
    "child_runs": child_runs.REACTIONS,
    "steering": steering.REACTIONS,
    "waits": waits.REACTIONS,
    "budgets": budgets.REACTIONS,
    "run_keys": run_keys.REACTIONS,
    "notices": notices.REACTIONS,
}
"""The names must never change: ids of commands are derived from them. They react to an event in this order: an effect is noted
before its agent hears of it, and perhaps causes the next one, and so is untrusted output; the calls of an ended agent run are
cancelled before its run hears of the end, and perhaps ends. A key is given back last: it has a root of its own, so the manager does
it, and what comes after an answer of the manager is left to it, too."""

NUMBERS: dict[str, int] = {
    "tool_execution": 1, "run_lifecycle": 2, "work_dispatch": 3, "message_delivery": 4, "chains": 5, "compensations": 6,
    "child_runs": 7, "steering": 8, "waits": 9, "approvals": 10, "budgets": 11,
    "run_keys": 13, "notices": 12,
}  # fmt: skip
"""The bit of each saga in `event.settled`, for ever: no number is given twice. A saga whose answers change gets a new number."""

CATALOG = Catalog(ROUTES, REGISTRY, SAGAS, NUMBERS)
