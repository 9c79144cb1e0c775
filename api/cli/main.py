"""The command `tidelog`. One file per group of commands; each command imports its modules when it runs, so that --help is fast."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from api.cli import (
    agents,
    approval_policies,
    audit,
    blobs,
    budgets,
    bulk,
    cases,
    commands,
    compensations,
    console,
    contents,
    demo,
    diff,
    do,
    doctor,
    events,
    explain,
    forks,
    inbox,
    invocations,
    keys,
    large_values,
    logs,
    nats,
    nats_users,
    options,
    output,
    plans,
    projections,
    projects,
    replay,
    restored,
    retries,
    roles,
    run_signals,
    runs,
    schedules,
    steering,
    stuck,
    tenants,
    tool_calls,
    tools,
    triggers,
    up,
    usage,
    verify,
    worker,
    workers,
    workflows,
)
from api.cli.asked_for import Commands


class PlainWords(TyperGroup):
    """Refusals of options without what the library that checks them puts before them. All commands are below this group."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as refused:
            refused.message = refused.message.removeprefix("Value error, ")
            raise


app = Commands(
    name="tidelog",
    cls=PlainWords,
    epilog="Try it: tidelog demo. Every command takes --help. Settings come from TIDELOG_… variables, options go over them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (up, worker, demo, console, do, usage, replay, diff, verify, restored, doctor):
    app.registered_commands.extend(module.app.registered_commands)
runs.app.registered_commands.extend(explain.app.registered_commands)
runs.app.registered_commands.extend(steering.app.registered_commands)
runs.app.registered_commands.extend(stuck.app.registered_commands)
runs.app.registered_commands.extend(logs.app.registered_commands)
runs.app.registered_commands.extend(contents.app.registered_commands)
runs.app.registered_commands.extend(large_values.app.registered_commands)
runs.app.registered_commands.extend(compensations.app.registered_commands)
runs.app.registered_commands.extend(retries.app.registered_commands)
runs.app.registered_commands.extend(run_signals.app.registered_commands)
runs.app.registered_commands.extend(forks.app.registered_commands)
tools.app.registered_commands.extend(tool_calls.app.registered_commands)
nats.app.registered_commands.extend(nats_users.app.registered_commands)
app.add_typer(runs.app, name="runs")
app.add_typer(bulk.app, name="bulk")
app.add_typer(projects.app, name="projects")
app.add_typer(schedules.app, name="schedules")
app.add_typer(events.app, name="events")
app.add_typer(agents.app, name="agents")
app.add_typer(tools.app, name="tools")
app.add_typer(workflows.app, name="workflows")
app.add_typer(commands.app, name="commands")
app.add_typer(plans.app, name="plans")
app.add_typer(triggers.app, name="triggers")
app.add_typer(budgets.app, name="budgets")
app.add_typer(blobs.app, name="blobs")
app.add_typer(workers.app, name="workers")
app.add_typer(invocations.app, name="invocations")
app.add_typer(inbox.app, name="inbox")
app.add_typer(approval_policies.app, name="approvals")
app.add_typer(projections.app, name="projections")
app.add_typer(keys.app, name="keys")
app.add_typer(roles.app, name="roles")
app.add_typer(tenants.app, name="tenants")
app.add_typer(audit.app, name="audit")
app.add_typer(cases.app, name="cases")
app.add_typer(nats.app, name="nats")


def _print_version(wanted: bool) -> None:
    if wanted:
        output.say(_versions()["tidelog-server"])
        raise typer.Exit


def _versions() -> dict[str, str]:
    from importlib.metadata import version as installed

    return {"tidelog-server": installed("tidelog-server"), "tidelog": installed("tidelog")}


@app.callback()
def tidelog(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Tidelog: the system of record for AI-agent work."""


@app.command()
def version(as_json: options.AsJson = False) -> None:
    """Print the versions."""
    versions = _versions()
    if as_json:
        output.document(versions)
    else:
        output.say(versions["tidelog-server"])


def main() -> None:
    app()


if __name__ == "__main__":
    main()
