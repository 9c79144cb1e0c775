"""`tidelog restored`: records that the log was restored from a backup, so that its readers learn of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli import options, output

if TYPE_CHECKING:
    from application.engine.reading.histories import History

app = typer.Typer()


@app.command()
def restored(
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="The reason; it is recorded.")] = "restored from a backup",
    position: Annotated[
        int | None,
        typer.Option(
            "--position",
            min=0,
            help="The last position that is certainly unchanged.  \\[default: the position that the log had noted before"
            " PostgreSQL was last started]",
        ),
    ] = None,
    copy: Annotated[
        bool,
        typer.Option(
            "--copy",
            help="The original log is still in use, such as beside a drill or a staging copy: give this log a"
            " new id, so that both can share a NATS.",
        ),
    ] = False,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Begin a new history of the log after a restore, before any other program is started on the log.

    A restored log gives new events positions that it had given to other events before. Readers keep the history with their
    position. So readers of events that are gone learn of the restore, and where to continue. Without this step a server often
    detects the restore by itself, but not always, and only when a reader or a copy in NATS returns that has more events than the
    log.

    Works on the embedded PostgreSQL of the data folder, started if needed, or on the database at TIDELOG_DATABASE_URL, and migrates
    its schema to this version. Give --position if the log was written to after the restore and PostgreSQL was restarted since. With
    a position that is too low, readers get events twice. With a position that is too high, readers miss events.

    Examples:

      tidelog restored

      tidelog restored --reason "disk of db-1 lost, backup of 02:00" --position 17072

      tidelog restored --copy --reason "restore drill" --data-dir drill
    """
    output.run(_restored(reason, position, copy, data_dir, as_json))


async def _restored(reason: str, position: int | None, copy: bool, data_dir: Path | None, as_json: bool) -> None:
    from api.assembly import replay, upkeep
    from api.settings import load_settings

    if not reason.strip() or len(reason) > 1_000 or "\x00" in reason:
        raise output.CommandFailed("--reason: give a line of text, of at most 1,000 characters", output.WRONG_USAGE)
    async with replay.database(load_settings(data_dir=data_dir)) as database_url:
        before, now, head = await upkeep.begin_history(database_url, reason.strip(), position, copy=copy)
    if as_json:
        begun = now.history_id != before.history_id
        output.document({"begun": begun, "before": before.history_id if begun else None, "head": head, "history": _document(now)})
    else:
        _show(before, now, head)


def _document(history: "History") -> dict[str, object]:
    from domain.kernel import timestamp

    return {
        "id": history.history_id,
        "last_common_position": history.last_common,
        "cause": history.cause,
        "reason": history.reason,
        "began_at": timestamp(history.began_at),
    }


def _show(before: "History", now: "History", head: int) -> None:
    if now.history_id == before.history_id:
        output.say(
            f"Since PostgreSQL was started a new history has begun already: {now.history_id}, after position {now.last_common}"
            f" ({now.cause}: {now.reason}).\nNothing to do. To begin another one, give --position."
        )
        return
    output.say(
        f"History {before.history_id} has ended. History {now.history_id} goes on after position {now.last_common};"
        f" the log is at {head}.\nReaders that had events after position {now.last_common} are told so (`event: reset`,"
        f" or 410 history-replaced) and go on from there.\nReaders that were not so far notice nothing."
    )
