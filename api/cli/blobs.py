"""`tidelog blobs`: contents that are too large for the log, such as files."""

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli import options, output
from api.cli.reaching import server_of

app = typer.Typer(help="Files and other contents that are too large for the log.", no_args_is_help=True)

Hash = Annotated[str, typer.Argument(metavar="HASH", help="The blob's SHA-256, as `blobs list` shows it.")]

MIB = 1024 * 1024
PIECE_BYTES = 256 * 1024


def hash_of(text: str) -> str:
    """Raises CommandFailed for a text that is no hash."""
    found = text.strip().lower()
    if len(found) != 64 or set(found) - set("0123456789abcdef"):
        raise output.CommandFailed(
            f"'{output.one_line(text)[:80]}' is not a blob's hash (see: tidelog blobs list)", output.WRONG_USAGE
        )
    return found


@app.command()
def put(
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="The file; -: standard input.")],
    type: Annotated[str | None, typer.Option("--type", metavar="TYPE", help="Media type, such as image/png.")] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="TEXT", help="Its name for who reads the reference.")] = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Put a file of up to 64 MiB there. Prints the reference, which may stand in the input of a run.

    Examples:

      tidelog blobs put report.pdf

      tidelog runs start summarize --input "$(tidelog blobs put report.pdf)"
    """
    output.run(_put(file, type, name, data_dir, url, as_json))


async def _put(file: str, type: str | None, name: str | None, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    path = None if file == "-" else Path(file)
    if path is not None and not path.is_file():
        raise output.CommandFailed(f"there is no file {output.one_line(file)}", output.WRONG_USAGE)
    async with server_of(data_dir, url, True) as server:
        with _progress("put", None if path is None else path.stat().st_size) as moved:
            if path is None:
                blob = await server.client.blobs.put(_read_stdin(moved), type=type, name=name)
            else:
                blob = await server.client.blobs.put(path, type=type, name=name)
    reference: dict[str, Any] = blob.model_dump(mode="json")
    if as_json:
        output.document(reference)
    else:
        output.line(reference)


async def _read_stdin(moved: "_Moved") -> AsyncIterator[bytes]:
    import asyncio

    while piece := await asyncio.to_thread(sys.stdin.buffer.read, PIECE_BYTES):
        moved.add(len(piece))
        yield piece


@app.command()
def get(
    sha256: Hash,
    to: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to this file; without: to standard output.")
    ] = None,
    run_id: Annotated[
        str | None, typer.Option("--run", metavar="ID", help="The run that refers to it, for a key narrowed to projects.")
    ] = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Get the content of a blob. The hash of what comes is checked.

    Examples:

      tidelog blobs get 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 -o report.pdf

      tidelog blobs get 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 | less
    """
    if to is None and sys.stdout.isatty():
        output.fail(
            "the content of a blob is not written to a terminal: give -o FILE, or send it to another program", output.WRONG_USAGE
        )
    if to is None and as_json:
        output.fail("--json goes with -o FILE", output.WRONG_USAGE)
    output.run(_get(sha256, to, run_id, data_dir, url, as_json))


async def _get(sha256: str, to: Path | None, run_id: str | None, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    from uuid import UUID

    wanted = hash_of(sha256)
    of_run = None if run_id is None else UUID(output.uuid_of(run_id))
    async with server_of(data_dir, url, True) as server:
        blob = server.client.blobs.get(wanted, run_id=of_run)
        if to is not None:
            try:
                await blob.save(to)
            except OSError as error:
                raise output.CommandFailed(f"{error.strerror}: {output.one_line(to)}") from None
            if as_json:
                output.document({"sha256": wanted, "file": str(to)})
            else:
                output.say(f"Wrote {output.one_line(to)}")
            return
        async with blob.open() as pieces:
            async for piece in pieces:
                output.content(piece)


@app.command("list")
def list_blobs(
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 50,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """List blobs, the newest first, and how many bytes all of them have.

    Example:

      tidelog blobs list
    """
    output.run(_list(limit, data_dir, url, as_json))


async def _list(limit: int, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    async with server_of(data_dir, url, as_json) as server:
        found = [blob async for blob in server.pages("/v1/blobs", limit=limit)]
        all_of_them = await server.get("/v1/blobs", {"limit": 1})
    if as_json:
        output.document(found)
        return
    table = output.table("SHA-256", "Bytes", "Type", "Made", "By")
    for blob in found:
        made = blob["made_at"][:19].replace("T", " ")
        table.add_row(
            output.escape(blob["sha256"]), f"{blob['size']:,}", output.escape(blob["type"]), made, output.escape(blob["made_by"])
        )
    output.console().print(table)
    used, most = all_of_them["bytes"], all_of_them["max_bytes"]
    output.say(f"{all_of_them['blobs']:,} blobs, {used / MIB:,.1f} MiB of {most / MIB:,.0f} MiB")


@app.command()
def show(sha256: Hash, data_dir: options.DataDir = None, url: options.Url = None, as_json: options.AsJson = False) -> None:
    """Show what is known of a blob, and which runs refer to it.

    Example:

      tidelog blobs show 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    """
    output.run(_show(sha256, data_dir, url, as_json))


async def _show(sha256: str, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    wanted = hash_of(sha256)
    async with server_of(data_dir, url, as_json) as server:
        blob = await server.get(f"/v1/blobs/{wanted}/details")
    if as_json:
        output.document(blob)
        return
    output.say(f"Blob {output.one_line(blob['sha256'])}")
    output.say(f"  {blob['size']:,} bytes of {output.one_line(blob['type'])}")
    output.say(f"  put at {output.one_line(blob['made_at'])} by {output.one_line(blob['made_by'])}")
    roots = [output.one_line(root) for root in blob["referred_by"]]
    output.say("  referred to by nothing" if not roots else "  referred to by " + "\n                 ".join(roots))


@app.command()
def delete(
    sha256: Hash,
    reason: options.Reason = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Delete a blob to which nothing in the log refers.

    Example:

      tidelog blobs delete 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    """
    output.run(_delete(sha256, reason, data_dir, url, as_json))


async def _delete(sha256: str, reason: str | None, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    wanted = hash_of(sha256)
    async with server_of(data_dir, url, as_json) as server:
        await server.client.blobs.delete(wanted, reason=reason)
    if as_json:
        output.document({"sha256": wanted})
    else:
        output.say(f"Deleted the blob {wanted}")


class _Moved:
    """Counts bytes, and shows on a terminal how many there are."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._bytes = self._shown = 0

    def add(self, size: int) -> None:
        self._bytes += size
        if self._bytes - self._shown >= MIB:
            self._shown = self._bytes
            output.progress(f"{self._what} {self._bytes / MIB:,.0f} MiB")


@contextmanager
def _progress(what: str, size: int | None) -> Iterator[_Moved]:
    """Shows that something long goes on: a count of bytes, or a spinner where the size is known."""
    moved = _Moved(what)
    with output.spinner(f"{what} {(size or 0) / MIB:,.1f} MiB", quiet=size is None or size < MIB):
        yield moved
    if moved._shown:
        output.progress("\n")
