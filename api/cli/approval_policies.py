"""`tidelog approvals policies`: the rules that say which calls need an approval."""

from typing import Annotated, Any

import typer

from api.cli import options, output
from api.cli.reaching import server_of

app = typer.Typer(help="Policies of approvals. What waits for you: tidelog inbox.", no_args_is_help=True)
policies = typer.Typer(help="Rules that say which calls need an approval.", no_args_is_help=True)
app.add_typer(policies, name="policies")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The policy's name.")]


@policies.command("list")
@options.with_fields
def list_policies(where: options.Where = options.HERE) -> None:
    """List the policies in force.

    Examples:

      tidelog approvals policies list
    """
    output.run(_list(where))


async def _list(where: options.Where) -> None:
    async with server_of(where.data_dir, where.url, where.as_json) as server:
        found = (await server.get("/v1/approval-policies"))["data"]
    if where.as_json:
        output.document(found)
        return
    if not found:
        output.say("No approval policies.")
        return
    table = output.table("Policy", "Version", "Rules", "Notices", "Project", "Description")
    for one in found:
        table.add_row(
            output.escape(one["name"]), str(one["version"]), str(len(one["rules"])), str(len(one.get("notices") or ())),
            one.get("project_id") or "all",
            output.escape(output.shortened(one["description"], 80)),
        )  # fmt: skip
    output.console().print(table)


@policies.command()
@options.with_fields
def show(name: Name, where: options.Where = options.HERE) -> None:
    """Show a policy with all of its versions, also of one that was removed.

    Examples:

      tidelog approvals policies show mails
    """
    output.run(_show(name, where))


async def _show(name: str, where: options.Where) -> None:
    async with server_of(where.data_dir, where.url, where.as_json) as server:
        found = (await server.get(f"/v1/approval-policies/{name}"))["data"]
    if where.as_json:
        output.document(found)
        return
    console = output.console()
    for one in found:
        reason = f": {one['reason']}" if one.get("reason") else ""
        console.print(f"[bold]{output.escape(one['name'])} v{one['version']}[/bold]  [dim]{output.escape(one['at'])}[/dim]")
        console.print(f"  [dim]by[/dim] {output.escape(one['by'] + reason)}")
        if one["description"]:
            console.print(f"  {output.escape(output.shortened(one['description'], 500))}")
        for number, rule in enumerate(one["rules"]):
            console.print(f"  [dim]{number}[/dim] {output.escape(_rule(rule))}")
        for number, notice in enumerate(one.get("notices") or ()):
            console.print(f"  [dim]notice {number}[/dim] {output.escape(_notice(notice))}")


def _notice(notice: dict[str, Any]) -> str:
    after = notice.get("after_s")
    people = [
        f"key:{person['key']}" + (f" at {person['address']}" if person.get("address") else "") for person in notice.get("to", [])
    ]
    told = f"of {', '.join(notice.get('about', ['*']))}; by {notice['tool']}; {', '.join(people) or 'nobody by name'}"
    return f"{told}; {f'after {output.duration(after)}, if it is still open' if after else 'at once'}"


def _rule(rule: dict[str, Any]) -> str:
    parts = [", ".join(rule.get("tools", ["*"])), f"when {rule['when']}" if rule.get("when") else "every call"]
    parts.append(f"{rule.get('approvers', 1)} of {', '.join(rule.get('roles') or ['all who may decide'])}")
    if rule.get("four_eyes"):
        parts.append("four eyes")
    if rule.get("deadline_s"):
        parts.append(f"within {output.duration(rule['deadline_s'])}, else {rule.get('default', 'deny')}")
    return "; ".join(parts)


@policies.command()
@options.with_fields
def publish(
    name: Name,
    file: Annotated[
        str,
        typer.Argument(
            metavar="JSON|@FILE", help="An object with `rules`, `notices`, `description`, `project_id`; or @FILE, or @-."
        ),
    ],
    reason: options.Reason = None,
    where: options.Where = options.HERE,
) -> None:
    """Publish a version of a policy. It counts for each call that is requested from now on.

    Examples:

      tidelog approvals policies publish mails '{"rules": [{"tools": ["mail.*"], "when": "tainted"}]}'

      tidelog approvals policies publish told @notices.json

      tidelog approvals policies publish refunds @refunds.json --reason "audit of May"
    """
    output.run(_publish(name, options.object_of("FILE", file), reason, where))


async def _publish(name: str, body: dict[str, Any], reason: str | None, where: options.Where) -> None:
    async with server_of(where.data_dir, where.url, where.as_json) as server:
        said = body if reason is None else {**body, "reason": reason}
        answer = await server.client.send("PUT", f"/v1/approval-policies/{name}", said)
    if where.as_json:
        output.document(answer)
    else:
        output.say(f"Policy {output.one_line(answer['name'])}, version {answer['policy_version']}, is in force.")


@policies.command()
@options.with_fields
def remove(name: Name, reason: options.Reason = None, where: options.Where = options.HERE) -> None:
    """Remove a policy. What waits already goes on waiting.

    Examples:

      tidelog approvals policies remove mails --reason "the tool is gone"
    """
    output.run(_remove(name, reason, where))


async def _remove(name: str, reason: str | None, where: options.Where) -> None:
    async with server_of(where.data_dir, where.url, where.as_json) as server:
        await server.client.approvals.remove_policy(name, reason)
    if where.as_json:
        output.document({"name": name})
    else:
        output.say(f"Policy {output.one_line(name)} is removed.")
