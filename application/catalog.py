"""The tables of this product: routes, events, sagas. The composition root passes them to the engine."""

from application.engine.catalog import Catalog
from application.engine.sagas.reactions import Reactions
from application.routes import ROUTES
from application.sagas import message_delivery, run_lifecycle, tool_execution, work_dispatch
from domain.registry import REGISTRY

SAGAS: dict[str, Reactions] = {
    "run_lifecycle": run_lifecycle.REACTIONS,
    "work_dispatch": work_dispatch.REACTIONS,
    "tool_execution": tool_execution.REACTIONS,
    "message_delivery": message_delivery.REACTIONS,
}
"""The names must never change: ids of commands are derived from them."""

CATALOG = Catalog(ROUTES, REGISTRY, SAGAS)
