"""Triggers: what fires them, in both roles that start something."""

from functools import cache
from typing import TYPE_CHECKING

from adapters.postgres.hook_secrets import PostgresHookSecrets
from api.assembly import histories, storage, tables
from api.assembly.commands import commands
from api.assembly.parts import Parts, part
from api.assembly.starts import admission, reads
from application.engine.ports.hook_secrets import HookSecrets
from application.engine.reading.cloudevents import CloudEventEncoder
from application.triggers.firing import Firing
from application.triggers.roots import Roots
from application.triggers.starting import Starter
from application.workflows import Workflows

if TYPE_CHECKING:
    from application.calls import ClientCalls
    from application.triggers.uses import TriggerUses


@part
async def hook_secrets(parts: Parts) -> HookSecrets:
    return PostgresHookSecrets(await storage.database_of(parts, "commands"))


@part
async def roots(parts: Parts) -> Roots:
    registry, keeper = (await tables.catalog(parts)).registry, await histories.histories(parts)
    return Roots(await storage.feed_of(parts, "commands"), await storage.store(parts), registry, keeper)


@part
async def firing(parts: Parts) -> Firing:
    loop, queries, expressions = await commands(parts), await reads(parts), await tables.expressions(parts)

    @cache
    def calls() -> "ClientCalls":
        from application.budgets.calls import BudgetedCalls
        from application.cached_results import CachedResults
        from application.calls import ClientCalls
        from application.chains import Chains
        from application.tool_schemas import ToolSchemas

        chains, budgets = Chains(loop, expressions, queries.tools), BudgetedCalls(loop)
        parts.stack.push_async_callback(budgets.close)
        return ClientCalls(loop, ToolSchemas(), queries.tools, chains, CachedResults(loop, queries.invocations), budgets)

    workflows = Workflows(loop, queries.workflows)
    starter = Starter(loop, queries.agents, await admission(parts), workflows, calls)
    return Firing(loop, starter, (await tables.catalog(parts)).functions)


async def uses(parts: Parts) -> "TriggerUses":
    """What the role api does with triggers."""
    from application.triggers.definitions import TriggerChecks
    from application.triggers.deliveries import Deliveries
    from application.triggers.trying import TryOut
    from application.triggers.uses import TriggerUses

    loop, catalog = await commands(parts), await tables.catalog(parts)
    secrets, fires = await hook_secrets(parts), await firing(parts)
    deliveries = Deliveries(loop, await storage.store(parts), secrets, fires, catalog.functions)
    parts.stack.push_async_callback(deliveries.close)
    encoder, feed = CloudEventEncoder(catalog.registry.events), await storage.feed_of(parts, "reads")
    return TriggerUses(
        TriggerChecks(catalog.registry, await tables.expressions(parts)),
        deliveries,
        secrets,
        TryOut(feed, catalog.registry, await roots(parts), encoder, catalog.functions),
    )
