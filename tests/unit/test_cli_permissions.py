"""What a person reads whose key may not do what a command asks for: what is missing, and who may."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from api.cli import output
from api.cli.main import app
from api.http.conventions.errors import response_to
from domain.access import PERMISSIONS, Action, NotPermitted, Role
from domain.errors import Forbidden
from tidelog.errors import PermissionDeniedError, api_error


def answered(error: Forbidden) -> dict[str, Any]:
    """The problem document of the server."""
    response = response_to({"path": "/v1/runs", "state": {}}, error)
    assert response.status_code == 403
    return dict(json.loads(bytes(response.body)))


def printed(capsys: pytest.CaptureFixture[str], problem: dict[str, Any]) -> str:
    def command() -> None:
        raise api_error(403, problem)

    with pytest.raises(SystemExit) as ended:
        output.guarded(command)
    assert ended.value.code == output.FAILED
    out, err = capsys.readouterr()
    assert not out
    return err


def test_the_action_the_role_and_the_roles_that_may_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, answered(NotPermitted(Role.AUDITOR, Action.RUNS_START))) == (
        "error: forbidden: `runs.start` is not allowed to a key of the role auditor; roles that may: owner, admin, developer\n"
        "  Give the key of another role in TIDELOG_API_KEY. Owners and admins can make one.\n"
    )


def test_another_reason_is_told_alone(capsys: pytest.CaptureFixture[str]) -> None:
    problem = answered(Forbidden("the log is shared by all tenants"))
    assert not {"action", "role", "roles"} & problem.keys()
    assert printed(capsys, problem) == "error: forbidden: the log is shared by all tenants\n"


def test_texts_of_a_hostile_server_stay_on_their_line(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = {"code": "forbidden", "detail": "\x1b[31mno\nerror: fake", "action": ["\n"], "role": None, "roles": {"a": 1}}
    text = printed(capsys, hostile)
    assert "\x1b" not in text and len(text.splitlines()) == 2


def test_the_sdk_has_the_parts_of_the_refusal() -> None:
    refusal = api_error(403, answered(NotPermitted(Role.WORKER, Action.LOG_READ)))
    assert isinstance(refusal, PermissionDeniedError) and not refusal.retryable
    assert (refusal.action, refusal.role, refusal.roles) == ("log.read", "worker", ("owner", "admin", "operator", "auditor"))
    other = api_error(403, {"code": "forbidden", "detail": "no"})
    assert isinstance(other, PermissionDeniedError) and (other.action, other.role, other.roles) == (None, None, ())


def test_the_table_of_roles_is_the_one_that_decides() -> None:
    told = json.loads(CliRunner().invoke(app, ["roles", "list", "--json"]).stdout)
    assert told == {role: sorted(actions) for role, actions in PERMISSIONS.items()}
    lines = CliRunner().invoke(app, ["roles", "list"]).stdout.splitlines()
    [start] = [line.split() for line in lines if line.split()[:1] == ["runs.start"]]
    assert start[1:] == ["yes", "yes", "–", "yes", "–", "–"]
