"""The rate at which a whole log is folded to the states of all its streams, beside the `eventsourcing` library's reading of a log.

    python -m benchmarks.replay [EVENTS]        default: a million

The server is one embedded Postgres. The log holds runs with four agents each, made by the domain's own rules: plans, journals,
calls, messages, shared values. Each run has 109 events in 21 streams. The contestants take turns, each over the whole log.

- library: its recorder's `select_notifications` in pages of 1,000 and its `Mapper` with its JSON transcoder. The result is event
  objects whose ids and times are still texts; no state is folded.
- replay: `tidelog replay --all`: select, decode, check, fold, and a digest of each state. It runs with one process, and with one
  process for each core.

Each process of the replay imports this module first. So the imports that only the main process needs are inside functions.
"""

import asyncio
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg.conninfo import conninfo_to_dict
from uuid_utils.compat import uuid7

from adapters.postgres.log.append_batch import APPEND_SQL, EncodedAppend, parameters
from adapters.postgres.log.arrays import register_arrays
from api.assembly.replay import replay
from application.engine.ports.log import AppendRequest, NewEvent, StreamAppend, one_command
from benchmarks import table
from domain import agent_runs, context, invocations, messages, runs
from domain.failures import Retry
from domain.kernel import Command, Decider, Metadata
from domain.registry import REGISTRY

ROUNDS = 3
LIBRARY = "library, select and map"
SIDE_BY_SIDE = 500
TENANT = uuid7()
FIRST_MS = 1_800_000_000_000
"""When the first run began. The other runs follow a millisecond apart."""
PLAN = runs.parallel(("historian", "surveyor", "inspector"), "editor")
FINDING = {
    "path": "src/store.py", "line": 42, "kind": "long function", "severity": "minor", "confidence": 0.75,
    "evidence": "def read_stream(self, tenant_id, stream_id) -> list",
}  # fmt: skip
ARGUMENTS = {"limit": 500, "path": "src"}
SENT_AT = datetime(2026, 1, 1, tzinfo=UTC)


