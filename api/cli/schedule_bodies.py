"""The bodies of requests that create and change schedules, from the options of `tidelog schedules`."""

from typing import Annotated, Any, Literal, NamedTuple

import typer

from api.cli import options, output
from api.cli.amounts import FORM, ON_SPENT, OnSpent, given_budget

CatchUp = Literal["skip", "last", "all"]
Overlap = Literal["skip", "queue", "cancel", "allow"]


Cron = Annotated[
    str | None, typer.Option("--cron", metavar="FIELDS", help="Minute, hour, day, month, day of the week: '30 2 * * 1-5'.")
]
TimeZone = Annotated[
    str | None, typer.Option("--time-zone", metavar="ZONE", help="Of --cron, such as Europe/Berlin.  \\[default: UTC]")
]
Every = Annotated[str | None, typer.Option("--every", metavar="TIME", help="An interval: 30s, 15m, 2h, 1d.")]
Once = Annotated[str | None, typer.Option("--at", metavar="TIME", help="Once: 2026-01-31T12:00:00Z.")]


class Given(NamedTuple):
    """Options that say what a schedule is."""

    cron: Cron = None
    time_zone: TimeZone = None
    every: Every = None
    at: Once = None
    agent: Annotated[str | None, typer.Option("--agent", metavar="NAME[@VERSION]", help="Start runs of this agent.")] = None
    workflow: Annotated[str | None, typer.Option("--workflow", metavar="NAME[@VERSION]", help="Start runs of this workflow.")] = (
        None
    )
    plan: Annotated[str | None, typer.Option("--plan", metavar="JSON|@FILE", help="Start runs of this plan.")] = None
    input: Annotated[str | None, typer.Option("--input", metavar="JSON|@FILE", help="The input of each run.")] = None
    input_from: Annotated[
        list[str] | None,
        typer.Option("--input-from", metavar="[FIELD=]CEL", help="The input, or a field, from `schedule` and `due_at`."),
    ] = None
    metadata: Annotated[str | None, typer.Option("--metadata", metavar="JSON|@FILE", help="Metadata of each run.")] = None
    priority: Annotated[Literal["high", "normal", "low"] | None, typer.Option("--priority", help="Class of each run.")] = None
    deadline: Annotated[str | None, typer.Option("--deadline", metavar="TIME", help="Each run fails if it goes on longer.")] = None
    budget: Annotated[str | None, typer.Option("--budget", metavar="LIMITS", help=f"What each run may spend, as {FORM}.")] = None
    on_spent: Annotated[OnSpent | None, typer.Option("--on-spent", help=ON_SPENT)] = None
    start_at: Annotated[str | None, typer.Option("--start-at", metavar="TIME", help="No time before this one counts.")] = None
    end_at: Annotated[str | None, typer.Option("--end-at", metavar="TIME", help="No time after this one counts.")] = None
    jitter: Annotated[str | None, typer.Option("--jitter", metavar="TIME", help="Each run starts up to so much later: 30s.")] = None
    catch_up: Annotated[
        CatchUp | None, typer.Option("--catch-up", help="Missed times: no run, one for all, or one each.  \\[default: last]")
    ] = None
    catch_up_window: Annotated[
        str | None, typer.Option("--catch-up-within", metavar="TIME", help="Times missed by more get none.  \\[default: 1d]")
    ] = None
    late_after: Annotated[
        str | None, typer.Option("--late-after", metavar="TIME", help="A time counts as missed after this.  \\[default: 60s]")
    ] = None
    overlap: Annotated[
        Overlap | None, typer.Option("--overlap", help="While a run goes on, the next time …  \\[default: skip]")
    ] = None
    description: Annotated[str | None, typer.Option("--description", metavar="TEXT", help="For people.")] = None

    def body(self) -> dict[str, Any]:
        """The fields of a body that were given. Raises CommandFailed."""
        parts = {"when": when_of(self.cron, self.time_zone, self.every, self.at), "start": self._start()}
        return {name: value for name, value in parts.items() if value} | self._rules()

    def _start(self) -> dict[str, Any]:
        """`start` of a body; empty if nothing was given. Raises CommandFailed."""
        named = {"--agent": self.agent, "--workflow": self.workflow, "--plan": self.plan}
        given = [name for name, value in named.items() if value is not None]
        if len(given) > 1:
            raise output.CommandFailed(f"give one of {' and '.join(given)}", output.WRONG_USAGE)
        if not given:
            beside = (self.input, self.input_from, self.metadata, self.priority, self.deadline, self.budget)
            if any(value is not None and value != [] for value in beside):
                raise output.CommandFailed("say what is started, too: --agent, --workflow or --plan", output.WRONG_USAGE)
            return {}
        found: dict[str, Any] = {}
        if self.agent is not None:
            found["agent"] = self.agent
        elif self.workflow is not None:
            found["workflow"], _, version = self.workflow.partition("@")
            found |= {"version": _number("--workflow", version)} if version else {}
        else:
            found["plan"] = options.object_of("--plan", str(self.plan))
        if self.input is not None:
            found["input"] = options.json_of("--input", self.input)
        if self.input_from:
            found["input_from"] = _expressions(self.input_from)
        if self.metadata is not None:
            found["metadata"] = options.object_of("--metadata", self.metadata)
        if self.deadline is not None:
            found["deadline_s"] = options.seconds_of("--deadline", self.deadline)
        if (budget := given_budget(self.budget, self.on_spent)) is not None:
            found["budget"] = budget
        return found | ({} if self.priority is None else {"priority": self.priority})

    def _rules(self) -> dict[str, Any]:
        given = {
            "start_at": options.time_of("--start-at", self.start_at), "end_at": options.time_of("--end-at", self.end_at),
            "jitter_s": _seconds("--jitter", self.jitter), "catch_up": self.catch_up,
            "catch_up_s": _seconds("--catch-up-within", self.catch_up_window),
            "late_after_s": _seconds("--late-after", self.late_after), "overlap": self.overlap, "description": self.description,
        }  # fmt: skip
        return {name: value for name, value in given.items() if value is not None}


