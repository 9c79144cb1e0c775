"""`tidelog plans`: what is wrong with a plan, before a run has it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import options, output, written_plans
from api.cli.reaching import server_of

if TYPE_CHECKING:
    from api.cli.written_plans import WrittenPlan

app = typer.Typer(help="Plans of runs.", no_args_is_help=True)

File = Annotated[str, typer.Argument(metavar="FILE", help="A plan or a workflow, in YAML or JSON; - for stdin.")]
Offline = Annotated[bool, typer.Option("--offline", help="Ask no server: agents, capabilities and workflows are not looked up.")]


@app.callback()
def plans() -> None:
    """Plans of runs."""


@app.command()
@options.with_fields
def check(file: File, offline: Offline = False, where: options.Where = options.HERE) -> None:
    """Show all that is wrong with a plan, or with a workflow: each fault with its line, and what to do about it.

    Ends with 1 if there is a fault. A warning is no fault.

    Examples:

      tidelog plans check review.yaml

      tidelog plans check review.yaml --offline --json
    """
    output.run(_check(file, offline, where))


async def _check(file: str, offline: bool, where: options.Where) -> None:
    read = written_plans.read(file)
    found = await (_checked_here(read) if offline else _checked_by_server(read, where))
    if where.as_json:
        output.document({**found, **{name: _with_lines(read, found[name]) for name in ("faults", "warnings")}})
    else:
        _show(read, found, offline)
    if not found["valid"]:
        raise SystemExit(output.FAILED)


async def _checked_here(read: "WrittenPlan") -> dict[str, Any]:
    from api.assembly.tables import expressions_of_here
    from application.plans.check import PlanChecks
    from domain.workflows import WorkflowDefinition

    return (await PlanChecks(expressions_of_here(), frame=WorkflowDefinition).check(read.value)).model_dump(mode="json")


async def _checked_by_server(read: "WrittenPlan", where: options.Where) -> dict[str, Any]:
    is_workflow = isinstance(read.value, dict) and "plan" in read.value
    async with server_of(*where) as server:
        found: dict[str, Any] = await server.post("/v1/plans:check", {"workflow" if is_workflow else "plan": read.value})
    return found


def _with_lines(read: "WrittenPlan", faults: Sequence[Any]) -> list[dict[str, Any]]:
    return [{"line": read.line_of(fault["pointer"]), **fault} for fault in faults]


def _show(read: "WrittenPlan", found: dict[str, Any], offline: bool) -> None:
    for kind, faults in (("", found["faults"]), ("warning: ", found["warnings"])):
        for fault in sorted(faults, key=lambda fault: read.line_of(fault["pointer"])):
            first, *more = str(fault["detail"]).split("\n")
            place = f"{read.name}:{read.line_of(fault['pointer'])}  {fault['pointer'] or '/'}  "
            output.say(output.one_line(f"{place}{kind}{first}"))
            for line in more:
                output.say(output.one_line(line, "    "))
            output.say(output.one_line(fault["cure"], "    → "))
    output.say(output.one_line(_summary(found, offline)))


def _summary(found: dict[str, Any], offline: bool) -> str:
    warnings = [_count(len(found["warnings"]), "warning")] if found["warnings"] else []
    if not found["valid"]:
        return ", ".join([_count(len(found["faults"]), "fault"), *warnings])
    told = [_count(found["steps"], "step"), *warnings]
    agents = ", ".join(f"{agent['name']} {agent['version']}" for agent in found["agents"])
    about = "; agents were not looked up" if offline else f"; agents: {agents}" if agents else ""
    return f"Valid: {', '.join(told)}{about}"


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"
