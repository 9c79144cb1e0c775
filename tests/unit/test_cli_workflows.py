"""Workflows on the command line: what files say, where their faults are, and how differences look."""

from pathlib import Path
from typing import Any

import pytest

from api.cli import output, run_body, workflow_files, workflows
from api.cli.run_body import StartOptions
from application.workflows.yaml_text import MAX_BYTES
from tidelog.errors import InvalidRequestError, TidelogAPIError
from tidelog.workflows import WorkflowChange, named_version

TEXT = "name: flow\nplan:\n  steps:\n    - key: a\n      agent: critic@2\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "flow.yaml"
    path.write_text(TEXT)
    return path


def test_a_file_is_read_in_full_and_without_its_name(file: Path) -> None:
    read = workflow_files.read(str(file))
    assert read.name == "flow" and read.written == {"plan": {"steps": [{"key": "a", "agent": "critic@2"}]}}
    assert read.definition() == {"plan": {"steps": [{"key": "a", "agent": "critic", "agent_version": "2"}]}}
    assert workflow_files.name_of(read, None) == workflow_files.name_of(read, "flow") == "flow"
    assert workflow_files.read(str(Path(__file__).parents[1] / "data" / "flow.yaml")).name == "flow"


def refused(given: Any) -> str:
    with pytest.raises(output.CommandFailed) as caught:
        given()
    return str(caught.value)


def test_what_a_file_does_not_say_is_told_with_its_place(file: Path) -> None:
    read = workflow_files.read(str(file))
    assert "is of the workflow 'flow', not 'other'" in refused(lambda: workflow_files.name_of(read, "other"))
    for text, told in (
        ("plan: {}\n", "has no `name`: give the name of the workflow, too"),
        ("name: 3\n", "`name` is a text"),
        ("- a\n", "a workflow is an object with a `plan`"),
        ("a: 1\na: 2\n", "line 2, column 1: the key 'a' stands twice here, in line 1 first"),
        ("x" * (MAX_BYTES + 1), "262,144 are allowed"),
    ):
        file.write_text(text)
        assert told in refused(lambda: workflow_files.name_of(workflow_files.read(str(file)), None)), text
    assert "No such file" in refused(lambda: workflow_files.read(str(file) + "x"))


def test_faults_that_the_server_finds_have_their_lines(file: Path) -> None:
    read = workflow_files.read(str(file))
    faults = [{"pointer": "/plan/steps/0/agent_version", "detail": "D"}, {"pointer": "/later", "detail": "E\nF"}]

    def fail(error: TidelogAPIError) -> None:
        with workflow_files.faults_of(read):
            raise error

    def refusal(errors: list[dict[str, str]]) -> InvalidRequestError:
        return InvalidRequestError(422, "invalid-request", "t", "d", errors)

    lines = refused(lambda: fail(refusal(faults))).split("\n")
    assert lines[0] == f"{file}:4:7: /plan/steps/0/agent_version: D", "of the step, which does not say it by this name"
    assert lines[1].startswith(f"{file}:1:1: /later: E") and len(lines) == 2
    with pytest.raises(InvalidRequestError):
        fail(refusal([]))


def test_a_workflow_is_written_as_a_file_says_it(file: Path) -> None:
    read = workflow_files.read(str(file))
    assert workflow_files.text_of("flow", read.definition()) == TEXT
    assert workflow_files.text_of(None, read.definition(), as_json=True).startswith('{\n  "plan": {')


def test_differences_show_both_values(capsys: pytest.CaptureFixture[str]) -> None:
    long = "\n".join(map(str, range(60))) + "\n"
    workflow_files.show_differences([
        {"kind": "added", "pointer": "/plan/steps/1", "step": "b", "after": {"key": "b", "agent": "c", "agent_version": "2"}},
        {"kind": "removed", "pointer": "/a", "before": "no"},
        {"kind": "changed", "pointer": "", "before": 1, "after": [{"x": None}]},
        {"kind": "order", "pointer": "/plan/steps", "before": ["a", "b"], "after": ["b", "a"]},
        {"kind": "removed", "pointer": "/l", "before": long},
    ])  # fmt: skip
    lines = capsys.readouterr().out.split("\n")
    assert lines[:12] == [
        "+ /plan/steps/1  (step b)", "    + key: b", "    + agent: c@2", "- /a", '    - "no"', "~ /", "    - 1",
        "    +   - x: null", "~ /plan/steps  in another order", "    - [a, b]", "    + [b, a]", "- /l",
    ]  # fmt: skip
    assert lines[-2] == "    - … 21 more lines" and len(lines) == 12 + 40 + 2


@pytest.mark.parametrize(("text", "said"), [("a", {"name": "a"}), ("a@3", {"name": "a", "version": 3})])
def test_a_version_stands_behind_the_name(text: str, said: dict[str, Any]) -> None:
    assert named_version(text) == said and workflows._split(text) == (said["name"], said.get("version"))
    assert run_body.body_of(StartOptions(workflow=text, input="1")) == {"workflow": said, "input": 1}


@pytest.mark.parametrize("text", ["a@", "a@x", "a@1@2", "a@-1", "a@٣"])
def test_what_is_no_version_is_refused(text: str) -> None:
    assert "a version of a workflow is a number" in refused(lambda: workflows._split(text))
    assert refused(lambda: run_body.body_of(StartOptions(workflow=text))).startswith("--workflow: ")


@pytest.mark.parametrize(
    ("more", "told"),
    [({"agents": ("a",)}, "AGENT"), ({"plan": "{}"}, "--plan"), ({"parallel": True, "retry": "3"}, "--parallel, --retry")],
)
def test_a_workflow_goes_without_what_else_says_what_runs(more: dict[str, Any], told: str) -> None:
    assert refused(lambda: run_body.body_of(StartOptions(workflow="a", **more))) == (
        f"--workflow says what runs: give it without {told}"
    )


def test_what_was_published_already_is_told() -> None:
    change = WorkflowChange(name="flow", workflow_version=2, version=4)
    assert workflows._published_text(change, 2) == "Workflow flow says that already: version 2"
    assert workflows._published_text(change, 1) == "Published version 2 of the workflow flow"
