"""Long histories made up: a run with as many events as wanted, appended as writers append, without an agent that does the work."""

from uuid import UUID

import psycopg

from adapters.postgres.log.append_batch import APPEND_SQL, EncodedAppend, parameters
from adapters.postgres.log.arrays import register_arrays
from application.engine.ports.log import AppendRequest, NewEvent, StreamAppend, one_command
from benchmarks.writers import new_id
from domain import agent_runs, runs
from domain.kernel import Event, Metadata
from domain.projects import default_project_id
from domain.registry import REGISTRY
from domain.tenants import DEFAULT_TENANT_ID

AGENT = "chronicler"
AROUND = 7
"""Events of a run of one step beside what its agent records."""
IN_ONE_APPEND = 500


class History:
    """A run of one step whose agent records one entry after the other. Nobody has its agent, so nobody else goes on with it."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self.run_id = new_id()
        self._connection = connection
        self._agent_run_id = runs.agent_run_id_of(self.run_id, AGENT)
        self._recorded = 0
        register_arrays(connection)

    def begin(self) -> None:
        run_id, agent_run_id = self.run_id, self._agent_run_id
        started = runs.RunStarted(
            project_id=default_project_id(DEFAULT_TENANT_ID),
            plan=runs.sequential((AGENT,)),
            input={"chapters": 1},
            metadata={"made": "up"},
        )
        scheduled = runs.StepScheduled(step=AGENT, agent=AGENT, agent_version="1", agent_run_id=agent_run_id)
        requested = agent_runs.AgentRunRequested(run_id=run_id, step=AGENT, agent=AGENT, agent_version="1")
        claimed = agent_runs.AgentRunClaimed(attempt=1, worker_id="w", dispatch=1)
        self._append(self._of(run_id, 0, started, scheduled), self._of(agent_run_id, 0, requested, claimed))

    def record(self, count: int) -> None:
        """The next entries of the journal, in one append."""
        numbers = range(self._recorded, self._recorded + count)
        events = [
            agent_runs.StepRecorded(attempt=1, key=f"line-{n}", kind="step", result={"line": n, "text": "it was a dark night"})
            for n in numbers
        ]
        self._append(self._of(self._agent_run_id, 2 + self._recorded, *events))
        self._recorded += count

    def end(self) -> None:
        run_id, agent_run_id = self.run_id, self._agent_run_id
        done = agent_runs.AgentRunCompleted(run_id=run_id, step=AGENT, attempt=1, result=self._recorded)
        completed = runs.StepCompleted(step=AGENT, agent_run_id=agent_run_id, result=self._recorded)
        self._append(self._of(agent_run_id, 2 + self._recorded, done), self._of(run_id, 2, completed, runs.RunCompleted()))

    def _of(self, stream_id: UUID, version: int, *events: Event) -> StreamAppend:
        encoded = tuple(NewEvent(event.TOPIC, event.VERSION, REGISTRY.encode(event)) for event in events)
        return StreamAppend(stream_id, self.run_id, version, encoded)

    def _append(self, *streams: StreamAppend) -> None:
        command = new_id()
        asked = Metadata(actor="key:benchmark", correlation_id=self.run_id, causation_id=str(command), command_id=command)
        request: AppendRequest = one_command(DEFAULT_TENANT_ID, command, streams, asked.model_dump_json())
        answer = self._connection.execute(APPEND_SQL, parameters([EncodedAppend.of(request)]), prepare=True).fetchone()
        assert answer is not None and answer[0] == 0, "the append is accepted"


def completed_run(database_url: str, events: int) -> UUID:
    """Makes up a run with so many events. Returns its id."""
    with psycopg.Connection.connect(database_url, autocommit=True) as connection:
        history = History(connection)
        history.begin()
        left = events - AROUND
        while left > 0:
            history.record(min(IN_ONE_APPEND, left))
            left -= IN_ONE_APPEND
        history.end()
    return history.run_id
