"""`tidelog keys`: who may speak for the tenant, and as what."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import options, output
from api.cli.expiry import is_soon
from api.cli.reaching import server_of

if TYPE_CHECKING:
    from api.cli.connection import ServerClient

app = typer.Typer(help="API keys of the tenant: list, issue, rotate, revoke.", no_args_is_help=True)

KeyId = Annotated[str, typer.Argument(metavar="KEY", help="The key's id, as `tidelog keys list` shows it; not the key itself.")]
Expires = Annotated[
    str | None,
    typer.Option("--expires", metavar="TIME", help="When the key ends: 2027-01-31T12:00:00Z, or from now on 90d, 12h, 30m."),
]
KeyFile = Annotated[
    Path | None,
    typer.Option("--key-file", metavar="FILE", help="Write the key to this new file (mode 0600) instead of showing it."),
]

OWN = "self"
WHERE_TO_KEEP = "This is the only time that the key is shown. Keep it as you keep a password."


@app.command("list")
def list_keys(
    valid: Annotated[bool, typer.Option("--valid", help="Only keys that are valid.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 100,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """List API keys, newest first: role, expiry, last use. Keys that have ended stay in the list.

    Examples:

      tidelog keys list

      tidelog keys list --valid --json
    """
    output.run(_list(valid, limit, data_dir, url, as_json))


async def _list(valid: bool, limit: int, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    found: list[dict[str, Any]] = []
    async with server_of(data_dir, url, as_json) as server:
        async for key in server.pages("/v1/keys", limit=None if valid else limit):
            if not valid or key["status"] == "valid":
                found.append(key)
            if len(found) == limit:
                break
    if as_json:
        output.document(found)
        return
    if not found:
        output.say("No key is valid." if valid else "No keys.")
        return
    table = output.table("Key", "Role", "Status", "Expires", "Last used", "Label")
    table.columns[-1].no_wrap = True
    now = datetime.now(UTC)
    soon = [key for key in found if is_soon(key, now)]
    for key in found:
        table.add_row(
            key["key_id"],
            output.escape(output.shortened(key["role"], 20) + (" *" if key.get("projects") else "")),
            output.escape(output.shortened(key["status"], 20)),
            output.escape((_time(key["expires_at"]) or "never") + (" !" if key in soon else "")),
            output.escape(_time(key["last_used_at"]) or "never"),
            output.escape(output.shortened(key["label"], 40)),
        )
    output.console().print(table)
    if any(key.get("projects") for key in found):
        output.note("* only for some projects: see tidelog keys show")
    if soon:
        output.note(f"! expires within 14 days: tidelog keys rotate {output.shortened(soon[-1]['key_id'], 36)} --expires 90d")


@app.command()
def show(key_id: KeyId, data_dir: options.DataDir = None, url: options.Url = None, as_json: options.AsJson = False) -> None:
    """Show an API key: its times, and why it was revoked. The key itself is shown by nothing. `self`: the one that you use.

    Example:

      tidelog keys show 0198c0de-0000-7000-8000-000000000001

      tidelog keys show self
    """
    output.run(_show(key_id, data_dir, url, as_json))


async def _show(key_id: str, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    id = OWN if key_id == OWN else _key_id(key_id)
    async with server_of(data_dir, url, as_json) as server:
        key: dict[str, Any] = await server.get(f"/v1/keys/{id}")
    if as_json:
        output.document(key)
        return
    lines = {
        "label": key["label"],
        "role": key["role"],
        "status": key["status"],
        "projects": ", ".join(key.get("projects") or []),
        "issued": _time(key["issued_at"]),
        "expires": _time(key["expires_at"]) or "never",
        "last used": _time(key["last_used_at"]) or "never",
        "rotated to": key["rotated_to"],
        "revoked": _time(key["revoked_at"]),
        "reason": key["revoke_reason"],
    }
    output.say(f"Key {key['key_id']}")
    for name, value in lines.items():
        if value:
            output.say(f"  {name:<11} {output.shortened(value, 500)}")


@app.command()
def issue(
    label: Annotated[str, typer.Argument(metavar="LABEL", help="Who or what has the key: for people.")],
    role: Annotated[
        str,
        typer.Option("--role", metavar="ROLE", help="owner, admin, operator, developer, auditor or worker."),
    ],
    project: Annotated[
        list[str] | None,
        typer.Option("--project", metavar="PROJECT", help="Name or id of the only project that the key is for; repeatable."),
    ] = None,
    expires: Expires = None,
    key_file: KeyFile = None,
    reason: options.Reason = None,
    on_behalf_of: options.OnBehalfOf = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Issue an API key, and show it once. It is made here: the server gets its SHA-256 and never the key.

    owner: everything. admin: everything but keys of owners. operator: reads, cancels, resolves, rebuilds. developer: reads, starts
    and cancels runs. auditor: reads everything, changes nothing. worker: works, and reads nothing else.

    Examples:

      tidelog keys issue "deploy of CI" --role developer --expires 90d

      tidelog keys issue worker-7 --role worker --key-file worker.key

      tidelog keys issue "auditor of reviews" --role auditor --project reviews
    """
    output.run(_issue(label, role, project or [], expires, key_file, reason, on_behalf_of, data_dir, url, as_json))


