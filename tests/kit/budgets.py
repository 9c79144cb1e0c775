"""Runs with budgets, over the engine in memory."""

from typing import Any
from uuid import UUID

from domain import allowances
from domain.allowances import Allowance
from tests.kit.engine import Engine, PlayedWorker
from tests.kit.waiting import TENANT

COSTS = {"policy": {"max_cost": {"money": "0.002"}}}


async def worker_of(engine: Engine, **tools: dict[str, Any]) -> PlayedWorker:
    worker = engine.worker()
    await worker.register("looper", tools_=tools or {"search": COSTS})
    return worker


async def allowance(engine: Engine, allowance_id: UUID) -> Allowance:
    await engine.settled()
    state: Allowance = (await engine.commands.load(allowances.DECIDER, TENANT, allowance_id)).state
    return state
