"""Upkeep: the tables that would grow for ever are pruned, by one process at a time, and each run is recorded for people to see."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

import structlog

from application.engine.ports.blobs import BlobStore
from application.engine.ports.browser_sessions import BrowserSessions
from application.engine.ports.idempotency import IdempotencyKeys
from application.engine.ports.outcomes import KEPT_S, OutcomeCounts
from application.engine.ports.permits import PermitBook
from application.engine.ports.timers import PARKED_AS as DUE_TIMERS
from application.engine.ports.upkeep import RecordedCommands, UpkeepRun, UpkeepRuns
from application.engine.ports.work_logs import WorkLogs
from application.engine.retry import persistently
from application.engine.sagas.manager import PARTITIONS
from domain.errors import Unavailable

LOOK_EVERY_S = 60.0
BLOBS_EVERY_S = 600.0
UPLOAD_S = 900.0
"""Seconds after which an upload has ended, one way or another: longer than a request's body may take."""
KEYS_EVERY_S = 3_600.0
COMMANDS_EVERY_S = 6 * 3_600.0
WORK_LOGS_EVERY_S = 6 * 3_600.0
OUTCOMES_EVERY_S = 24 * 3_600.0
TOOL_LIMITS_EVERY_S = 6 * 3_600.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Chore:
    """Something that is tidied up now and then. `work` returns the number of removed rows, and may be done twice."""

    name: str
    every_s: float
    work: Callable[[], Awaitable[int]]


def chores(
    keys: IdempotencyKeys,
    commands: RecordedCommands,
    logs: WorkLogs,
    blobs: BlobStore,
    outcomes: OutcomeCounts,
    permits: PermitBook,
    sessions: BrowserSessions,
    *,
    command_horizon_s: float,
    consumers: Sequence[str] = (),
) -> tuple[Chore, ...]:
    """The chores of the server. `command_horizon_s`: the age up to which a command that comes again is recognised by its id.

    `consumers`: those of the log, beside the sagas, whose effects are commands.
    """
    of_whom = (*PARTITIONS, *consumers)
    prune = partial(commands.prune, older_than_s=command_horizon_s, consumers=of_whom, parking=(*PARTITIONS, DUE_TIMERS))
    return (
        Chore("breaker-counts", OUTCOMES_EVERY_S, partial(outcomes.prune, KEPT_S)),
        Chore("browser-sessions", KEYS_EVERY_S, sessions.expire),
        Chore("commands", COMMANDS_EVERY_S, prune),
        Chore("idempotency-keys", KEYS_EVERY_S, keys.expire),
        Chore("work-logs", WORK_LOGS_EVERY_S, logs.keep),
        Chore("uploads", BLOBS_EVERY_S, partial(blobs.sweep, older_than_s=UPLOAD_S)),
        Chore("tool-limits", TOOL_LIMITS_EVERY_S, permits.tidy),
    )


class Upkeep:
    """Does each chore at its time, also when another process did it the last time."""

    def __init__(self, chores: Sequence[Chore], runs: UpkeepRuns) -> None:
        self._chores = chores
        self._runs = runs

    async def run(self) -> NoReturn:
        while True:
            ages = {state.name: state.age_s for state in await persistently(self._runs.states)}
            for chore in self._chores:
                if not 0 <= ages.get(chore.name, -1.0) < chore.every_s:
                    await self._do(chore)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _do(self, chore: Chore) -> None:
        clock = asyncio.get_running_loop().time
        began, removed, error = clock(), 0, None
        try:
            removed = await chore.work()
        except Unavailable as away:
            log.warning("upkeep_postponed", upkeep=chore.name, error=away.message)
            return
        except Exception as failure:  # a defect, which people must see; the other chores go on
            log.error("upkeep_failed", upkeep=chore.name, exc_info=failure)
            error = f"{type(failure).__name__}: {failure}"
        seconds = clock() - began
        await persistently(partial(self._runs.record, UpkeepRun(chore.name, chore.every_s, seconds, removed, error)))
        if error is None:
            log.info("upkeep_done", upkeep=chore.name, removed=removed, seconds=round(seconds, 3))
