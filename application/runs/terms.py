"""What the start of a run may say beside its plan and its input, whatever way it takes."""

from typing import NamedTuple
from uuid import UUID

from domain.concurrency import Concurrency
from domain.kernel import Command
from domain.runs import SetDeadline


class Terms(NamedTuple):
    deadline_s: float | None = None
    """Seconds after which the run fails. None: it takes the time that it takes."""

    concurrency: Concurrency | None = None
    """The key that the run shares with others. None: that of its workflow, or none."""

    def commands(self, run_id: UUID) -> tuple[Command, ...]:
        """They follow the start in its append."""
        if self.deadline_s is None:
            return ()
        return (SetDeadline(run_id=run_id, deadline_s=self.deadline_s, by_start=True),)


NO_TERMS = Terms()
