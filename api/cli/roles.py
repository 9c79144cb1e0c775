"""`tidelog roles`: what keys of each role may do."""

import typer

from api.cli import options, output

app = typer.Typer(help="Roles of API keys, and what each may do.", no_args_is_help=True)


@app.callback()
def roles() -> None:
    """The roles that a key may have. The table is the same on every server of this release."""


@app.command("list")
def list_roles(as_json: options.AsJson = False) -> None:
    """Show each action with the roles that may do it. A key has one role: `tidelog keys issue LABEL --role ROLE`.

    Example:

      tidelog roles list
    """
    from domain.access import PERMISSIONS, Action, Role, may

    if as_json:
        output.document({role: sorted(PERMISSIONS[role]) for role in Role})
        return
    table = output.table("Action", *(role.capitalize() for role in Role))
    for action in Action:
        table.add_row(action, *("yes" if may(role, action) else "–" for role in Role))
    output.console().print(table)
