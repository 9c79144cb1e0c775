"""What the start of a run or of a call needs beside the command loop: in the role api, and in the role saga for triggers."""

from api.assembly import storage
from api.assembly.parts import Parts, part
from application.reads import Reads
from application.runs.admission import RunAdmission
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
    own = RunAdmission(
        (await reads(parts)).activity,
        most=settings.max_open_runs,
        most_of_tenant=settings.max_open_runs_per_tenant,
        refused=_counted if "api" in parts.roles else None,
    )
    parts.stack.push_async_callback(own.close)
    return own


def _counted(reason: str) -> None:
    from api import metrics  # only the api role exports metrics

    metrics.RUNS_REFUSED.labels(reason).inc()
