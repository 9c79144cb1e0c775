"""Workflows in files: YAML or JSON, read with the line of each fault, and what differs between two of them."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from api.cli import output, written_plans

if TYPE_CHECKING:
    from application.workflows.yaml_text import LoadedYaml

MARKS = {"added": "+", "removed": "-", "changed": "~", "order": "~"}
MOST_LINES = 40
"""Of a value in a comparison."""


@dataclass(frozen=True)
class WorkflowFile:
    shown: str
    """The name of the file."""
    written: dict[str, Any]
    """As it stands there, without the name of the workflow."""
    name: str | None
    loaded: "LoadedYaml"

    def definition(self) -> dict[str, Any]:
        """As the server takes it, all that the file says in full."""
        from application.workflows.written import read_workflow

        return read_workflow(self.written)

    def told(self, pointer: str, detail: str) -> str:
        """A fault with its place in the file."""
        where = self.loaded.place_of(pointer)
        at = f":{where[0]}:{where[1]}" if where else ""
        return output.one_line(f"{self.shown}{at}: {pointer or '/'}: {detail}")


def read(path: str) -> WorkflowFile:
    """A file with a workflow, or `-` for stdin. Raises CommandFailed with the line of what is wrong."""
    found = written_plans.read(path)
    shown, loaded = found.name, found.loaded
    if not isinstance(loaded.value, dict):
        raise output.CommandFailed(f"{shown}: a workflow is an object with a `plan`", output.WRONG_USAGE)
    name = loaded.value.get("name")
    if name is not None and not isinstance(name, str):
        raise output.CommandFailed(f"{shown}: `name` is a text", output.WRONG_USAGE)
    return WorkflowFile(shown, {key: value for key, value in loaded.value.items() if key != "name"}, name, loaded)


def name_of(file: WorkflowFile, given: str | None) -> str:
    """The name of the workflow: as given, or as the file says. Raises CommandFailed if they differ, or nothing says it."""
    name = given or file.name
    if name is None:
        raise output.CommandFailed(f"{file.shown}: has no `name`: give the name of the workflow, too", output.WRONG_USAGE)
    if file.name not in (None, name):
        told = f"{file.shown}: is of the workflow '{file.name}', not '{name}': change `name` there, or leave it out"
        raise output.CommandFailed(output.one_line(told), output.WRONG_USAGE)
    return name


@contextmanager
def faults_of(file: WorkflowFile) -> Iterator[None]:
    """Refusals of the server with the line of each fault in the file."""
    from tidelog.errors import TidelogAPIError

    try:
        yield
    except TidelogAPIError as error:
        if not error.errors:
            raise
        lines = [file.told(str(one.get("pointer", "")), str(one.get("detail", ""))) for one in error.errors]
        raise output.CommandFailed("\n".join(lines)) from None


def text_of(name: str | None, definition: Mapping[str, Any], *, as_json: bool = False) -> str:
    """A workflow as a file says it."""
    from application.workflows.written import write_workflow
    from application.workflows.yaml_text import dump

    written = write_workflow(name, dict(definition))
    return json.dumps(written, indent=2, ensure_ascii=False) + "\n" if as_json else dump(written)


def show_differences(found: Iterable[Mapping[str, Any]]) -> None:
    """Each difference with its place, and the values of then and now as YAML."""
    for one in found:
        step = f"  (step {one['step']})" if one.get("step") else ""
        what = "  in another order" if one["kind"] == "order" else ""
        output.say(output.one_line(f"{MARKS.get(one['kind'], '?')} {one['pointer'] or '/'}{step}{what}"))
        if one["kind"] != "added":
            _show_value("-", one.get("before"))
        if one["kind"] != "removed":
            _show_value("+", one.get("after"))


def _show_value(mark: str, value: Any) -> None:
    from application.workflows.written import write_plan
    from application.workflows.yaml_text import dump_part

    if isinstance(value, dict) and "key" in value:
        value = write_plan({"steps": [value]})["steps"][0]
    lines = dump_part(value).rstrip("\n").split("\n")
    for line in lines[:MOST_LINES]:
        output.say(output.one_line(line, f"    {mark} "))
    if len(lines) > MOST_LINES:
        output.say(f"    {mark} … {len(lines) - MOST_LINES} more lines")
