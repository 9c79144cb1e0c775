"""`tidelog audit`: who did what, and how many requests were refused."""

import json
from pathlib import Path
from typing import Annotated, Any, BinaryIO, NamedTuple

import typer

from api.cli import options, output
from api.cli.reaching import server_of

app = typer.Typer(help="The audit trail: who did what, why, from where.", no_args_is_help=True)

FORMATS = ("jsonl", "csv")


class Filters(NamedTuple):
    """The filters of both commands. A field has the name of its option."""

    since: Annotated[str | None, typer.Option("--since", metavar="TIME", help="Only after this time: 2026-01-31T12:00:00Z.")] = None
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Only up to this time.")] = None
    actor: Annotated[str | None, typer.Option("--actor", metavar="NAME", help="Only of this actor: key:<key id>, or unknown.")] = (
        None
    )
    action: Annotated[str | None, typer.Option("--action", metavar="NAME", help="Only this action, such as runs.cancel.")] = None
    target: Annotated[
        str | None, typer.Option("--target", metavar="ID", help="Only what was done to this run, call, read model ….")
    ] = None
    on_behalf_of: Annotated[
        str | None, typer.Option("--on-behalf-of", metavar="NAME", help="Only what was done for this person.")
    ] = None
    result: Annotated[str | None, typer.Option("--result", metavar="RESULT", help="Only done, begun, refused or failed.")] = None

    def query(self) -> dict[str, str | None]:
        """The parameters of the routes."""
        given = self._asdict()
        return {"after": given.pop("since"), "before": given.pop("until"), **given}


@app.command("list")
@options.with_fields
def list_entries(
    filters: Filters,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 20,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """List what operators did, newest first, and how many requests were refused.

    Examples:

      tidelog audit list --since 2026-01-01T00:00:00Z --action runs.cancel

      tidelog audit list --actor unknown
    """
    output.run(_list(filters.query(), limit, data_dir, url, as_json))


@app.command("export")
@options.with_fields
def export(
    filters: Filters,
    form: Annotated[str, typer.Option("--format", metavar="FORMAT", help="jsonl or csv.")] = "jsonl",
    file: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write to this new file.  \\[default: standard output]")
    ] = None,
    reason: options.Reason = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format jsonl.")] = False,
) -> None:
    """Write all entries, newest first. The export itself leaves an entry.

    On standard output, characters that a terminal would obey are escaped. With --output, the file has the texts as they are.

    Examples:

      tidelog audit export --format csv --output audit.csv --reason "yearly audit"

      tidelog audit export --since 2026-01-01T00:00:00Z | jq .actor
    """
    if form not in FORMATS:
        raise typer.BadParameter(f"must be one of {', '.join(FORMATS)}", param_hint="--format")
    query = filters.query()
    form = "jsonl" if as_json else form
    if file is None:
        output.run(_export(form, None, query, reason, data_dir, url))
        return
    try:
        written = file.open("xb")
    except OSError as error:
        output.fail(f"--output: {error.strerror}: {error.filename}", output.WRONG_USAGE)
    try:
        with written:
            output.run(_export(form, written, query, reason, data_dir, url))
    except BaseException:
        file.unlink(missing_ok=True)  # a part of the trail could be taken for the whole
        raise
    output.say(f"Written: {file}")


async def _list(query: dict[str, str | None], limit: int, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    async with server_of(data_dir, url, as_json) as server:
        found = [entry async for entry in server.pages("/v1/audit", query, limit=limit)]
    if as_json:
        output.document(found)
        return
    if not found:
        output.say("No entries.")
        return
    table = output.table("Time", "Actor", "Action", "Target", "Result", "From", "Why")
    for entry in found:
        table.add_row(
            output.escape(entry["recorded_at"][:19].replace("T", " ")), output.escape(_who(entry)), output.escape(_what(entry)),
            output.escape(" ".join(filter(None, (entry["target_kind"], entry["target_id"])))),
            output.escape(" ".join(filter(None, (entry["result"], entry["code"])))), output.escape(entry["address"] or ""),
            output.escape(output.shortened(entry["reason"] or "", 80)),
        )  # fmt: skip
    output.console().print(table)


def _who(entry: dict[str, Any]) -> str:
    return f"{entry['actor']} for {entry['on_behalf_of']}" if entry["on_behalf_of"] else str(entry["actor"])


def _what(entry: dict[str, Any]) -> str:
    action = entry["action"] or "any"
    if entry["kind"] == "refusals":
        return f"{entry['count']:,} × {action}" + (" (others)" if entry["others"] else "")
    return f"{action} ({entry['operation']})" if entry["operation"] else action


async def _export(
    form: str, file: BinaryIO | None, query: dict[str, str | None], reason: str | None, data_dir: Path | None, url: str | None
) -> None:
    from tidelog.audit import pieces, reason_header

    async with server_of(data_dir, url, quiet=True) as server:
        params = {name: value for name, value in query.items() if value is not None} | {"format": form}
        source = pieces(server.transport, params, reason_header(reason))
        if file is not None:
            async for piece in source:
                file.write(piece)
            return
        async for line in _lines(source):
            output.line(json.loads(line)) if form == "jsonl" else output.say(line)


async def _lines(source: Any) -> Any:
    """The lines of the text."""
    rest = b""
    async for piece in source:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.decode().removesuffix("\r")
    if rest:
        yield rest.decode()
