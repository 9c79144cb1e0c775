"""What has become of a plan in the kit."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from tidelog.run_models import Run
from tidelog.run_models import Step as StepView
from tidelog.testing.journal import MemoryJournal, SentMessage, ToolCall
from tidelog.testing.spending import Spent


@dataclass(slots=True)
class Execution:
    """An agent run of a plan. `key`: that of the step, or of the part of one, as `reviews.0`. `error`: of its last attempt."""

    key: str
    agent: str
    run_id: UUID
    input: Any
    journal: MemoryJournal
    result: Any = None
    error: dict[str, Any] | None = None
    attempts: int = 0
    """Attempts by the plan's `retry`. Crashes are counted in `journal.attempts`."""

    @property
    def calls(self) -> list[ToolCall]:
        return self.journal.calls

    @property
    def sent(self) -> list[SentMessage]:
        return self.journal.sent


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What has become of a step. `view`: all of it, as `Client.get_run` shows it. `runs`: its child runs."""

    view: StepView
    executions: Sequence[Execution]
    runs: Sequence["PlanOutcome"]

    @property
    def status(self) -> str:
        return self.view.status

    @property
    def result(self) -> Any:
        return self.view.result

    @property
    def error(self) -> dict[str, Any] | None:
        return self.view.error

    @property
    def input(self) -> Any:
        return self._only.input

    @property
    def journal(self) -> MemoryJournal:
        return self._only.journal

    @property
    def calls(self) -> list[ToolCall]:
        return [call for execution in self.executions for call in execution.calls]

    @property
    def sent(self) -> list[SentMessage]:
        return [message for execution in self.executions for message in execution.sent]

    @property
    def _only(self) -> Execution:
        if len(self.executions) != 1:
            raise ValueError(f"the step {self.view.key!r} was executed {len(self.executions)} times: see executions")
        return self.executions[0]


@dataclass(frozen=True, slots=True)
class PlanOutcome:
    """What has become of a run. `run`: all of it, as `Client.get_run` shows it. `steps`: by key."""

    run: Run
    steps: dict[str, StepOutcome] = field(default_factory=dict)
    spent: Spent = field(default_factory=Spent)

    @property
    def status(self) -> str:
        return self.run.status

    @property
    def result(self) -> Any:
        return self.run.result

    @property
    def calls(self) -> list[ToolCall]:
        """The calls of all agents, step by step, without those of child runs."""
        return [call for step in self.steps.values() for call in step.calls]


def outcome_of(run_id: UUID, views: Sequence[dict[str, Any]], executions: Sequence[Execution], spent: Spent) -> PlanOutcome:
    runs = {run.run_id: run for run in map(Run.model_validate, views)}

    def of(run: Run) -> PlanOutcome:
        found = {}
        for view in run.steps:
            mine = [
                each for each in executions
                if each.run_id == run.run_id and (each.key == view.key or each.key.rpartition(".")[0] == view.key)
            ]  # fmt: skip
            below = [
                of(child) for child in runs.values()
                if child.parent is not None and (child.parent.run_id, child.parent.step) == (run.run_id, view.key)
            ]  # fmt: skip
            found[view.key] = StepOutcome(view, mine, below)
        return PlanOutcome(run, found, spent)

    return of(runs[run_id])
