"""`tidelog tenants`: the tenants of the installation. On the machine only: these commands work on the database, with no key."""

from pathlib import Path
from typing import Annotated

import typer

from api.cli import keys, options, output

app = typer.Typer(help="Tenants of this installation, for whoever runs it: works on the database itself.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The tenant's name, for people.")],
    key_file: keys.KeyFile = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Create a tenant with its default project and its first key, one of an owner. The key is shown once.

    Works on the database at TIDELOG_DATABASE_URL, or on the embedded PostgreSQL of the data folder, which is started if needed. A
    server that runs on it takes the key within moments.

    Examples:

      tidelog tenants create acme

      tidelog tenants create acme --key-file acme.key
    """
    output.run(_create(name, key_file, data_dir, as_json))


async def _create(name: str, key_file: Path | None, data_dir: Path | None, as_json: bool) -> None:
    from api.assembly import platform, replay
    from api.settings import load_settings
    from tidelog.keys import make_key, new_key_id

    if not name.strip() or len(name) > 500 or "\x00" in name:
        raise output.CommandFailed("NAME: give a line of text, of at most 500 characters", output.WRONG_USAGE)
    keys.must_be_new(key_file)
    tenant_id, made = new_key_id(), make_key(new_key_id())
    settings = load_settings(data_dir=data_dir)
    async with replay.database(settings) as database_url:
        await platform.create_tenant(database_url, tenant_id, name.strip(), made.key_id, made.sha256)
    said = f"Created tenant {tenant_id} with the key {made.key_id} of an owner"
    keys.hand_over(made.text, made.key_id, key_file, as_json, said, tenant_id=str(tenant_id))


@app.command("list")
def list_tenants(
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 1_000,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """List the tenants, oldest first: ids and names, nothing that a tenant has. Without a running server the list may be behind.

    Example:

      tidelog tenants list
    """
    output.run(_list(limit, data_dir, as_json))


async def _list(limit: int, data_dir: Path | None, as_json: bool) -> None:
    from api.assembly import platform, replay
    from api.settings import load_settings

    async with replay.database(load_settings(data_dir=data_dir)) as database_url:
        found = await platform.tenants(database_url, limit=limit)
    if as_json:
        output.document([tenant.model_dump(mode="json") for tenant in found])
        return
    if not found:
        output.say("No tenants yet: a server makes the default one at its first start.")
        return
    table = output.table("Tenant", "Name", "Created")
    for tenant in found:
        table.add_row(str(tenant.tenant_id), output.escape(tenant.name), f"{tenant.created_at:%Y-%m-%d %H:%M:%S}")
    output.console().print(table)
