"""The tables of the product that the engine takes as arguments: routes, events, sagas, hooks, read models."""

from collections.abc import Sequence
from dataclasses import replace

from api.assembly.parts import Parts, part
from application.engine.catalog import Catalog
from application.engine.commands.hooks import Hook
from application.engine.ports.expressions import Expressions
from projections.engine.kernel import Projection
from projections.engine.plugins import Discovery, discover


def expressions_of_here() -> Expressions:
    """Expressions without the other parts of a process."""
    from adapters.expressions import CelExpressions

    return CelExpressions()


@part
async def expressions(_: Parts) -> Expressions:
    return expressions_of_here()


@part
async def catalog(parts: Parts) -> Catalog:
    from application.catalog import CATALOG  # imports all slices, which the relay does not need
    from application.functions import RuleFunctions

    return replace(CATALOG, functions=RuleFunctions(await expressions(parts)))


@part
async def hooks(_: Parts) -> Sequence[Hook]:
    return ()


@part
async def projections(_: Parts) -> Sequence[Projection]:
    from projections.registry import PROJECTIONS

    return PROJECTIONS


@part
async def plugins(parts: Parts) -> Discovery:
    return discover(await projections(parts), (await catalog(parts)).registry.events)


async def read_models(parts: Parts) -> tuple[Projection, ...]:
    """All read models: first the read models of this distribution, then the read models of plug-ins."""
    return (*await projections(parts), *(await plugins(parts)).projections)