app.command("create", hidden=True, help="The same as `tidelog keys issue`.")(issue)


async def _issue(
    label: str,
    role: str,
    projects: list[str],
    expires: str | None,
    key_file: Path | None,
    reason: str | None,
    on_behalf_of: str | None,
    data_dir: Path | None,
    url: str | None,
    as_json: bool,
) -> None:
    from tidelog.keys import ROLES, make_key, new_key_id

    if role not in ROLES:
        raise output.CommandFailed(f"--role: there is no role {role!r:.60}; there are {', '.join(ROLES)}", output.WRONG_USAGE)
    made = make_key(new_key_id(), role)
    body: dict[str, Any] = {"label": label, "role": role, "key_id": str(made.key_id), "sha256": made.sha256}
    if expires is not None:
        body["expires_at"] = time_of("--expires", expires)
    must_be_new(key_file)
    async with server_of(data_dir, url, as_json, on_behalf_of=on_behalf_of) as server:
        if projects:
            body["projects"] = await _ids_of(server, projects)
        await server.post("/v1/keys", body, reason=reason)
    only = f", only for {', '.join(output.shortened(name, 40) for name in projects)}" if projects else ""
    hand_over(made.text, made.key_id, key_file, as_json, f"Issued key {made.key_id} ({role}{only})")


async def _ids_of(server: "ServerClient", projects: list[str]) -> list[str]:
    """The ids of projects that are given by name or id. Raises CommandFailed."""
    from uuid import UUID

    known = [project async for project in server.pages("/v1/projects")]
    found: list[str] = []
    for given in projects:
        try:
            ids = [str(UUID(given))]
        except ValueError:
            ids = [project["project_id"] for project in known if project["name"] == given]
        if len(ids) != 1:
            why = f"{len(ids)} projects have the name {given!r:.60}: give the id" if ids else f"there is no project {given!r:.60}"
            raise output.CommandFailed(f"--project: {why}; see tidelog projects list", output.WRONG_USAGE)
        found += ids
    return list(dict.fromkeys(found))


