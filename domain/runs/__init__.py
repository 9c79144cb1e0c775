"""Runs: a plan of steps, the result of each step, and the outcome.

Others import from here, never from the modules:

- `plan`: graphs of steps, and the constructors of the usual ones.
- `events`: the facts of the stream.
- `commands`: what people, sagas and timers may ask for.
- `state`: the run, and how each event changes it (`evolve`).
- `rules`: what each command brings about (`decide`), every decision about the next step, and the `DECIDER`.
"""

from domain.runs.commands import CancelRun, CheckRun, CompleteStep, FailStep, RunCommand, StartRun
from domain.runs.events import (
    ENDS,
    Compensate,
    PlanV1,
    RunCancelled,
    RunCompleted,
    RunEvent,
    RunFailed,
    RunStarted,
    RunStartedV1,
    RunStartedV2,
    StepCompleted,
    StepFailed,
    StepScheduled,
)
from domain.runs.plan import (
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
from domain.runs.rules import DECIDER, MOST_NAMED, agent_run_id_of, decide
from domain.runs.state import OVER, Run, RunStatus, evolve

__all__ = [
    "DECIDER",
    "ENDS",
    "MAX_STEPS",
    "MAX_STEPS_V1",
    "MOST_NAMED",
    "OVER",
    "REMEMBERED_STEPS",
    "CancelRun",
    "CheckRun",
    "Compensate",
    "CompleteStep",
    "FailStep",
    "Graph",
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
    "RunStatus",
    "StartRun",
    "Step",
    "StepCompleted",
    "StepFailed",
    "StepScheduled",
    "StepState",
    "StepStatus",
    "agent_run_id_of",
    "decide",
    "evolve",
    "graph_of",
    "parallel",
    "sequential",
    "unique_keys",
]
