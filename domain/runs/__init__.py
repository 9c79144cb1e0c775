"""Runs: a plan (`domain.plans`) that is carried out, the result of each step, and the outcome.

Others import from here, never from the modules:

- `events`: the facts of the stream.
- `commands`: what people, sagas and timers may ask for.
- `state`: the run, and how each event changes it (`evolve`).
- `rules`: what each command brings about (`decide`), every decision about the next step, and the `DECIDER`.
"""

from domain.plans import (
    MAX_STEPS,
    MAX_STEPS_V1,
    REMEMBERED_STEPS,
    Graph,
    Plan,
    Step,
    StepState,
    StepStatus,
    graph_of,
    parallel,
    sequential,
    unique_keys,
)
from domain.runs.adapting import allowed_name
from domain.runs.commands import AbandonRun, CancelRun, CheckRun, CompleteStep, EndWait, FailStep, FinishChild, RunCommand, StartRun
from domain.runs.deciding import MOST_NAMED
from domain.runs.events import (
    ENDS,
    Compensate,
    Origin,
    Parent,
    PartCompleted,
    PartFailed,
    PartScheduled,
    PlanV1,
    RunCancelled,
    RunCompleted,
    RunEvent,
    RunFailed,
    RunStarted,
    RunStartedV1,
    RunStartedV2,
    RunStartedV3,
    StepCompleted,
    StepCompletedV1,
    StepFailed,
    StepFellBack,
    StepScheduled,
    StepSkipped,
    StepStarted,
    WorkflowRef,
)
from domain.runs.outcomes import fallback_name
from domain.runs.progress import agent_run_id_of, child_id_of, part_key
from domain.runs.rules import DECIDER, decide
from domain.runs.state import OVER, Run, RunStatus, evolve
from domain.runs.waiting import scheduled_by

__all__ = [
    "DECIDER",
    "ENDS",
    "MAX_STEPS",
    "MAX_STEPS_V1",
    "MOST_NAMED",
    "OVER",
    "REMEMBERED_STEPS",
    "AbandonRun",
    "CancelRun",
    "CheckRun",
    "Compensate",
    "CompleteStep",
    "EndWait",
    "FailStep",
    "FinishChild",
    "Graph",
    "Origin",
    "Parent",
    "PartCompleted",
    "PartFailed",
    "PartScheduled",
    "Plan",
    "PlanV1",
    "Run",
    "RunCancelled",
    "RunCommand",
    "RunCompleted",
    "RunEvent",
    "RunFailed",
    "RunStarted",
    "RunStartedV1",
    "RunStartedV2",
    "RunStartedV3",
    "RunStatus",
    "StartRun",
    "Step",
    "StepCompleted",
    "StepCompletedV1",
    "StepFailed",
    "StepFellBack",
    "StepScheduled",
    "StepSkipped",
    "StepStarted",
    "StepState",
    "StepStatus",
    "WorkflowRef",
    "agent_run_id_of",
    "allowed_name",
    "child_id_of",
    "decide",
    "evolve",
    "fallback_name",
    "graph_of",
    "parallel",
    "part_key",
    "scheduled_by",
    "sequential",
    "unique_keys",
]
