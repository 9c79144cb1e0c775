"""`tidelog replay --all`: folds the whole log, and shows the result and the streams that do not fold."""

import asyncio
import os
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from api.cli import output

if TYPE_CHECKING:
    from application.engine.reading.replay import Replayed

SHOWN_FAILURES = 50


async def replay_all(data_dir: Path | None, tenant: str | None, processes: int | None, as_json: bool) -> None:
    from api.assembly import replay
    from api.settings import load_settings

    try:
        tenant_id = None if tenant is None else UUID(tenant)
    except ValueError:
        raise output.CommandFailed(f"--tenant: '{tenant}' is no id", output.WRONG_USAGE) from None
    count = processes or os.cpu_count() or 1
    async with replay.database(load_settings(data_dir=data_dir)) as database_url:
        began = time.monotonic()
        try:
            head, done = await asyncio.to_thread(
                replay.replay, database_url, processes=count, tenant_id=tenant_id, progress=_Progress(began)
            )
        except BrokenProcessPool:
            raise output.CommandFailed("a process of the replay was killed; with fewer --processes it needs less memory") from None
        took = time.monotonic() - began
    missing = head - done.events if tenant_id is None else 0
    if as_json:
        output.document(_document(head, done, missing, took, count))
    else:
        _show(head, done, missing, took, count)
    if done.failed or missing:
        raise SystemExit(output.FAILED)


class _Progress:
    """Shows the progress on one line of a terminal. Without a terminal it shows nothing."""

    def __init__(self, began: float) -> None:
        self._began = began

    def __call__(self, done: "Replayed", head: int) -> None:
        rate = done.events / max(time.monotonic() - self._began, 1e-9)
        end = "\n" if done.events >= head else ""
        output.progress(f"{done.events:,} of {head:,} events, {rate:,.0f}/s, {done.failed} failed{end}")


def _document(head: int, done: "Replayed", missing: int, took: float, processes: int) -> dict[str, object]:
    return {
        "head": head,
        "events": done.events,
        "missing": missing,
        "streams": dict(sorted(done.streams.items())),
        "foreign_streams": done.foreign,
        "failed_streams": done.failed,
        "failures": [
            {"stream_id": str(one.stream_id), "version": one.version, "topic": one.topic, "error": one.error}
            for one in done.failures
        ],
        "digest": done.hex_digest,
        "seconds": round(took, 3),
        "events_per_second": round(done.events / took),
        "processes": processes,
    }


def _show(head: int, done: "Replayed", missing: int, took: float, processes: int) -> None:
    rate = f"{done.events / took:,.0f} events/s, {processes} {'process' if processes == 1 else 'processes'}"
    output.say(f"{done.events:,} events up to position {head:,} folded in {output.duration(took)} ({rate})")
    for name, count in sorted(done.streams.items()):
        output.say(f"  {name:<14} {count:>12,} streams")
    if done.foreign:
        output.say(f"  {'foreign':<14} {done.foreign:>12,} streams (of users of the log; there are no rules for them)")
    output.say(f"digest of all states: {done.hex_digest}")
    for one in done.failures[:SHOWN_FAILURES]:
        output.note(
            f"error: stream {one.stream_id}, event {one.version} ({output.one_line(one.topic)}): {output.one_line(one.error)}"
        )
    if done.failed:
        output.note(f"error: {done.failed:,} of {done.failed + done.streams.total():,} streams do not fold")
    if missing:
        output.note(f"error: the log is at position {head:,}, but {missing:,} of its events are not there")
