"""The whole log is folded: every stream, once, with every cut. A stream that cannot be folded is reported and affects no other
stream."""

import asyncio
import hashlib
import json
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
import pytest_asyncio

from adapters.embedded import EmbeddedServices
from adapters.embedded.access import running_database_url
from adapters.postgres.log import ranges
from adapters.postgres.log.append_batch import APPEND_SQL, EncodedAppend, parameters
from adapters.postgres.log.arrays import register_arrays
from adapters.postgres.log.ranges import PostgresStreamRanges
from adapters.postgres.migrate import migrate
from api.assembly import replay as composition
from api.assembly.replay import replay
from api.settings import Settings, SettingsError
from application.catalog import CATALOG
from application.engine.commands.state_models import model_of
from application.engine.ports.log import AppendRequest, NewEvent, StreamAppend, one_command
from application.engine.reading.replay import Replayed, StreamFolder
from benchmarks.replay import TENANT, Story, moved
from domain.errors import InvalidState
from domain.registry import REGISTRY
from domain.tenants import DEFAULT_TENANT_ID
from tests.e2e.cli_kit import command
from tests.integration.system_kit import new_id

RUNS = 12
TOLD = Story().appends
STREAMS_OF_A_RUN = {"runs": 1, "agent_runs": 4, "invocations": 12, "messages": 3, "context": 1}


async def write(database_url: str, *calls: Sequence[AppendRequest]) -> int:
    """Writes each batch with one call of the append function. Returns the new head."""
    head = 0
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        register_arrays(connection)
        for requests in calls:
            cursor = await connection.execute(APPEND_SQL, parameters([EncodedAppend.of(request) for request in requests]))
            row = await cursor.fetchone()
            assert row is not None and row[0] == 0, "all are accepted"
            head = row[3]
    return head


