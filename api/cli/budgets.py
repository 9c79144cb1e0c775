"""`tidelog budgets`: what runs may spend, what is spent, and more of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from api.cli import options, output
from api.cli.amounts import FORM, ON_SPENT, OnSpent, amounts_of, left_told, told
from api.cli.reaching import server_of

app = typer.Typer(help="What runs may spend: money, tokens, calls, time.", no_args_is_help=True)

What = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="tenant, project:ID, agent:NAME, agent:NAME/run, runs, runs:project:ID or runs:workflow:NAME; or the id of a budget.",
    ),
]
LimitsGiven = Annotated[str, typer.Argument(metavar="LIMITS", help=f"What may be spent, as {FORM}.")]
_COVERED = {"tenant": {"scope": "tenant"}, "runs": {"scope": "runs"}}


AskAdd = Annotated[
    str | None, typer.Option("--ask-add", metavar="AMOUNTS", help="ask: how much is given where the answer does not say how much.")
]
AskRoles = Annotated[
    list[str] | None, typer.Option("--ask-role", metavar="ROLE", help="ask: who may give more: owner, admin, operator. Repeatable.")
]
AskDeadline = Annotated[
    str | None, typer.Option("--ask-deadline", metavar="TIME", help="ask: after so long --ask-default counts, as 30m or 2h.")
]
AskDefault = Annotated[Literal["deny", "approve"], typer.Option("--ask-default", help="ask: what counts after the deadline.")]


def asking_of(
    on_spent: str | None, add: str | None, roles: list[str] | None, deadline: str | None, default: str
) -> dict[str, Any] | None:
    """How a budget asks, as the body has it. None: as all do. Raises CommandFailed."""
    if add is None and not roles and deadline is None and default == "deny":
        return None
    if on_spent != "ask":
        told = "--ask-add, --ask-role, --ask-deadline and --ask-default go with --on-spent ask"
        raise output.CommandFailed(told, output.WRONG_USAGE)
    ask: dict[str, Any] = {"default": default}
    if add is not None:
        ask["add"] = given("--ask-add", add)
    if roles:
        ask["roles"] = roles
    if deadline is not None:
        ask["deadline_s"] = options.seconds_of("--ask-deadline", deadline)
    return ask


def given(option: str, text: str) -> dict[str, Any]:
    """What is given of a budget, as the body has it. Raises CommandFailed."""
    amounts = amounts_of(option, text, wall=False)
    amounts.pop("currency", None)
    return amounts


@app.command("list")
def list_budgets(data_dir: options.DataDir = None, url: options.Url = None, as_json: options.AsJson = False) -> None:
    """List budgets, with what is spent of them today.

    Example:

      tidelog budgets list
    """
    output.run(_list(data_dir, url, as_json))


async def _list(data_dir: Path | None, url: str | None, as_json: bool) -> None:
    async with server_of(data_dir, url, as_json) as server:
        found = [budget async for budget in server.pages("/v1/budgets")]
    if as_json:
        output.document(found)
        return
    table = output.table("Budget", "Per", "Limits", "Spent today", "Left today", "When spent")
    for budget in found:
        today, unit = budget.get("today"), budget["currency"]
        spent, left = ("", "") if not today else (told(today["spent"], unit) or "nothing", left_told(today["left"], unit))
        row = (budget["name"], budget["per"], told(budget["limits"], unit), spent, left, budget["on_spent"])
        table.add_row(*(output.escape(text) for text in row))
    output.console().print(table)


@app.command()
def show(budget: What, data_dir: options.DataDir = None, url: options.Url = None, as_json: options.AsJson = False) -> None:
    """Show a budget, or what a run may spend (by the run's id).

    Examples:

      tidelog budgets show tenant

      tidelog budgets show 0198c0de-0000-7000-8000-000000000001
    """
    output.run(_show(budget, data_dir, url, as_json))


async def _show(name: str, data_dir: Path | None, url: str | None, as_json: bool) -> None:
    from tidelog.errors import NotFoundError

    async with server_of(data_dir, url, as_json) as server:
        try:
            found: dict[str, Any] = await server.get(f"/v1/budgets/{await _id_of(server, name)}")
        except NotFoundError:
            if not _is_id(name):
                raise
            found = await server.get(f"/v1/runs/{name}/budget")
    if as_json:
        output.document(found)
        return
    unit, today = found["currency"], found.get("today", found)
    lines = {
        "limits": told(found["limits"], unit),
        "when spent": found["on_spent"],
        "time zone": found.get("time_zone") or "",
        "day": (today or {}).get("day") or "",
        "today": told(today["limits"], unit) if today and today["limits"]["money"] != found["limits"]["money"] else "",
        "spent": (told(today["spent"], unit) or "nothing") if today else "nothing",
        "reserved": told(today["reserved"], unit) if today else "",
        "left": left_told(today["left"], unit) if today else "",
        "overrun": told(today["overrun"], unit) if today else "",
        "waiting": waiting_told(today, unit) if today else "",
        "set by": found.get("by") or "",
        "reason": found.get("reason") or "",
        "id": found["id"],
    }
    console = output.console()
    console.print(f"[bold]Budget {output.escape(found.get('name') or found.get('budget') or '')}[/bold]")
    for label, value in lines.items():
        if value:
            console.print(f"  [dim]{label:<12}[/dim]{output.escape(output.shortened(value, 500))}")


@app.command("set")
def set_budget(
    name: What,
    limits: LimitsGiven,
    on_spent: Annotated[
        OnSpent,
        typer.Option("--on-spent", help=ON_SPENT),
    ] = "stop",
    time_zone: Annotated[str | None, typer.Option("--time-zone", metavar="ZONE", help="Whose midnight begins a day; UTC.")] = None,
    ask_add: AskAdd = None,
    ask_roles: AskRoles = None,
    ask_deadline: AskDeadline = None,
    ask_default: AskDefault = "deny",
    reason: options.Reason = None,
    on_behalf_of: options.OnBehalfOf = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Set a budget. It counts for calls from now on, and takes the place of the one before.

    Examples:

      tidelog budgets set tenant 25usd

      tidelog budgets set agent:writer/run calls=20 --on-spent degrade

      tidelog budgets set runs 0.50usd,wall=10m

      tidelog budgets set tenant 25usd --on-spent ask --ask-add 5usd --ask-deadline 1h
    """
    ask = (on_spent, ask_add, ask_roles, ask_deadline, ask_default)
    output.run(_set(name, limits, on_spent, ask, time_zone, reason, on_behalf_of, data_dir, url, as_json))


async def _set(
    name: str, limits: str, on_spent: str, asking: tuple[Any, ...], time_zone: str | None, reason: str | None,
    on_behalf_of: str | None, data_dir: Path | None, url: str | None, as_json: bool,
) -> None:  # fmt: skip
    amounts, ask = amounts_of("LIMITS", limits), asking_of(*asking)
    currency = amounts.pop("currency", None)
    body = {**_covered(name), "limits": amounts, "on_spent": on_spent}
    also = {"ask": ask, "time_zone": time_zone, "currency": currency, "reason": reason}
    body |= {field: value for field, value in also.items() if value is not None}
    async with server_of(data_dir, url, as_json, on_behalf_of=on_behalf_of) as server:
        done: dict[str, Any] = await server.client.send("PUT", "/v1/budgets", body)
    if as_json:
        output.document(done)
    else:
        output.say(f"Set the budget {output.one_line(name)}")


@app.command()
def lift(
    budget: What,
    add: Annotated[str, typer.Option("--add", metavar="AMOUNTS", help="How much more, as 5usd or calls=100.")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; the audit trail keeps it.")],
    on_behalf_of: options.OnBehalfOf = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Give more of a budget: for today, or for one run (by the run's id).

    Examples:

      tidelog budgets lift tenant --add 5usd --reason "the report must be out today"

      tidelog budgets lift 0198c0de-0000-7000-8000-000000000001 --add calls=10 --reason "nearly done"
    """
    output.run(_lift(budget, add, reason, on_behalf_of, data_dir, url, as_json))


async def _lift(
    name: str, add: str, reason: str, on_behalf_of: str | None, data_dir: Path | None, url: str | None, as_json: bool
) -> None:
    from tidelog.errors import NotFoundError

    body = {"add": given("--add", add), "reason": reason}
    async with server_of(data_dir, url, as_json, on_behalf_of=on_behalf_of) as server:
        id = await _id_of(server, name)
        try:
            done: dict[str, Any] = await server.post(f"/v1/budgets/{id}/lift", body)
        except NotFoundError:
            if not _is_id(name):
                raise
            run = await server.get(f"/v1/runs/{id}/budget")
            done = await server.post(f"/v1/budgets/{run['id']}/lift", body)
    if as_json:
        output.document(done)
    else:
        output.say(f"Lifted the budget {output.one_line(name)}")


@app.command()
def remove(
    budget: What,
    reason: options.Reason = None,
    on_behalf_of: options.OnBehalfOf = None,
    data_dir: options.DataDir = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Remove a budget. What runs were given stays theirs.

    Example:

      tidelog budgets remove agent:writer
    """
    output.run(_remove(budget, reason, on_behalf_of, data_dir, url, as_json))


async def _remove(
    name: str, reason: str | None, on_behalf_of: str | None, data_dir: Path | None, url: str | None, as_json: bool
) -> None:
    from uuid import UUID

    async with server_of(data_dir, url, as_json, on_behalf_of=on_behalf_of) as server:
        id = await _id_of(server, name)
        await server.client.budgets.remove(UUID(id), reason=reason)
    if as_json:
        output.document({"id": id})
    else:
        output.say(f"Removed the budget {output.one_line(name)}")


def waiting_told(where: Mapping[str, Any], unit: str) -> str:
    """Calls that wait for more of a budget, in a line. Nothing: none does."""
    waiting = where.get("waiting")
    if not waiting:
        return ""
    calls = waiting["calls"]
    asked = f" (approval {waiting['approval_id']})" if waiting.get("approval_id") else ""
    return f"{calls:,} call{'' if calls == 1 else 's'}, which may cost {told(waiting['amounts'], unit)}{asked}"


async def of_run(server: Any, run_id: str) -> str | None:
    """What a run may spend, and has spent, in a line. None: it has no budget of its own."""
    from tidelog.errors import NotFoundError

    try:
        found: dict[str, Any] = await server.get(f"/v1/runs/{run_id}/budget")
    except NotFoundError:
        return None
    unit, reserved = found["currency"], told(found["reserved"], found["currency"])
    held = f"; {reserved} reserved" if reserved else ""
    if waiting := waiting_told(found, unit):
        held += f"; waiting: {waiting}"
    return f"{told(found['spent'], unit) or 'nothing'} spent of {told(found['limits'], unit)}{held}"


def _covered(name: str) -> dict[str, Any]:
    """What a name covers, as the body has it. Raises CommandFailed."""
    scope, _, of = name.partition(":")
    if name in _COVERED:
        return dict(_COVERED[name])
    if scope == "agent" and of:
        agent, slash, per = of.partition("/")
        if not slash or per == "run":
            return {"scope": "agent", "agent": agent, "per": "run" if slash else "day"}
    if scope == "project" and of:
        return {"scope": "project", "project_id": output.uuid_of(of, "a project", "projects list")}
    if scope == "runs" and of.startswith("project:"):
        return {"scope": "runs", "project_id": output.uuid_of(of.removeprefix("project:"), "a project", "projects list")}
    if scope == "runs" and of.startswith("workflow:"):
        return {"scope": "runs", "workflow": of.removeprefix("workflow:")}
    told = f"not what a budget is for: {output.shortened(name, 60)}; one of tenant, project:ID, agent:NAME, agent:NAME/run, runs, …"
    raise output.CommandFailed(output.one_line(told), output.WRONG_USAGE)


async def _id_of(server: Any, name: str) -> str:
    """The id of a budget by its name. Raises CommandFailed."""
    if _is_id(name):
        return name
    async for budget in server.pages("/v1/budgets"):
        if budget["name"] == name:
            return str(budget["id"])
    raise output.CommandFailed(output.one_line(f"there is no budget {output.shortened(name, 60)}: see budgets list"))


def _is_id(text: str) -> bool:
    from uuid import UUID

    try:
        UUID(text)
    except ValueError:
        return False
    return True
