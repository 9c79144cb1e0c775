"""`tidelog nats grant|revoke|config`: the users of NATS. On the machine only: they change files of the server."""

from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from api.cli import options, output

app = typer.Typer()

TenantId = Annotated[str, typer.Argument(metavar="TENANT", help="Id of the tenant, as `tidelog tenants list` shows it.")]
AccountsFile = Annotated[
    Path | None,
    typer.Option("--file", metavar="FILE", help="The file of accounts of a NATS of your own, in place of the embedded NATS."),
]
ONCE = "This is the only time that the password is shown. Keep it as you keep a key."


@app.command()
def grant(
    tenant: TenantId,
    renew: Annotated[bool, typer.Option("--renew", help="Make a new password; the old one ends at once.")] = False,
    file: AccountsFile = None,
    url_file: Annotated[
        Path | None,
        typer.Option("--url-file", metavar="FILE", help="Write the URL to this new file (mode 0600) instead of showing it."),
    ] = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Let a tenant subscribe to its events on NATS, with a user of its own that can do nothing else. The password is shown once.

    Needs TIDELOG_FANOUT=true at the server. The embedded NATS takes the user over at once; no connection of others is cut. For a
    NATS of your own the user goes into the file of `tidelog nats config`, which NATS has to read anew.

    For a tenant that has a user the command makes sure of its consumer, and changes nothing else.

    Examples:

      tidelog nats grant 0198c0de-0000-7000-8000-000000000001

      tidelog nats grant 0198c0de-0000-7000-8000-000000000001 --file /etc/nats/tidelog.conf
    """
    output.run(_grant(tenant, renew, file, url_file, data_dir, as_json))


@app.command()
def revoke(tenant: TenantId, file: AccountsFile = None, data_dir: options.DataDir = None, as_json: options.AsJson = False) -> None:
    """Take the user on NATS away from a tenant, with its consumer. Its connections end.

    Example:

      tidelog nats revoke 0198c0de-0000-7000-8000-000000000001
    """
    output.run(_revoke(tenant, file, data_dir, as_json))


@app.command()
def config(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file of accounts to make or bring up to date.")],
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Write the accounts and users of Tidelog for a NATS of your own, with no more rights than they need.

    Include the file in the configuration of NATS. It has the passwords, so its mode is 0600. Passwords and tenants that are in the
    file stay.

    Example:

      tidelog nats config /etc/nats/tidelog.conf
    """
    output.run(_config(file, data_dir, as_json))


async def _grant(tenant: str, renew: bool, file: Path | None, url_file: Path | None, data_dir: Path | None, as_json: bool) -> None:
    from api.assembly.subscribers import Grants, NoFanOut
    from api.cli import keys
    from api.settings import load_settings

    tenant_id = _id_of(tenant)
    settings = load_settings(data_dir=data_dir)
    _must_have_file(settings.nats_url is not None, file)
    keys.must_be_new(url_file, "--url-file")
    try:
        granted = await Grants(settings, file).grant(tenant_id, renew=renew)
    except NoFanOut as error:
        raise output.CommandFailed(f"{error.message}: start the server with TIDELOG_FANOUT=true") from None
    if granted is None:
        raise output.CommandFailed(f"there is no tenant {tenant_id} (see: tidelog tenants list)")
    shown = (granted.url or granted.password) if granted.new else None
    if shown is not None and url_file is not None:
        _write(url_file, shown)
    if as_json:
        secret = {"url": granted.url, "password": granted.password} if granted.new and url_file is None else {}
        output.document(
            {
                "tenant_id": str(tenant_id),
                "user": granted.user,
                "new": granted.new,
                **secret,
                "url_file": str(url_file) if granted.new and url_file is not None else None,
                "stream": granted.stream,
                "consumer": granted.user,
                "consumer_missing": granted.without_consumer or None,
                "subjects": granted.subjects,
            }
        )
        return
    output.note(f"{'Made' if granted.new else 'There is'} the user {granted.user}.{_to_read(file if granted.new else None)}")
    output.note(f"It reads {granted.subjects}, or takes from the consumer {granted.user} of the stream {granted.stream}.")
    if granted.without_consumer:
        output.note(f"The consumer could not be made: {granted.without_consumer}.")
        output.note("Run the command again once NATS runs with the file, and the server with TIDELOG_FANOUT=true.")
    if shown is None:
        output.note("It keeps its password; --renew makes another one.")
    elif url_file is not None:
        output.note(f"The URL is in {url_file}")
    else:
        output.note(ONCE)
        output.say(shown)


async def _revoke(tenant: str, file: Path | None, data_dir: Path | None, as_json: bool) -> None:
    from api.assembly.subscribers import Grants
    from api.settings import load_settings

    tenant_id = _id_of(tenant)
    settings = load_settings(data_dir=data_dir)
    _must_have_file(settings.nats_url is not None, file)
    if not await Grants(settings, file).revoke(tenant_id):
        raise output.CommandFailed(f"tenant {tenant_id} has no user on NATS")
    if as_json:
        output.document({"tenant_id": str(tenant_id), "revoked": True})
    else:
        output.say(f"Tenant {tenant_id} has no user on NATS any more.{_to_read(file)}")


async def _config(file: Path, data_dir: Path | None, as_json: bool) -> None:
    from api.assembly.subscribers import Grants
    from api.settings import load_settings

    await Grants(load_settings(data_dir=data_dir), file).write_file()
    if as_json:
        output.document({"file": str(file)})
    else:
        output.say(f"{file} has the accounts and users. Include it in the configuration of NATS, which has to read it anew.")


def _id_of(tenant: str) -> UUID:
    try:
        return UUID(tenant)
    except ValueError:
        raise output.CommandFailed("TENANT: give the id of a tenant (see: tidelog tenants list)", output.WRONG_USAGE) from None


def _must_have_file(own_nats: bool, file: Path | None) -> None:
    if own_nats and file is None:
        raise output.CommandFailed(
            "TIDELOG_NATS_URL names a NATS of your own: name its file of accounts with --file (see: tidelog nats config --help)",
            output.WRONG_USAGE,
        )


def _to_read(file: Path | None) -> str:
    return "" if file is None else f" NATS has to read {file} anew (nats-server --signal reload)."


def _write(file: Path, text: str) -> None:
    from api.supervisor import state

    try:
        state.write_private(file, text + "\n")
    except OSError as error:
        raise output.CommandFailed(f"--url-file: {file}: {error.strerror}; make another password with --renew") from None