class Story:
    """One run from its start to its end, made by the deciders: appends of one command each, in order."""

    def __init__(self) -> None:
        self.run_id = UUID(int=FIRST_MS << 80 | 0x7 << 76 | 0x2 << 62)
        self._command_ids = itertools.count(self.run_id.int + 1)
        self.appends: list[AppendRequest] = []
        self._states: dict[UUID, Any] = {}
        self._versions: dict[UUID, int] = {}
        self._do(runs.DECIDER, self.run_id, runs.StartRun(run_id=self.run_id, project_id=TENANT, plan=PLAN, input={"depth": 500}))
        for step in PLAN.steps:
            self._agent_run(step, runs.agent_run_id_of(self.run_id, step.key))

    def _do(self, decider: Decider[Any], stream_id: UUID, command: Command) -> None:
        state, version = self._states.get(stream_id, decider.initial()), self._versions.get(stream_id, 0)
        events = decider.decide(state, command)
        for event in events:
            state = decider.evolve(state, event)
        self._states[stream_id], self._versions[stream_id] = state, version + len(events)
        command_id = UUID(int=next(self._command_ids))
        metadata = Metadata(actor="key:benchmark", correlation_id=self.run_id, causation_id=str(command_id), command_id=command_id)
        new = tuple(NewEvent(event.TOPIC, event.VERSION, REGISTRY.encode(event)) for event in events)
        stream = StreamAppend(stream_id, self.run_id, version, new)
        self.appends.append(one_command(TENANT, command_id, (stream,), metadata.model_dump_json()))

    def _agent_run(self, step: runs.Step, id_: UUID) -> None:
        def do(command: Command) -> None:
            self._do(agent_runs.DECIDER, id_, command)

        do(agent_runs.RequestAgentRun(agent_run_id=id_, run_id=self.run_id, step=step.key, agent=step.agent, agent_version="1"))
        do(agent_runs.ClaimAgentRun(agent_run_id=id_, worker_id="worker-3f2a9c-1", dispatch=1))
        for number in range(3):
            self._call(id_, f"read#{number}")
            result = {"findings": [FINDING] * 2, "score": number / 2}
            do(agent_runs.RecordStep(agent_run_id=id_, attempt=1, key=f"think#{number}", result=result))
        if step.after:
            for number, message_id in enumerate(self._states[id_].mailbox):
                do(agent_runs.ReceiveMail(agent_run_id=id_, attempt=1, key=f"receive#{number}", message_id=message_id))
        else:
            self._tell_editor(step, id_)
        do(agent_runs.CompleteAgentRun(agent_run_id=id_, attempt=1, result={"findings": [FINDING] * 2}))
        done = runs.CompleteStep(run_id=self.run_id, step=step.key, agent_run_id=id_, result={"findings": [FINDING] * 2})
        self._do(runs.DECIDER, self.run_id, done)

    def _call(self, id_: UUID, key: str) -> None:
        self._do(agent_runs.DECIDER, id_, agent_runs.StartCall(agent_run_id=id_, attempt=1, key=key, tool="git.history"))
        call = agent_runs.invocation_id_of(id_, key)
        for command in (
            invocations.RequestInvocation(
                invocation_id=call, run_id=self.run_id, agent_run_id=id_, key=key, tool="git.history", arguments=ARGUMENTS,
                idempotent=True, timeout_s=60, retry=Retry(max_attempts=3),
            ),
            invocations.ClaimInvocation(invocation_id=call, worker_id="worker-3f2a9c-2", dispatch=1),
            invocations.CompleteInvocation(invocation_id=call, attempt=1, result={"commits": [FINDING] * 3}),
        ):  # fmt: skip
            self._do(invocations.DECIDER, call, command)
        finish = agent_runs.FinishCall(agent_run_id=id_, key=key, invocation_id=call, succeeded=True)
        self._do(agent_runs.DECIDER, id_, finish)

    def _tell_editor(self, step: runs.Step, id_: UUID) -> None:
        message_id, editor = agent_runs.message_id_of(id_, "send#0"), runs.agent_run_id_of(self.run_id, "editor")
        sent = agent_runs.RecordStep(agent_run_id=id_, attempt=1, key="send#0", kind="send", result=str(message_id))
        self._do(agent_runs.DECIDER, id_, sent)
        message = messages.SendMessage(
            message_id=message_id, run_id=self.run_id, sender=step.key, sender_id=id_, recipient="editor", recipient_id=editor,
            body={"summary": "Three functions are long", "findings": [FINDING]},
        )  # fmt: skip
        self._do(messages.DECIDER, message_id, message)
        delivery = agent_runs.DeliverMail(
            agent_run_id=editor, run_id=self.run_id, message_id=message_id, sender=step.key, sent_at=SENT_AT
        )
        self._do(agent_runs.DECIDER, editor, delivery)
        context_id = context.context_id_of(self.run_id)
        value = context.SetContextValue(
            context_id=context_id, run_id=self.run_id, agent_run_id=id_, name=f"{step.key}.done", value=True
        )
        self._do(context.DECIDER, context_id, value)


def moved(told: list[AppendRequest], by_ms: int) -> Iterator[AppendRequest]:
    """The same run some milliseconds later. All ids of a run begin with its time, so another time gives other ids."""
    old, new = (f"{ms:012x}" for ms in (FIRST_MS, FIRST_MS + by_ms))
    old, new = f"{old[:8]}-{old[8:]}", f"{new[:8]}-{new[8:]}"

    def moved_id(id_: UUID) -> UUID:
        return UUID(int=id_.int + (by_ms << 80))

    for append in told:
        [stream], [command] = append.streams, append.commands
        told_events = [placed.event for placed in append.events]
        events = tuple(NewEvent(e.topic, e.schema_version, e.state.replace(old.encode(), new.encode())) for e in told_events)
        moved_stream = StreamAppend(moved_id(stream.stream_id), moved_id(stream.root_id), stream.expected_version, events)
        yield one_command(TENANT, moved_id(command.command_id), (moved_stream,), command.metadata.replace(old, new))


def batches() -> Iterator[tuple[AppendRequest, ...]]:
    """Endless batches. Runs go on side by side, and each batch has the next append of each of these runs."""
    told = Story().appends
    for first in itertools.count(0, SIDE_BY_SIDE):
        yield from zip(*(moved(told, first + number) for number in range(SIDE_BY_SIDE)), strict=True)


