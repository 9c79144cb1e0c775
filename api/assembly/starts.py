"""What the start of a run or of a call needs beside the command loop, for every role that starts something."""

from api.assembly import storage
from api.assembly.commands import commands
from api.assembly.parts import Parts, part
from application.budgets.books import Books
from application.reads import Reads
from application.runs.admission import RunAdmission
from projections.activity import ActivityQueries
from projections.reads import reads_of


@part
async def reads(parts: Parts) -> Reads:
    return reads_of(
        await storage.database_of(parts, "reads"),
        keys=await storage.database_of(parts, "commands"),
        health=await storage.database_of(parts, "health"),
    )


@part
async def admission(parts: Parts) -> RunAdmission:
    settings = parts.settings
    refused = None
    if "api" in parts.roles:  # the other roles have no page of metrics
        from api import metrics

        refused = lambda reason: metrics.RUNS_REFUSED.labels(reason).inc()  # noqa: E731
    database = await (storage.database_of(parts, "health") if "api" in parts.roles else storage.database(parts))
    own = RunAdmission(
        parts.given["reads"].activity if "reads" in parts.given else ActivityQueries(database),
        most=settings.max_open_runs,
        most_of_tenant=settings.max_open_runs_per_tenant,
        refused=refused,
    )
    if "api" not in parts.roles:  # which hears of changes at once
        own.default_budget = Books(await commands(parts)).default_of
    parts.stack.push_async_callback(own.close)
    return own