def when_of(cron: str | None, time_zone: str | None, every: str | None, at: str | None) -> dict[str, Any]:
    """`when` of a body; empty if nothing was given. Raises CommandFailed."""
    given = [name for name, value in (("--cron", cron), ("--every", every), ("--at", at)) if value is not None]
    if len(given) > 1:
        raise output.CommandFailed(f"give one of {' and '.join(given)}", output.WRONG_USAGE)
    if time_zone is not None and cron is None:
        raise output.CommandFailed("--time-zone goes with --cron", output.WRONG_USAGE)
    if cron is not None:
        return {"cron": cron} | ({} if time_zone is None else {"time_zone": time_zone})
    if every is not None:
        return {"every_s": options.seconds_of("--every", every)}
    return {} if at is None else {"at": options.time_of("--at", at)}


def _seconds(option: str, given: str | None) -> int | None:
    return None if given is None else options.seconds_of(option, given)


def _number(option: str, given: str) -> int:
    if not (given.isascii() and given.isdecimal()) or len(given) > 9:
        raise output.CommandFailed(output.one_line(f"{option}: '{given}' is no version of a workflow"), output.WRONG_USAGE)
    return int(given)


def _expressions(given: list[str]) -> str | dict[str, str]:
    """One expression, or an expression for each field: `FIELD=CEL`."""
    found: dict[str, str] = {}
    for each in given:
        name, equals, expression = each.partition("=")
        if not equals or not name.replace("_", "").isalnum() or expression.startswith("="):
            if len(given) > 1:
                told = f"--input-from: '{each}' is not FIELD=CEL, and only one expression can be the whole input"
                raise output.CommandFailed(output.one_line(told), output.WRONG_USAGE)
            return each
        found[name] = expression
    return found
