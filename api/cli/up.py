"""`tidelog up`, and its parts: `serve`, `migrate`. The worker has a file of its own."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli import options, output
from api.cli.console import Open

if TYPE_CHECKING:
    from api.settings import Settings

app = typer.Typer()

ALL_ROLES = "api,relay,projector,saga"
Roles = Annotated[str, typer.Option("--roles", help="Which roles: api, relay, projector, saga; separated by commas.")]


@app.command()
def up(
    agents: options.Agents = None,
    workspace: options.Workspace = None,
    port: Annotated[
        int | None, typer.Option("--port", help="Port to listen on; 0: any free one.  \\[TIDELOG_PORT; default: 8700]")
    ] = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on.  \\[TIDELOG_HOST; default: 127.0.0.1]")] = None,
    data_dir: options.DataDir = None,
    no_worker: Annotated[bool, typer.Option("--no-worker", help="Start no worker, even if there are agents.")] = False,
    roles: Roles = ALL_ROLES,
    isolate: Annotated[bool, typer.Option("--isolate", help="Run each role in its own process.")] = False,
    as_json: options.AsJson = False,
    open_it: Open = False,
) -> None:
    """Start a server: the embedded PostgreSQL and NATS, all roles, and a worker for your agents.

    Processes that die are restarted. Stop the server with Ctrl-C. With TIDELOG_DATABASE_URL and TIDELOG_NATS_URL set, these servers
    are used and no embedded servers are started. Then several such commands, each with its own data folder, share the work of one
    installation, with all roles or with some.

    Examples:

      tidelog up

      tidelog up --open

      tidelog up --agents ./agents --workspace ~/src/my-project

      tidelog up --port 0 --data-dir /tmp/scratch --json

      tidelog up --roles relay,projector,saga --data-dir /var/lib/tidelog-2
    """
    output.guarded(
        lambda: _replace_by_supervisor(agents, workspace, port, host, data_dir, not no_worker, roles, isolate, as_json, open_it)
    )


def _replace_by_supervisor(
    agents: list[Path] | None, workspace: Path | None, port: int | None, host: str | None, data_dir: Path | None,
    with_worker: bool, roles: str, isolate: bool, as_json: bool, open_it: bool,
) -> None:  # fmt: skip
    """Replaces this process by the supervisor, which is smaller and keeps the pid (see api/supervisor/config.py)."""
    from api.cli.serving import parse_roles
    from api.settings import load_settings
    from api.settings.misspelt import misspelt
    from api.supervisor.config import SupervisorConfig

    settings = load_settings(agents=tuple(agents) if agents else None, workspace=workspace, port=port, host=host, data_dir=data_dir)
    check_folders(settings)
    check_builtin(settings)
    for name, setting in misspelt(os.environ):
        output.note(f"{name} is no setting and changes nothing: did you mean {setting}?")
    chosen = parse_roles(roles)
    if "api" not in chosen and (settings.database_url is None or settings.nats_url is None):
        raise output.CommandFailed(
            "--roles without api: needs TIDELOG_DATABASE_URL and TIDELOG_NATS_URL; nobody else could reach embedded servers",
            output.WRONG_USAGE,
        )
    config = SupervisorConfig.of(
        settings, roles=chosen, with_worker=with_worker, isolate=isolate, as_json=as_json, open_console=open_it
    )
    reading, writing = os.pipe()
    os.write(writing, config.to_json().encode())  # a few hundred bytes, which fit into the pipe
    os.close(writing)
    os.set_inheritable(reading, True)
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", "api.supervisor", str(reading)])


def check_folders(settings: "Settings") -> None:
    """Raises CommandFailed for a missing folder."""
    folders = [("--agents", folder) for folder in settings.agents]
    if settings.workspace is not None:
        folders.append(("--workspace", settings.workspace))
    for name, folder in folders:
        if not folder.is_dir():
            raise output.CommandFailed(f"{name}: there is no folder {folder}", output.WRONG_USAGE)


def check_builtin(settings: "Settings") -> None:
    """Raises CommandFailed for networks and hosts that cannot be read: here, where a person sees it."""
    if settings.builtin_networks or settings.builtin_hosts:
        from tidelog.guard import Allowed

        try:
            Allowed.of(settings.builtin_networks, settings.builtin_hosts)
        except ValueError as error:
            told = f"TIDELOG_BUILTIN_NETWORKS, TIDELOG_BUILTIN_HOSTS: {output.one_line(str(error))}"
            raise output.CommandFailed(told, output.WRONG_USAGE) from None


@app.command()
def serve(
    roles: Roles = ALL_ROLES,
    migrate_first: Annotated[bool, typer.Option("--migrate", help="Migrate the schema first.")] = False,
) -> None:
    """Run roles in this process, on the PostgreSQL and NATS of the settings.

    `tidelog up` does this for you. On several machines you start the roles yourself. Needs TIDELOG_DATABASE_URL and
    TIDELOG_NATS_URL.

    Examples:

      tidelog serve --roles api,relay

      tidelog serve --roles relay,projector,saga --migrate
    """
    from api.cli.serving import serve as run_roles

    run_roles(roles, migrate_first=migrate_first)


@app.command()
def migrate(
    check: Annotated[bool, typer.Option("--check", help="Only list pending migrations; exit code 1 if there are any.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Migrate the database's schema to this version (`tidelog up` does this by itself). Needs TIDELOG_DATABASE_URL.

    Examples:

      tidelog migrate --check

      tidelog migrate
    """
    output.run(_migrate(check, as_json))


async def _migrate(check: bool, as_json: bool) -> None:
    from api.settings import SettingsError, load_settings

    settings = load_settings()
    if settings.database_url is None:
        raise SettingsError("TIDELOG_DATABASE_URL: must be set; `tidelog up` migrates the embedded database by itself")
    from api.assembly import upkeep
    from api.assembly.logs import set_up_logging

    set_up_logging(settings, "migrate")
    url = settings.database_url.get_secret_value()
    names = await (upkeep.pending_migrations(url) if check else upkeep.migrate(url))
    why_not = await upkeep.roles_off(url) if not (check and names) else ""
    if why_not:
        output.note(f"the roles of the database are not in force: {why_not}; see docs/how-to/use-your-own-servers.md#roles")
    if as_json:
        output.document({"pending" if check else "applied": names})
    elif not names:
        output.say("The schema is up to date.")
    else:
        output.say("\n".join(f"{'to be applied' if check else 'applied'}: {name}" for name in names))
    if check and names:
        sys.exit(output.FAILED)