@pytest_asyncio.fixture
async def log(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """A log of runs that went on side by side, and a replay in small ranges and pages."""
    monkeypatch.setattr(composition, "RANGE_EVENTS", 170)
    monkeypatch.setattr(composition, "PAUSE_S", 0.01)
    monkeypatch.setattr(ranges, "FIRST_PAGE", 7)
    monkeypatch.setattr(ranges, "PAGE_BYTES", 9_000)
    await write(database_url, *zip(*(moved(TOLD, number) for number in range(RUNS)), strict=True))
    yield database_url


def expected_digest() -> str:
    """The digest of the same runs, folded here without the log."""
    total = 0
    for number in range(RUNS):
        streams: dict[UUID, list[NewEvent]] = {}
        for append in moved(TOLD, number):
            streams.setdefault(append.streams[0].stream_id, []).extend(placed.event for placed in append.events)
        for stream_id, events in streams.items():
            decider = CATALOG.rules[events[0].topic]
            state: Any = decider.initial()
            for event in events:
                state = decider.evolve(state, REGISTRY.decode(event.topic, event.schema_version, event.state))
            what = stream_id.bytes + len(events).to_bytes(8, "big") + model_of(CATALOG.registry, decider).encode(state)
            total += int.from_bytes(hashlib.sha256(what).digest(), "big")
    return f"{total % 2**256:064x}"


async def replayed(database_url: str, **options: Any) -> tuple[int, Replayed]:
    return await asyncio.to_thread(replay, database_url, **{"processes": 1, **options})


def stream(topic_and_state: Sequence[tuple[str, int, str]], tenant_id: UUID = TENANT) -> tuple[UUID, AppendRequest]:
    """A stream of events as given: topic, schema version, JSON."""
    stream_id = new_id()
    events = tuple(NewEvent(topic, version, state.encode()) for topic, version, state in topic_and_state)
    return stream_id, one_command(tenant_id, new_id(), (StreamAppend(stream_id, stream_id, 0, events),), "{}")


async def test_every_stream_is_folded_once_whatever_the_cut(log: str, monkeypatch: pytest.MonkeyPatch) -> None:
    progress: list[int] = []
    head, done = await replayed(log, progress=lambda so_far, _: progress.append(so_far.events))
    assert done.events == head == 109 * RUNS
    assert done.streams == {name: count * RUNS for name, count in STREAMS_OF_A_RUN.items()}
    assert (done.failed, done.foreign) == (0, 0)
    assert done.hex_digest == expected_digest()
    assert len(progress) == 8 and progress == sorted(progress) and progress[-1] == head

    assert (await replayed(log, processes=2))[1] == done
    monkeypatch.setattr(composition, "RANGE_EVENTS", 10**9)
    assert (await replayed(log))[1] == done
    assert (await replayed(log, tenant_id=new_id()))[1] == Replayed()


async def test_a_replay_ends_where_the_log_ended_when_it_began(log: str) -> None:
    with PostgresStreamRanges.open(log) as reader:
        head, parts = reader.cut(size=170)
        await write(log, [next(moved(TOLD, RUNS)), stream([("message.sent", 1, "{}")])[1]])
        total = Replayed()
        for part in parts:
            total.add(StreamFolder(CATALOG).fold_range(reader, part, until=head))
    assert total.hex_digest == expected_digest()
    assert total.events == head


REQUESTED = ("agent_run.requested", 1, json.dumps({"run_id": str(TENANT), "step": "s", "agent": "a", "agent_version": None}))
RECEIVED = ("agent_run.mail_received", 1, json.dumps({"attempt": 1, "key": "k", "message_id": str(TENANT)}))
BROKEN = {
    "breaks a rule": ([REQUESTED, RECEIVED], 2, "KeyError"),
    "of a newer release": ([REQUESTED, REQUESTED, ("agent_run.requested", 9, "{}")], 3, "UnknownEvent"),
    "an unknown event of ours": ([("run.exploded", 1, "{}")], 1, "no event of that name"),
    "does not fit": ([("message.sent", 1, "{}"), ("message.sent", 1, "{}")], 1, "does not fit its class"),
    "of two slices": ([REQUESTED, ("run.completed", 1, "{}")], 2, "not an event of agent_runs"),
}  # fmt: skip


async def test_what_does_not_fold_is_told_and_the_rest_goes_on(log: str) -> None:
    broken = {name: stream(events) for name, (events, _, _) in BROKEN.items()}
    foreign, foreign_append = stream([("thing.happened", 1, "no JSON at all"), ("run.started", 1, "{}")])
    others, others_append = stream([("run.exploded", 1, "{}")], DEFAULT_TENANT_ID)
    head = await write(log, [*(append for _, append in broken.values()), foreign_append, others_append])

    _, done = await replayed(log, tenant_id=TENANT)
    assert done.hex_digest == expected_digest()
    assert (done.failed, done.foreign, done.events) == (len(BROKEN), 1, head - 1)
    told = {failure.stream_id: failure for failure in done.failures}
    assert told.keys() == {stream_id for stream_id, _ in broken.values()}
    for name, (events, version, reason) in BROKEN.items():
        failure = told[broken[name][0]]
        assert (failure.version, failure.topic) == (version, events[version - 1][0])
        assert reason in failure.error, name
    assert {others} == {f.stream_id for f in (await replayed(log, tenant_id=DEFAULT_TENANT_ID))[1].failures}
    assert foreign not in told


async def test_gap_in_a_stream_is_found(log: str) -> None:
    first = Story().run_id
    async with await psycopg.AsyncConnection.connect(log, autocommit=True) as connection:
        await connection.execute("DELETE FROM event WHERE originator_id = %s AND originator_version = 3", [first])
        head, done = await replayed(log)
    assert head - done.events == 1
    [failure] = done.failures
    assert (failure.stream_id, failure.version, failure.error) == (first, 4, "comes after version 2")


async def test_replay_outlives_the_loss_of_its_connection(log: str) -> None:
    lost: list[int] = []

    def cut_off(_: Replayed, __: int) -> None:
        with psycopg.Connection.connect(log, autocommit=True) as connection:
            query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tidelog-replay'"
            lost.append(len(connection.execute(query).fetchall()))

    _, done = await replayed(log, progress=cut_off)
    assert sum(lost) >= 7
    assert done.hex_digest == expected_digest()


async def tidelog(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(command, "replay", *arguments, cwd=Path.cwd(), **variables)


async def test_command_says_what_it_found(log: str) -> None:
    fine = await tidelog("--all", "--json", TIDELOG_DATABASE_URL=log)
    answer = json.loads(fine.stdout)
    assert (fine.returncode, answer["digest"], answer["events"]) == (0, expected_digest(), 109 * RUNS)
    stream_id, append = stream([("run.exploded", 1, "{}")])
    await write(log, [append])
    broken = await tidelog("--all", "--processes", "1", TIDELOG_DATABASE_URL=log)
    assert broken.returncode == 1
    assert f"digest of all states: {expected_digest()}" in broken.stdout
    assert f"stream {stream_id}, event 1 (run.exploded): this release has no event of that name" in broken.stderr


async def test_running_embedded_database_is_found(services: EmbeddedServices) -> None:
    url = running_database_url(services.describe())
    assert url == services.database_url
    assert running_database_url({"nats": {}}) is None


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the account of the servers can reach."""
    with tempfile.TemporaryDirectory(prefix="tidelog-replay-") as name:
        Path(name).chmod(0o711)
        yield Path(name) / "data"


async def test_data_folder_without_a_server_is_replayed(folder: Path) -> None:
    """The database is started for the command, and stopped afterwards."""
    with pytest.raises(SettingsError, match="there is no log"):
        async with composition.database(Settings(data_dir=folder.parent)):
            pass
    own = EmbeddedServices(folder, want_nats=False, durable=False)
    await own.start()
    with pytest.raises(InvalidState, match="there is no log in this database"):
        await replayed(own.database_url)
    await migrate(own.database_url)
    head = await write(own.database_url, *([append] for append in TOLD))
    await own.stop()
    done = await tidelog("--all", "--json", "--processes", 1, "--data-dir", folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["events"] == head == 109
