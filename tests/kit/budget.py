"""A catalog whose rules record a command each time it is decided: only the command id shows that it was recorded. And `Stops`."""

import asyncio
from collections.abc import Mapping
from uuid import UUID

from application.engine.catalog import Catalog
from application.engine.commands.routes import Route
from application.engine.sagas.reactions import Reaction, ReactionCause, Reactions
from application.routes import ROUTES
from domain.context import ContextValueSet
from domain.kernel import Command, Decider, Event, derive_id
from domain.projects import ProjectCreated
from domain.registry import REGISTRY

AMOUNTS = (3, 4)
TOTALS = [AMOUNTS[0], sum(AMOUNTS)]
"""The running totals of the reserved amount, if each reaction was recorded once."""


class Reserve(Command):
    """Reserves an amount of a project's budget each time that the command is decided."""

    project_id: UUID
    amount: int


def _decide(reserved: int, command: Reserve) -> list[Event]:
    total = reserved + command.amount
    event = ContextValueSet(run_id=command.project_id, agent_run_id=command.project_id, name="budget", value=total, value_version=1)
    return [event]


def _evolve(reserved: int, event: ContextValueSet) -> int:
    return int(event.value)


BUDGET: Decider[int] = Decider("context", int, _decide, _evolve)
"""Other rules for an existing slice: the owner of the stream follows from its events."""
ROUTES_WITH_BUDGET: Mapping[type[Command], Route] = {
    **ROUTES,
    Reserve: Route(BUDGET, lambda c: budget_of(c.project_id), lambda c, _: c.project_id),
}


def on_project_created(event: ProjectCreated, cause: ReactionCause) -> list[Reaction]:
    return [Reserve(project_id=cause.stream_id, amount=amount) for amount in AMOUNTS]


BUDGET_SAGAS: Mapping[str, Reactions] = {"budget": {ProjectCreated: on_project_created}}
BUDGET_CATALOG = Catalog(ROUTES_WITH_BUDGET, REGISTRY, BUDGET_SAGAS)
"""The saga has no number: the saga manager gives all its reactions."""
NUMBERED_BUDGET_CATALOG = Catalog(ROUTES_WITH_BUDGET, REGISTRY, BUDGET_SAGAS, {"budget": 7})
"""The reactions go into the append of their event."""


def budget_of(project_id: UUID) -> UUID:
    return derive_id(project_id, "budget")


class Stops:
    """Lets all calls through up to one moment. The call at that moment never returns."""

    def __init__(self, moment: str) -> None:
        self._moment = moment
        self.reached = asyncio.Event()

    async def at(self, moment: str) -> None:
        if moment == self._moment:
            self.reached.set()
            await asyncio.Event().wait()
