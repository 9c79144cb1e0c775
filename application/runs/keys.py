"""Keys of runs: what goes into the append in which a run begins, so that it has its key, stands in line for it, or is refused."""

from collections.abc import Awaitable, Callable
from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandOutcome
from domain import run_keys, runs
from domain.concurrency import Concurrency, KeyOfRun, OnBusy, key_id_of
from domain.errors import RunKeyBusy
from domain.kernel import Command
from domain.run_keys import ReleaseKey, RunKey, TakeKey, Turn

MOST_LOOKS = 3
"""Looks at runs of a key that end meanwhile."""
MOST_ENDED = 100
"""Runs of one key that have ended, and whose end the key has not heard of."""


def key_of_run(tenant_id: UUID, project_id: UUID, wanted: Concurrency, on_behalf_of: str | None) -> KeyOfRun:
    """`on_behalf_of`: for whom the run is started."""
    key_id = key_id_of(tenant_id, project_id, wanted.key)
    return KeyOfRun(key=wanted.key, on_busy=wanted.on_busy, key_id=key_id, on_behalf_of=on_behalf_of)


def take(key: KeyOfRun, run_id: UUID, *, turn: int = 0, on_busy: OnBusy | None = None) -> TakeKey:
    return TakeKey(key_id=key.key_id, key=key.key, run_id=run_id, turn=turn, on_busy=on_busy or key.on_busy)


async def with_key(
    commands: CommandLoop, tenant_id: UUID, taking: TakeKey, execute: Callable[[tuple[Command, ...]], Awaitable[CommandOutcome]]
) -> CommandOutcome:
    """Executes what takes a key. `execute` is given what goes into its append for the key.

    Raises RunKeyBusy, RunKeyQueueFull, and what `execute` raises.
    """
    before: tuple[Command, ...] = ()
    for _ in range(MOST_LOOKS):
        try:
            return await execute((*before, taking))
        except RunKeyBusy:
            ended = await turns_over(commands, tenant_id, taking.key_id)
            if ended in ((), before):
                raise
            before = ended
    return await execute((*before, taking))


async def turns_over(commands: CommandLoop, tenant_id: UUID, key_id: UUID) -> tuple[ReleaseKey, ...]:
    """What tells a key that the run that holds it has ended, and those that stand in line behind it. Empty: it goes on.

    The news of the end of a run reaches its key a moment later than those who wait for the end. So the run that holds a key is
    looked at before its key is called busy.
    """
    key: RunKey = (await commands.load(run_keys.DECIDER, tenant_id, key_id)).state
    if key.holder is None or not await _is_over(commands, tenant_id, key.holder):
        return ()
    line = key.waiting[:MOST_ENDED]
    await commands.meet(tenant_id, {turn.run_id: runs.DECIDER for turn in line}, fresh=True)
    over = [turn for turn in line if await _is_over(commands, tenant_id, turn, fresh=False)]
    return tuple(ReleaseKey(key_id=key_id, run_id=turn.run_id, turn=turn.number) for turn in (*over, key.holder))


async def _is_over(commands: CommandLoop, tenant_id: UUID, turn: Turn, *, fresh: bool = True) -> bool:
    run: runs.Run = (await commands.load(runs.DECIDER, tenant_id, turn.run_id, fresh=fresh)).state
    return run.status in runs.OVER or run.turn != turn.number
