"""Parts of steps, and child runs: a part that begins becomes an agent run or a run, the end of a child goes to its parent, and what
a run does not need any more is cancelled."""

from uuid import UUID

from application.engine.sagas.reactions import Reaction, ReactionCause, Reactions
from application.sagas.run_lifecycle import requested
from domain import runs
from domain.agent_runs import CancelAgentRun, RequestAgentRun
from domain.failures import Failure
from domain.kernel import Json
from domain.plans import Plan
from domain.runs import AbandonRun, FinishChild, RetryRun, StartRun, part_key


def on_part_scheduled(event: runs.PartScheduled, cause: ReactionCause) -> list[Reaction]:
    if event.agent_run_id is not None:
        assert event.agent is not None
        said = RequestAgentRun(
            agent_run_id=event.agent_run_id,
            run_id=cause.stream_id,
            step=part_key(event.step, event.part),
            agent=event.agent,
            agent_version=event.agent_version,
            timeout_s=event.timeout_s,
            retry=event.retry,
            version_asked=event.version_asked,
            priority=event.priority,
            on_behalf_of=cause.on_behalf_of,
            budgets=event.budgets,
        )
        return [requested(said, event)]
    assert event.child_id is not None
    if event.plan is None:  # it goes on
        return [RetryRun(run_id=event.child_id, parent_id=cause.stream_id, fresh=event.fresh)]
    assert event.project_id is not None
    return [
        StartRun(
            run_id=event.child_id,
            project_id=event.project_id,
            plan=Plan.model_validate(event.plan),
            input=event.input,
            metadata=event.metadata,
            versions_asked=event.versions_asked,
            priority=event.priority,
            compensate=event.compensate,
            parent=runs.Parent(
                run_id=cause.stream_id, step=event.step, part=event.part, depth=event.depth, compensable=event.compensable
            ),
            workflow=event.workflow,
            tainted=event.tainted,
            again=event.again,
            fresh=event.fresh,
            budgets=event.budgets,
            on_behalf_of=cause.on_behalf_of,
        )
    ]


def on_run_completed(event: runs.RunCompleted, cause: ReactionCause) -> list[Reaction]:
    return _finished(event.parent, cause, event.result, None)


def on_run_failed(event: runs.RunFailed, cause: ReactionCause) -> list[Reaction]:
    return [*_finished(event.parent, cause, None, event.error), *_cancelled_runs(event.abandoned_runs, "its parent failed")]


def on_run_cancelled(event: runs.RunCancelled, cause: ReactionCause) -> list[Reaction]:
    reason = "the child run was cancelled" + (f": {event.reason}" if event.reason else "")
    error = Failure(type="ChildCancelled", message=reason)
    return [
        *_finished(event.parent, cause, None, error), *_cancelled_runs(event.abandoned_runs, "its parent was cancelled")
    ]  # fmt: skip


def _finished(parent: runs.Parent | None, cause: ReactionCause, result: Json, error: Failure | None) -> list[Reaction]:
    if parent is None or parent.part is None:
        return []
    told = FinishChild(
        run_id=parent.run_id, step=parent.step, part=parent.part, child_id=cause.stream_id, result=result, error=error
    )
    return [told]


def on_step_ended(event: runs.StepCompleted | runs.StepFailed | runs.StepSkipped, cause: ReactionCause) -> list[Reaction]:
    reason = f"step '{event.step}' ended without it"
    cancelled: list[Reaction] = [CancelAgentRun(agent_run_id=agent_run_id, reason=reason) for agent_run_id in event.abandoned]
    return [*cancelled, *_cancelled_runs(event.abandoned_runs, reason)] if event.abandoned_runs else cancelled


def _cancelled_runs(abandoned: tuple[UUID, ...], reason: str) -> list[Reaction]:
    return [AbandonRun(run_id=run_id, reason=reason) for run_id in abandoned]


REACTIONS: Reactions = {
    runs.PartScheduled: on_part_scheduled,
    runs.RunCompleted: on_run_completed,
    runs.RunFailed: on_run_failed,
    runs.RunCancelled: on_run_cancelled,
    runs.StepCompleted: on_step_ended,
    runs.StepFailed: on_step_ended,
    runs.StepSkipped: on_step_ended,
}
