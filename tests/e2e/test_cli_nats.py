"""`tidelog nats` and the doctor's report on streams, on a NATS that several logs use."""

import asyncio
import contextlib
import json
import os
import pty
import subprocess
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nats as nats_client
import pytest
import pytest_asyncio
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig

from adapters.nats.names import StreamOwner
from adapters.postgres.log.identity import log_id_at
from api.assembly.streams import FoundLog, FoundStream
from api.cli.diagnosis.findings import Diagnosis
from api.cli.diagnosis.streams import examine_log
from tests.e2e.cli_kit import command
from tests.integration.nats_kit import NatsProcess
from tests.integration.system_kit import eventually
from tests.pace import ANSWER_S

GONE, ALIVE = "1f00000000000001-5", "1f00000000000002-5"


@pytest_asyncio.fixture
async def jetstream(nats: NatsProcess) -> AsyncIterator[JetStreamContext]:
    client = await nats_client.connect(nats.url)
    yield client.jetstream(timeout=ANSWER_S)
    await client.close()


@pytest_asyncio.fixture
async def own(jetstream: JetStreamContext, database_url: str) -> str:
    """The id of the test's log. This log, two other logs and another application have streams."""
    log_id = await log_id_at(database_url, timeout=ANSWER_S)
    for name in streams_of(log_id, GONE, ALIVE) | {"WORK", "TIDELOG_NOTES", "ORDERS"}:
        await jetstream.add_stream(name=name, subjects=[f"{name}.>"])
        await jetstream.publish(f"{name}.x", b"12345")
    return log_id


def streams_of(*log_ids: str) -> set[str]:
    return {name for log_id in log_ids for name in (f"TIDELOG_{log_id}_17", f"TIDELOG_EVENTS_{log_id}", f"TIDELOG_WORK_{log_id}")}


@contextlib.contextmanager
def typed(answer: str | None) -> Iterator[int]:
    """A terminal with a typed line. None: no terminal."""
    if answer is None:
        yield subprocess.DEVNULL
        return
    person, terminal = pty.openpty()
    try:
        os.write(person, answer.encode() + b"\n")
        yield terminal
    finally:
        os.close(terminal)
        os.close(person)


@pytest.fixture
def tidelog(tmp_path: Path, nats: NatsProcess, database_url: str) -> Any:
    async def run(*arguments: str, exit_code: int = 0, answer: str | None = None) -> Any:
        """The output of the command: its document with --json, otherwise its lines.

        `answer`: the line that a person types into the terminal.
        """
        where = {"TIDELOG_DATABASE_URL": database_url, "TIDELOG_NATS_URL": nats.url}
        with typed(answer) as stdin:
            done = await asyncio.to_thread(command, *arguments, cwd=tmp_path, stdin=stdin, **where)
        assert done.returncode == exit_code, done.stdout + done.stderr
        return json.loads(done.stdout) if "--json" in arguments else done.stdout + done.stderr

    return run


async def waiting(jetstream: JetStreamContext, stream: str) -> bool:
    return bool((await jetstream.consumer_info(stream, "pool")).num_waiting)


async def names(jetstream: JetStreamContext) -> set[str]:
    return {str(info.config.name) for info in await jetstream.streams_info()}


async def test_streams_are_listed_by_their_log(tidelog: Any, own: str, jetstream: JetStreamContext) -> None:
    listed = await tidelog("nats", "list", "--json")
    assert listed["log_id"] == own
    found = {log["log_id"]: log for log in listed["logs"]}
    assert found.keys() == {own, GONE, ALIVE, None}
    assert {log_id for log_id, log in found.items() if log["this_log"]} == {own}
    assert {stream["name"] for stream in found[GONE]["streams"]} == streams_of(GONE)
    assert {stream["for"] for stream in found[GONE]["streams"]} == {"log", "fan-out", "work queue"}
    assert [(stream["name"], stream["messages"]) for stream in found[None]["streams"]] == [("WORK", 1)]
    assert all(stream["bytes"] > 5 and stream["written_at"] >= stream["created_at"] for stream in found[GONE]["streams"])
    shown = await tidelog("nats", "list")
    assert f"This log is {own}." in shown and shown.count("not of this log") == 6 and "of an earlier release" in shown
    assert "TIDELOG_NOTES" not in shown and "ORDERS" not in shown


async def test_only_what_is_named_and_unused_is_removed(tidelog: Any, own: str, jetstream: JetStreamContext) -> None:
    everything = await names(jetstream)
    assert "not of this log" in await tidelog("nats", "prune")
    refused = await tidelog("nats", "prune", "--log", GONE, "--yes", exit_code=1)
    assert "in use within the last 60 minutes" in refused and f"log {GONE}" in refused
    refused = await tidelog("nats", "prune", "--log", own, "--force", "--yes", exit_code=2)
    assert f"{own} is this log" in refused
    assert "no stream of 1f-9" in await tidelog("nats", "prune", "--log", "1f-9", "--yes", exit_code=1)
    asked = await tidelog("nats", "prune", "--log", GONE, "--unused-for", "0")
    assert "Nothing was removed" in asked and asked.count("to remove: TIDELOG_") == 3
    dry = await tidelog("nats", "prune", "--log", GONE, "--unused-for", "0", "--json")
    assert (set(dry["chosen"]), dry["removed"]) == (streams_of(GONE), [])
    kept = await tidelog("nats", "prune", "--all-others", "--yes", "--json")
    assert (kept["chosen"], len(kept["in_use"])) == ([], 3)
    assert await names(jetstream) == everything, "so far nothing was removed"

    removed = await tidelog("nats", "prune", "--log", GONE, "--unused-for", "0", "--yes")
    assert removed.endswith("3 removed.\n")
    assert await names(jetstream) == everything - streams_of(GONE)