@app.command()
def rotate(
    key_id: KeyId,
    overlap: Annotated[
        str, typer.Option("--overlap", metavar="TIME", help="How long the old key stays valid: 24h, 30m, 0 for not at all.")
    ] = "24h",
    expires: Expires = None,
    key_file: KeyFile = None,
    reason: options.Reason = None,
    on_behalf_of: options.OnBehalfOf = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Issue a key that takes the place of another, and show it once. The old one stays valid for the overlap.

    The new key has the same label, role and projects, and the same expiry unless --expires says another.

    Examples:

      tidelog keys rotate 0198c0de-0000-7000-8000-000000000001 --overlap 1h

      tidelog keys rotate 0198c0de-0000-7000-8000-000000000001 --overlap 0 --key-file api.key
    """
    output.run(_rotate(key_id, overlap, expires, key_file, reason, on_behalf_of, data_dir, url, as_json))


async def _rotate(
    key_id: str,
    overlap: str,
    expires: str | None,
    key_file: Path | None,
    reason: str | None,
    on_behalf_of: str | None,
    data_dir: Path | None,
    url: str | None,
    as_json: bool,
) -> None:
    from tidelog.keys import make_key, new_key_id

    id, overlap_s = _key_id(key_id), 0.0 if overlap == "0" else float(options.seconds_of("--overlap", overlap))
    body: dict[str, Any] = {"overlap_s": overlap_s}
    if expires is not None:
        body["expires_at"] = time_of("--expires", expires)
    must_be_new(key_file)
    async with server_of(data_dir, url, as_json, on_behalf_of=on_behalf_of) as server:
        made = make_key(new_key_id(), await _role_of(server, id))
        await server.post(f"/v1/keys/{id}/rotate", {**body, "key_id": str(made.key_id), "sha256": made.sha256}, reason=reason)
    until = f"is valid for {overlap} more" if overlap_s else "is revoked"
    hand_over(made.text, made.key_id, key_file, as_json, f"Issued key {made.key_id}. The old key {until}.")


async def _role_of(server: "ServerClient", key_id: str) -> str:
    from tidelog.errors import NotFoundError

    try:
        return str((await server.get(f"/v1/keys/{key_id}"))["role"])
    except NotFoundError:  # perhaps not in the read model yet: the rotation itself says so if there is none
        return ""


@app.command()
def revoke(
    key_id: KeyId,
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="TEXT", help="Why; the key and the audit trail keep it.")
    ] = None,
    on_behalf_of: options.OnBehalfOf = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """End an API key, with its event streams and worker sessions. It ends within a second, everywhere and for good.

    The last key of an owner that does not expire cannot be revoked: issue another one first.

    Example:

      tidelog keys revoke 0198c0de-0000-7000-8000-000000000001 --reason "the laptop was lost"
    """
    output.run(_revoke(key_id, reason, on_behalf_of, data_dir, url, as_json))


async def _revoke(
    key_id: str, reason: str | None, on_behalf_of: str | None, data_dir: Path | None, url: str | None, as_json: bool
) -> None:
    id = _key_id(key_id)
    async with server_of(data_dir, url, as_json, on_behalf_of=on_behalf_of) as server:
        answer = await server.post(f"/v1/keys/{id}/revoke", {} if reason is None else {"reason": reason})
    if as_json:
        output.document(answer)
    else:
        output.say(f"Revoked key {id}")


def _key_id(given: str) -> str:
    """The id. Raises CommandFailed, with no word of a key that was given instead."""
    from uuid import UUID

    from tidelog.keys import id_of

    if given.startswith("tl_"):
        id = id_of(given.strip())
        hint = f": its id is {id}" if id is not None else ""
        raise output.CommandFailed(
            f"this is a key, not the id of one{hint}. A key on a command line can be read by others: rotate it", output.WRONG_USAGE
        )
    try:
        return str(UUID(given))
    except ValueError:
        raise output.CommandFailed(f"{given!r:.60} is not a key's id: see tidelog keys list", output.WRONG_USAGE) from None


def time_of(option: str, given: str) -> str:
    """An RFC 3339 time: as given, or so long from now on. Raises CommandFailed."""
    from application.durations import EXAMPLES, seconds_of

    if (seconds := seconds_of(given)) is not None:
        try:
            return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(timespec="seconds")
        except OverflowError:
            raise output.CommandFailed(f"{option}: {given!r:.40} is too far away", output.WRONG_USAGE) from None
    try:
        at = datetime.fromisoformat(given)
    except ValueError:
        raise output.CommandFailed(
            f"{option}: {given!r:.40} is no time: give 2027-01-31T12:00:00Z, or {EXAMPLES}", output.WRONG_USAGE
        ) from None
    if at.tzinfo is None:
        raise output.CommandFailed(f"{option}: {given!r:.40} has no zone: put a Z behind it for UTC", output.WRONG_USAGE)
    return at.isoformat()


def must_be_new(key_file: Path | None, option: str = "--key-file") -> None:
    """Raises CommandFailed before a key is issued that could not be written."""
    if key_file is not None and (key_file.exists() or not key_file.absolute().parent.is_dir()):
        why = "is there already" if key_file.exists() else "is in no folder that is there"
        raise output.CommandFailed(f"{option}: {key_file} {why}", output.WRONG_USAGE)


def hand_over(text: str, key_id: Any, key_file: Path | None, as_json: bool, said: str, **more: str) -> None:
    """Shows a new key, or writes it to a file that only its owner can read."""
    if key_file is not None:
        from api.supervisor import state

        try:
            state.write_private(key_file, text + "\n")
        except OSError as error:
            output.note(f"The key could not be written to {key_file} ({error.strerror}), so it is shown here.")
            key_file = None
    if as_json:
        shown = {"key": text, "key_file": None} if key_file is None else {"key": None, "key_file": str(key_file)}
        output.document({**more, "key_id": str(key_id), **shown})
    elif key_file is not None:
        output.say(f"{said}\nThe key is in {key_file}")
    else:
        output.note(f"{said}\n{WHERE_TO_KEEP}")
        output.say(text)


def _time(at: str | None) -> str:
    return output.shortened(at[:19].replace("T", " ")) if at else ""