def fill(database_url: str, events: int) -> None:
    """Writes each append as a request of its own, with many requests in one call, as the group commit does under load."""
    written, began = 0, time.perf_counter()
    with psycopg.Connection.connect(database_url, autocommit=True) as connection:
        register_arrays(connection)
        for batch in batches():
            requests = [EncodedAppend.of(request) for request in batch]
            answer = connection.execute(APPEND_SQL, parameters(requests), prepare=True).fetchone()
            assert answer is not None and answer[0] == 0, "all are accepted"
            written = answer[3]
            if written >= events:
                break
        connection.execute("ANALYZE event")
    print(f"{written:,} events written in {time.perf_counter() - began:.0f} s")


def library(database_url: str) -> int:
    """Reads and maps every event. Returns the number of events."""
    from eventsourcing.domain import DomainEvent
    from eventsourcing.persistence import JSONTranscoder, Mapper
    from eventsourcing.postgres import PostgresDatastore
    from eventsourcing.utils import clear_topic_cache, register_topic

    from adapters.postgres.log.recorder import TidelogRecorder

    clear_topic_cache()
    for topic in REGISTRY.events:
        register_topic(topic, type(topic, (DomainEvent,), {}))
    given = conninfo_to_dict(database_url)
    place = [str(given.get(key) or "") for key in ("dbname", "host", "port", "user", "password")]
    datastore = PostgresDatastore(*place, originator_id_type="uuid", single_row_tracking=True)
    recorder, mapper = TidelogRecorder(datastore, tenant_id=TENANT), Mapper[UUID](JSONTranscoder())
    position = count = 0
    while page := recorder.select_notifications(position + 1, 1_000):
        count += len([mapper.to_domain_event(notification) for notification in page])
        position = page[-1].id
    datastore.close()
    return count


def measure(database_url: str, events: int) -> None:
    fill(database_url, events)
    digests: set[str] = set()

    def replayed(processes: int) -> int:
        _, done = replay(database_url, processes=processes)
        assert not done.failed
        digests.add(done.hex_digest)
        return done.events

    cores = os.cpu_count() or 1
    contestants: dict[str, Callable[[], int]] = {
        LIBRARY: lambda: library(database_url),
        "replay, 1 process": lambda: replayed(1),
    }
    if cores > 1:
        contestants[f"replay, {cores} processes"] = lambda: replayed(cores)
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, contestant in contestants.items():
            began, used = time.perf_counter(), sum(os.times()[:4])
            count = contestant()
            used, took = sum(os.times()[:4]) - used, time.perf_counter() - began
            results[name].append((count / took, used / count * 1e6))
    assert len(digests) == 1, "the digest depends on how the log is cut"
    report(results)


def report(results: dict[str, list[tuple[float, float]]]) -> None:
    """The processor time is the time of the reading processes, including their start.

    On a busy machine the processor time tells more than the rate.
    """
    medians = {name: [statistics.median(values) for values in zip(*rounds, strict=True)] for name, rounds in results.items()}
    base_rate, base_cpu = medians[LIBRARY]
    print(f"{f'medians of {ROUNDS} rounds':<28}{'events/s':>10}{'x library':>11}{'CPU us/event':>14}{'x library':>11}")
    for name, (rate, cpu) in medians.items():
        print(f"{name:<28}{rate:>10,.0f}{rate / base_rate:>11.1f}{cpu:>14.1f}{base_cpu / cpu:>11.1f}")
    name, (rate, _) = list(medians.items())[-1]
    beside = f"{rate / base_rate:.1f} × the library's select and mapper, which fold nothing ({base_rate:,.0f}/s)"
    table.row(
        f"{name}: a whole log to states",
        f"{rate:,.0f} events/s",
        beside,
        "≥ 2 ×, ≥ 250,000/s",
        met=rate >= max(2 * base_rate, 250_000),
    )


async def run(state_dir: Path, events: int) -> None:
    from adapters.embedded import EmbeddedServices
    from adapters.postgres.migrate import migrate

    services = EmbeddedServices(state_dir, want_nats=False)
    await services.start()
    try:
        await migrate(services.database_url)
        await asyncio.to_thread(measure, services.database_url, events)
    finally:
        await services.stop()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="tidelog-benchmark-") as folder:
        Path(folder).chmod(0o711)  # a server that root starts runs under another account, which must reach the folder
        asyncio.run(run(Path(folder) / "state", int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))


if __name__ == "__main__":
    main()
