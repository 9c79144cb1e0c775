"""Keys of runs: a run that has its key begins, a run that ends gives it back, and runs that are replaced are cancelled."""

from application.engine.sagas.reactions import Reaction, ReactionCause, Reactions
from domain import run_keys, runs
from domain.run_keys import ReleaseKey
from domain.runs import AbandonRun, BeginRun


def on_taken(event: run_keys.RunKeyTaken, cause: ReactionCause) -> list[Reaction]:
    return [BeginRun(run_id=event.turn.run_id, turn=event.turn.number)]


def on_queued(event: run_keys.RunKeyQueued, cause: ReactionCause) -> list[Reaction]:
    reason = f"run {event.turn.run_id} has replaced it"
    return [AbandonRun(run_id=each.run_id, reason=reason, turn=each.number) for each in event.replaced]


def on_run_ended(event: runs.RunCompleted | runs.RunFailed | runs.RunCancelled, cause: ReactionCause) -> list[Reaction]:
    held = event.held
    return [] if held is None else [ReleaseKey(key_id=held.key_id, run_id=cause.stream_id, turn=held.turn)]


REACTIONS: Reactions = {
    run_keys.RunKeyTaken: on_taken,
    run_keys.RunKeyQueued: on_queued,
    runs.RunCompleted: on_run_ended,
    runs.RunFailed: on_run_ended,
    runs.RunCancelled: on_run_ended,
}
