"""`tidelog runs start`: its options become the body of the request, or one line that says what is wrong."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from api.cli import runs as commands
from api.cli.main import app
from api.cli.output import CommandFailed
from api.cli.run_body import StartOptions, agents_of, body_of
from domain import runs
from domain.failures import Retry

PROJECT = "0198c0de-0000-7000-8000-000000000001"


def test_agents_alone_are_a_short_plan() -> None:
    assert body_of(StartOptions(("a", "b"))) == {"plan": {"kind": "sequential", "agents": ["a", "b"]}, "input": None}
    body = body_of(StartOptions(("a", "b"), parallel=True, aggregator="c", input='{"n": 1}'))
    assert body == {"plan": {"kind": "parallel", "agents": ["a", "b"], "aggregator": "c"}, "input": {"n": 1}}


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (StartOptions(("a", "b"), retry="5:0.1:9"), runs.sequential(("a", "b"))),
        (StartOptions(("a", "b", "b"), retry="5:0.1:9", parallel=True, aggregator="c"), runs.parallel(("a", "b", "b"), "c")),
    ],
)
def test_what_is_said_of_each_agent_makes_a_graph_of_the_same_steps(given: StartOptions, made: runs.Plan) -> None:
    plan = body_of(given)["plan"]
    retry = Retry(max_attempts=5, initial_s=0.1, max_s=9)
    assert plan.pop("kind") == "graph"
    expected = tuple(step.model_copy(update={"retry": retry}) for step in made.steps)
    assert runs.Plan.model_validate(plan).steps == expected


def test_a_failure_of_the_aggregator_is_not_tolerated() -> None:
    given = StartOptions(("a",), parallel=True, aggregator="c", on_failure="continue", timeout_s=2.5)
    first, last = body_of(given)["plan"]["steps"]
    assert (first["on_failure"], "on_failure" in last) == ("continue", False)
    assert first["timeout_s"] == last["timeout_s"] == 2.5
    [alone] = body_of(StartOptions(("a",), parallel=True, on_failure="fail"))["plan"]["steps"]
    assert alone["on_failure"] == "fail"


def test_a_plan_metadata_and_a_project_are_handed_on(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"kind": "graph", "steps": [{"key": "k", "agent": "a"}]}')
    body = body_of(StartOptions(plan=f"@{tmp_path}/plan.json", metadata='{"t": [1]}', project=PROJECT))
    plan = {"kind": "graph", "steps": [{"key": "k", "agent": "a"}]}
    assert body == {"plan": plan, "input": None, "metadata": {"t": [1]}, "project_id": PROJECT}


def test_a_priority_is_handed_on_and_shown() -> None:
    assert body_of(StartOptions(("a",), priority="low"))["priority"] == "low"
    assert "priority" not in body_of(StartOptions(("a",)))
    result = CliRunner().invoke(app, ["runs", "start", "a", "--priority", "urgent"])
    assert result.exit_code == 2 and "--priority" in result.output and "urgent" in result.output


@pytest.mark.parametrize(
    ("plan", "names"),
    [
        ({"kind": "parallel", "agents": ["a", "b"], "aggregator": "c"}, {"a", "b", "c"}),
        ({"kind": "graph", "steps": [{"agent": "a"}, {"agent": 3}, 7]}, {"a"}),
        ({}, set()),
    ],
)
def test_the_agents_of_a_plan(plan: dict[str, Any], names: set[str]) -> None:
    assert agents_of(plan) == names


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (StartOptions(), "name one or more agents, or give --plan"),
        (StartOptions(("a",), plan="{}"), "without AGENT"),
        (StartOptions(plan="{}", retry="2", timeout_s=0.0), "without --retry, --timeout"),
        (StartOptions(plan="[]"), "--plan: must be a JSON object"),
        (StartOptions(plan="{'kind': 1}"), "--plan: is not JSON"),
        (StartOptions(plan="@/nowhere.json"), "--plan: No such file or directory: /nowhere.json"),
        (StartOptions(("a",), metadata="7"), "--metadata: must be a JSON object"),
        (StartOptions(("a",), metadata='{"n": 1e999}'), "--metadata"),
        (StartOptions(("a",), project="mine"), "'mine' is not a project's id"),
        (StartOptions(("a",), retry="many"), "--retry: 'many' is not ATTEMPTS"),
        (StartOptions(("a",), retry="1.5"), "--retry: '1.5' is not ATTEMPTS"),
        (StartOptions(("a",), retry="1:2:3:4"), "--retry: '1:2:3:4' is not ATTEMPTS"),
        (StartOptions(("a",), retry="21"), "--retry: '21': an agent has 1 to 20 attempts"),
        (StartOptions(("a",), retry="2:nan"), "--retry: '2:nan': the first pause is longer than 0 and at most 3600 seconds"),
        (StartOptions(("a",), timeout_s=0.0), "--timeout: Input should be greater than 0"),
        (StartOptions(("a",), timeout_s=float("inf")), "--timeout: "),
        (StartOptions(("a",), aggregator="c"), "--aggregator goes with --parallel"),
    ],
)
def test_a_wrong_option_is_one_line(given: StartOptions, told: str) -> None:
    with pytest.raises(CommandFailed) as raised:
        body_of(given)
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code == 2


READS = (
    ["runs", "list"], ["runs", "show", PROJECT], ["runs", "watch", PROJECT], ["runs", "cancel", PROJECT], ["events", "tail"],
    ["events", "show", "1"], ["agents", "list"], ["invocations", "list"], ["projections", "list"], ["verify"], ["replay", PROJECT],
)  # fmt: skip


@pytest.mark.parametrize("arguments", READS, ids=" ".join)
def test_a_read_in_a_folder_without_data_starts_nothing(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("TIDELOG_URL", "TIDELOG_DATA_DIR", "TIDELOG_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit) as ended:
        app(arguments, standalone_mode=False)
    assert ended.value.code == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"error: no server and no data here (looked in {tmp_path}/.tidelog; TIDELOG_URL is not set): ")
    assert told.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


class Server:
    temporary = False

    async def post(self, path: str, body: Any, *, key: str | None) -> Any:
        return {"run_id": body["run_id"]}


@contextlib.asynccontextmanager
async def there(*_: object, **__: object) -> AsyncIterator[Server]:
    yield Server()


@pytest.mark.parametrize("quiet", [True, False])
async def test_a_script_gets_the_id_of_its_run_and_nothing_else(
    quiet: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("api.cli.connection.server", there)
    await commands._start(StartOptions(("writer",)), None, False, quiet, None, None, None, None, None, False)
    told = capsys.readouterr().out.splitlines()
    assert (len(told), told[0].startswith("Started run")) == ((1, False) if quiet else (2, True))


@pytest.mark.parametrize("other", ["--wait", "--json"])
def test_quiet_goes_without_other_forms(other: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        app(["runs", "start", "writer", "--quiet", other], standalone_mode=False)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: --quiet goes without --wait and --json\n"
