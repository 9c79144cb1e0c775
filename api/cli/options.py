"""Options of several commands. Missing options are taken from the environment (TIDELOG_…)."""

import functools
import inspect
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from api.cli import output

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="DIR", help="Folder of the server's data.  \\[TIDELOG_DATA_DIR; default: .tidelog]"),
]
Url = Annotated[
    str | None,
    typer.Option("--url", help="Base URL of a server. Without: the server of the data folder, started if needed.  \\[TIDELOG_URL]"),
]
OnBehalfOf = Annotated[
    str | None,
    typer.Option(
        "--on-behalf-of", metavar="TEXT", help="For whom you ask, such as a person's id; recorded.  \\[TIDELOG_ON_BEHALF_OF]"
    ),
]
At = Annotated[str | None, typer.Option("--at", metavar="POSITION|TIME", help="As it was then: 42, or 2026-01-31T12:00:00Z.")]
Since = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="From this day (of UTC) or time on: 2026-01-31T12:00:00Z.")
]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Before this day (of UTC) or time.")]
AsJson = Annotated[bool, typer.Option("--json", help="Answer with JSON, for programs.")]
Reason = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why; the audit trail keeps it.")]
Traceback = Annotated[bool, typer.Option("--traceback", help="Show the traceback of each failure.")]
Agents = Annotated[
    list[Path] | None,
    typer.Option("--agents", metavar="FOLDER", help="Folder with agents and tools; repeatable.  \\[TIDELOG_AGENTS]"),
]
Workspace = Annotated[
    Path | None,
    typer.Option("--workspace", metavar="DIR", help="Folder given to tools; no sandbox.  \\[TIDELOG_WORKSPACE; default: here]"),
]


class Where(NamedTuple):
    """The options of a command that asks a server: which one, and in which form it answers."""

    data_dir: DataDir = None
    url: Url = None
    as_json: AsJson = False


HERE = Where()


def seconds_of(option: str, given: str) -> int:
    """The seconds of a duration such as 24h. Raises CommandFailed for any other text."""
    from application.durations import EXAMPLES, seconds_of

    seconds = seconds_of(given)
    if seconds is None:
        told = f"{option}: '{output.shortened(given, 40)}' is no duration: give {EXAMPLES}"
        raise output.CommandFailed(output.one_line(told), output.WRONG_USAGE)
    return seconds


def with_fields(command: Callable[..., None]) -> Callable[..., None]:
    """A command one of whose parameters is a named tuple of options. Each field is an option of the command."""
    parameters = list(inspect.signature(command).parameters.values())
    [grouped] = [one for one in parameters if isinstance(one.annotation, type) and issubclass(one.annotation, tuple)]
    fields = inspect.signature(grouped.annotation).parameters.values()

    @functools.wraps(command)
    def run(**given: Any) -> None:
        group = grouped.annotation(*(given.pop(field.name) for field in fields))
        command(**{grouped.name: group}, **given)

    place = parameters.index(grouped)
    shown = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*parameters[:place], *fields, *parameters[place + 1 :])]
    run.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    del run.__wrapped__  # the annotations of the command would be taken for those of its options
    return run


def time_of(option: str, given: str | None) -> str | None:
    """The RFC 3339 time of an option. A day is its begin in UTC. Raises CommandFailed."""
    if given is None:
        return None
    try:
        at = datetime.fromisoformat(given)
    except ValueError:
        at = None
    if at is not None and len(given) == len("2026-01-31"):
        at = at.replace(tzinfo=UTC)
    if at is None or at.tzinfo is None:
        told = f"{option}: '{given}' is neither a day (2026-01-31) nor a time with its zone (2026-01-31T12:00:00Z)"
        raise output.CommandFailed(output.one_line(told), output.WRONG_USAGE)
    return at.isoformat()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Of two fields of one name the parser would drop the first without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"two fields of an object have the name {next(n for n in names if names.count(n) > 1)!r:.60}")
    return found


def _as_text(given: str) -> str:
    """How a word that was meant as a text is written. Empty for what was meant as something else."""
    if not given.replace("-", "").replace("_", "").replace(" ", "").isalnum() or len(given) > 40 or not given[0].isalpha():
        return ""
    return f"; a text has quotes: '\"{given}\"'"


def json_of(option: str, given: str | None, *, may_be_text: bool = True) -> Any:
    """The value of an option with JSON, `@FILE` with JSON, or `@-` for stdin. None if the option was not given.

    Raises CommandFailed if the text is not JSON, or not a value that the server accepts.
    """
    from tidelog.errors import PermanentError, ValueTooDeepError
    from tidelog.values import MAX_JSON_DEPTH, to_json

    if given is None:
        return None
    as_given = given
    try:
        if given == "@-":
            given = sys.stdin.read()
        elif given.startswith("@"):
            given = Path(given[1:]).read_text("utf-8")
        return to_json(json.loads(given, object_pairs_hook=_object), option, max_bytes=None)
    except OSError as error:
        raise output.CommandFailed(f"{option}: {error.strerror}: {error.filename}", output.WRONG_USAGE) from None
    except ValueError as error:
        raise output.CommandFailed(
            f"{option}: is not JSON: {error}{_as_text(as_given) if may_be_text else ''}", output.WRONG_USAGE
        ) from None
    except (PermanentError, RecursionError) as error:
        why = error if isinstance(error, PermanentError) else ValueTooDeepError(option, MAX_JSON_DEPTH)
        raise output.CommandFailed(str(why), output.WRONG_USAGE) from None


def object_of(option: str, given: str) -> dict[str, Any]:
    """The value of an option with a JSON object. Raises CommandFailed."""
    value = json_of(option, given, may_be_text=False)
    if not isinstance(value, dict):
        raise output.CommandFailed(f"{option}: must be a JSON object", output.WRONG_USAGE)
    return value
