"""`tidelog console`: the address of the console, with a link that signs in once."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli import options, output

if TYPE_CHECKING:
    from api.cli.connection import ServerClient

app = typer.Typer()

Open = Annotated[bool, typer.Option("--open", help="Open the console in a browser.")]
LIFE = "signs in once, within ten minutes"


@app.command()
def console(
    open_it: Open = False, data_dir: options.DataDir = None, url: options.Url = None, as_json: options.AsJson = False
) -> None:
    """Show the address of the console, with a link that signs in once with your key.

    The server must run on this machine, at 127.0.0.1. At any other server, sign in by a key.

    Examples:

      tidelog console

      tidelog console --open
    """
    output.run(_console(open_it, data_dir, url, as_json))


async def _console(open_it: bool, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    from api.cli import connection
    from api.settings import load_settings

    settings = load_settings(data_dir=data_dir, url=url)
    await connection.found_server(settings)  # a server that is started for this command would be gone before the page is there
    async with connection.server(settings) as server:
        address, signs_in = await link_to(server)
    if as_json:
        output.document({"console_url": address, "signs_in": signs_in})
    else:
        output.say(f"console: {address}")
        output.note(f"The link {LIFE}." if signs_in else "Sign in by an API key: the server gives no links.")
    if open_it:
        await open_page(address, settings.data_dir)


async def link_to(server: "ServerClient", page: str = "") -> tuple[str, bool]:
    """The address of a page of the console, and whether it signs in. A server gives links on its own machine alone."""
    from api.supervisor.console import console_url
    from tidelog.errors import TidelogAPIError

    try:
        made = await server.post("/v1/sessions/links", {})
    except TidelogAPIError as error:
        if error.status not in (403, 404):
            raise
        made = {}
    url = console_url(server.url, made.get("link") if isinstance(made, dict) else None, page)
    return url, "#" in url


async def open_page(address: str, data_dir: Path) -> None:
    import asyncio
    import tempfile

    from api.supervisor.console import open_in_browser

    def opened() -> bool:
        folder = data_dir if data_dir.is_dir() else Path(tempfile.mkdtemp(prefix="tidelog-console-"))  # private to this account
        return open_in_browser(address, folder)

    if not await asyncio.to_thread(opened):
        output.note("No browser was found: open the address yourself.")
