"""Retries of runs in memory."""

from typing import Any
from uuid import UUID

from application.runs.retry import retry_run
from domain import runs
from domain.runs import RetryRun
from tests.kit.engine import Engine, PlayedWorker
from tests.kit.waiting import request_of


async def retry(engine: Engine, run_id: UUID, *steps: str, **more: Any) -> None:
    command = RetryRun(run_id=run_id, steps=steps, reason="mended", **more)
    await retry_run(engine.commands, engine.feed, request_of(), command, lambda request: request)


async def do(worker: PlayedWorker, agent: str, result: Any = "done") -> Any:
    claim = await worker.next(agent)
    await claim.complete(result)
    return claim


async def fail(worker: PlayedWorker, agent: str) -> Any:
    claim = await worker.next(agent)
    await claim.fail()
    return claim


def status(run: runs.Run) -> dict[str, str]:
    return {key: state.status for key, state in run.steps.items()}
