"""`tidelog nats`: the streams on NATS, of this log and of others, and the removal of streams that are no longer needed."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import options, output

if TYPE_CHECKING:
    from api.assembly.streams import FoundLog, FoundStream, Streams

OLD_QUEUE = "WORK"
UNUSED_FOR_MIN = 60.0
"""Minutes without use after which a stream counts as unused."""

app = typer.Typer(
    help="Streams on NATS: list them by log, remove those of logs that are gone. Users of NATS: let tenants subscribe.",
    no_args_is_help=True,
)


@app.command("list")
def list_streams(data_dir: options.DataDir = None, as_json: options.AsJson = False) -> None:
    """List the streams of all logs on this NATS: their sizes, and when they were last used. Changes nothing.

    Example:

      tidelog nats list
    """
    output.run(_list(data_dir, as_json))


@app.command()
def prune(
    log: Annotated[
        list[str] | None, typer.Option("--log", metavar="ID", help="Remove all streams of this log; repeatable.")
    ] = None,
    old_queue: Annotated[
        bool, typer.Option("--old-queue", help="Remove the stream WORK, which earlier releases used as their work queue.")
    ] = False,
    all_others: Annotated[
        bool, typer.Option("--all-others", help="Remove all streams of other logs, except streams in use.")
    ] = False,
    unused_for: Annotated[
        float,
        typer.Option("--unused-for", metavar="MINUTES", min=0, help="Streams that were used within this time are in use and stay."),
    ] = UNUSED_FOR_MIN,
    force: Annotated[bool, typer.Option("--force", help="Also remove streams in use.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Remove streams of other logs, such as of a dropped database or of a restore drill. This log's streams always stay.

    The command cannot check whether another log still exists: name only logs that you know to be gone. An existing log makes its
    streams again from its database, but work in progress may go to a second worker, and subscribers of its fan-out begin again.

    Without --yes the command asks first. Without a terminal it only shows the streams that it would remove.

    Examples:

      tidelog nats prune

      tidelog nats prune --log 6a2f0c14d9b7e385-16412

      tidelog nats prune --all-others --unused-for 1440 --yes
    """
    output.run(_prune(_Wish(tuple(log or ()), old_queue, all_others, timedelta(minutes=unused_for), force), yes, data_dir, as_json))


@dataclass(frozen=True)
class _Wish:
    logs: Sequence[str]
    old_queue: bool
    all_others: bool
    unused_for: timedelta
    force: bool

    @property
    def nothing(self) -> bool:
        return not (self.logs or self.old_queue or self.all_others)


@dataclass(frozen=True)
class _Plan:
    remove: "list[FoundLog]"
    keep: "list[FoundLog]"
    """Logs that were chosen, but are in use."""

    @property
    def streams(self) -> "list[FoundStream]":
        return [stream for log in self.remove for stream in log.streams]


async def _list(data_dir: Path | None, as_json: bool) -> None:
    async with _streams(data_dir) as streams:
        found = await streams.survey()
        if as_json:
            output.document({"log_id": streams.log_id, "logs": [_document(log, streams.log_id) for log in found]})
        else:
            _show(found, streams.log_id)


async def _prune(wish: _Wish, yes: bool, data_dir: Path | None, as_json: bool) -> None:
    async with _streams(data_dir) as streams:
        found = await streams.survey()
        plan = plan_of(wish, found, streams.log_id)
        if not as_json:
            _tell(plan, wish, [log for log in found if log.log_id != streams.log_id])
        removed: list[FoundStream] = []
        if plan.streams and (yes or (not as_json and _confirmed(len(plan.streams)))):
            removed = await _remove(streams, plan, wish)
        if as_json:
            names = [stream.name for stream in plan.streams]
            document = {"log_id": streams.log_id, "chosen": names, "removed": [stream.name for stream in removed]}
            output.document({**document, "in_use": [_document(log, streams.log_id) for log in plan.keep]})
        elif removed:
            output.say(f"{len(removed)} removed.")
        elif plan.streams:
            output.say("Nothing was removed; with --yes they would be.")


async def _remove(streams: "Streams", plan: _Plan, wish: _Wish) -> "list[FoundStream]":
    """Removes the planned streams. Surveys again first, because some time may have passed while a person was asked."""
    chosen = {stream.name for stream in plan.streams}
    still = [stream for stream in plan_of(wish, await streams.survey(), streams.log_id).streams if stream.name in chosen]
    await streams.remove(still)
    return still