async def test_it_asks_on_a_terminal(tidelog: Any, own: str, jetstream: JetStreamContext) -> None:
    arguments = ("nats", "prune", "--log", GONE, "--unused-for", "0")
    declined = await tidelog(*arguments, answer="n")
    assert "Remove these 3 streams?" in declined and "Nothing was removed" in declined
    assert streams_of(GONE) <= await names(jetstream)
    assert "3 removed." in await tidelog(*arguments, answer="y")
    assert not streams_of(GONE) & await names(jetstream)


async def test_streams_that_somebody_reads_stay(tidelog: Any, own: str, jetstream: JetStreamContext) -> None:
    """A quiet log that is in use has waiting readers. The readers of one of its streams protect the log's other streams."""
    await jetstream.publish(f"TIDELOG_WORK_{ALIVE}.x", b"old")
    await jetstream.add_consumer(f"TIDELOG_WORK_{ALIVE}", ConsumerConfig(durable_name="pool"))
    reader = await jetstream.pull_subscribe_bind("pool", stream=f"TIDELOG_WORK_{ALIVE}")
    await reader.fetch(2, timeout=ANSWER_S)
    waits = asyncio.create_task(reader.fetch(1, timeout=ANSWER_S))
    try:
        await eventually(lambda: waiting(jetstream, f"TIDELOG_WORK_{ALIVE}"), "a pull that waits")
        done = await tidelog("nats", "prune", "--all-others", "--unused-for", "0.0001", "--yes", "--json")
        assert set(done["removed"]) == streams_of(GONE) | {"WORK"}
        assert [(log["log_id"], log["this_log"]) for log in done["in_use"]] == [(ALIVE, False)]
        assert await names(jetstream) == streams_of(own, ALIVE) | {"TIDELOG_NOTES", "ORDERS"}
        forced = await tidelog("nats", "prune", "--log", ALIVE, "--force", "--yes", "--json")
        assert set(forced["removed"]) == streams_of(ALIVE)
    finally:
        waits.cancel()
        await asyncio.gather(waits, return_exceptions=True)


def test_the_doctor_says_how_to_remove_what_nobody_uses() -> None:
    long_ago = datetime.now(UTC) - timedelta(days=3)

    def unused(log_id: str | None, name: str) -> FoundLog:
        owner = StreamOwner("work queue", log_id)
        return FoundLog(log_id, (FoundStream(name, owner, 1, 3 * 1024**2, long_ago, None, long_ago, datetime.now(UTC), 0),))

    found = Diagnosis()
    examine_log(found, unused(GONE, f"TIDELOG_WORK_{GONE}"), ALIVE)
    examine_log(found, unused(None, "WORK"), ALIVE)
    assert [(finding.subject, finding.status, finding.mend) for finding in found.findings] == [
        ("other log", "note", f"if that log is gone: tidelog nats prune --log {GONE}"),
        ("old queue", "note", "tidelog nats prune --old-queue"),
    ]
    seen = f"TIDELOG_WORK_{GONE} (1 message, 3 MiB); last used on {long_ago:%Y-%m-%d}, last written never"
    assert found.findings[0].detail == f"not of this log: {seen}"


async def test_the_doctor_tells_streams_of_this_log_from_others(tidelog: Any, own: str, jetstream: JetStreamContext) -> None:
    await jetstream.add_consumer("WORK", ConsumerConfig(durable_name="pool"))
    old = await jetstream.pull_subscribe_bind("pool", stream="WORK")
    await old.fetch(1, timeout=ANSWER_S)
    waits = asyncio.create_task(old.fetch(1, timeout=ANSWER_S))
    try:
        await eventually(lambda: waiting(jetstream, "WORK"), "a pull that waits")
        report = await tidelog("doctor", "--json")
    finally:
        waits.cancel()
        await asyncio.gather(waits, return_exceptions=True)
    about = [finding for finding in report["findings"] if finding["subject"] in ("streams", "other log", "old queue")]
    assert [(finding["subject"], finding["status"]) for finding in about] == [
        ("streams", "ok"), ("other log", "note"), ("other log", "note"), ("old queue", "warning"),
    ]  # fmt: skip
    assert f"of this log, {own}: TIDELOG_{own}_17 (1 message, " in about[0]["detail"]
    assert all("not of this log, in use: " in finding["detail"] for finding in about[1:3])
    assert "restart those workers" in about[3]["mend"]