def plan_of(wish: _Wish, found: "Sequence[FoundLog]", own: str) -> _Plan:
    """The plan of the removal. Raises CommandFailed for this log, for an unknown log, and for a named log that is in use."""
    if own in wish.logs:
        raise output.CommandFailed(f"{own} is this log: its streams are not removed", output.WRONG_USAGE)
    others = [log for log in found if log.log_id != own]
    named = [log for log in others if log.log_id in wish.logs or (wish.old_queue and log.log_id is None)]
    known = {log.log_id for log in others}
    missing = [log for log in wish.logs if log not in known] + ([OLD_QUEUE] if wish.old_queue and None not in known else [])
    if missing:
        raise output.CommandFailed(f"no stream of {', '.join(missing)} is here (see: tidelog nats list)")
    wanted = others if wish.all_others else named
    used = [] if wish.force else [log for log in wanted if not log.idle(wish.unused_for)]
    if refused := [log for log in used if log in named]:
        lines = "".join(f"\n  {name_of(log)}: {usage(log)}" for log in refused)
        raise output.CommandFailed(f"in use within the last {minutes(wish.unused_for)}; --force removes it all the same:{lines}")
    return _Plan([log for log in wanted if log not in used], used)


def _streams(data_dir: Path | None) -> Any:
    from api.assembly.streams import streams
    from api.settings import load_settings

    return streams(load_settings(data_dir=data_dir))


def _confirmed(count: int) -> bool:
    return sys.stdin.isatty() and typer.confirm(f"Remove {'this stream' if count == 1 else f'these {count} streams'}?")


# --- texts ------------------------------------------------------------------------------------------------------------


def name_of(log: "FoundLog") -> str:
    return OLD_QUEUE if log.log_id is None else f"log {log.log_id}"


def usage(log: "FoundLog") -> str:
    """When a log was last used and written, as text."""
    waiting = sum(stream.waiting for stream in log.streams)
    used = f"in use now, {waiting} requests wait for messages" if waiting else f"last used {ago(log.used_at)}"
    return f"{used}, last written {ago(log.written_at) if log.written_at else 'never'}"


def ago(time: datetime) -> str:
    seconds = max(0.0, (datetime.now(UTC) - time).total_seconds())
    return f"{output.duration(seconds)} ago" if seconds < 86_400 else f"on {time:%Y-%m-%d}"


def minutes(span: timedelta) -> str:
    count = span.total_seconds() / 60
    return f"{count:g} {'minute' if count == 1 else 'minutes'}"


def held(stream: "FoundStream") -> str:
    count = stream.messages
    return f"{count:,} {'message' if count == 1 else 'messages'}, {size(stream.bytes)}"


def size(count: int) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count //= 1024
    return f"{count:,} GiB"


def _show(found: "Sequence[FoundLog]", own: str) -> None:
    table = output.table("Log", "Stream", "For", "Messages", "Size", "Last written", "Last used")
    for log in found:
        whose = (
            "[bold]this log[/bold]" if log.log_id == own else "of an earlier release" if log.log_id is None else "not of this log"
        )
        for stream in log.streams:
            table.add_row(
                whose, output.escape(stream.name), stream.owner.kind, f"{stream.messages:,}", size(stream.bytes),
                ago(stream.written_at) if stream.written_at else "", "now" if stream.waiting else ago(stream.used_at),
            )  # fmt: skip
    output.console().print(table)
    output.say(f"This log is {own}.")


def _tell(plan: _Plan, wish: _Wish, others: "Sequence[FoundLog]") -> None:
    for log in others if wish.nothing else ():
        output.say(f"not of this log: {', '.join(stream.name for stream in log.streams)} ({usage(log)})")
        output.say(f"  to remove: tidelog nats prune {'--old-queue' if log.log_id is None else f'--log {log.log_id}'}")
    for log in plan.keep:
        output.say(f"stays, in use: {name_of(log)} ({usage(log)})")
    for log in plan.remove:
        for stream in log.streams:
            output.say(f"to remove: {stream.name} ({held(stream)}; {usage(log)})")
    if not (plan.remove or plan.keep or (wish.nothing and others)):
        output.say("No stream here is of another log.")


def _document(log: "FoundLog", own: str) -> dict[str, Any]:
    return {
        "log_id": log.log_id,
        "this_log": log.log_id == own,
        "used_at": _text(log.used_at),
        "written_at": _text(log.written_at),
        "streams": [
            {
                "name": stream.name,
                "for": stream.owner.kind,
                "messages": stream.messages,
                "bytes": stream.bytes,
                "created_at": _text(stream.created_at),
                "written_at": _text(stream.written_at),
                "used_at": _text(stream.used_at),
                "waiting": stream.waiting,
            }
            for stream in log.streams
        ],
    }


def _text(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
