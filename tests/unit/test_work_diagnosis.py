"""What `tidelog doctor` says of work that waits."""

from collections.abc import Mapping
from typing import Any

import pytest

from api.cli.diagnosis.asking import Asking
from api.cli.diagnosis.findings import Diagnosis
from api.cli.diagnosis.work import _held_calls, _stuck_runs


@pytest.mark.parametrize("work", [{}, {"held": 2, "oldest_held_s": 599.0}, {"held": 0, "oldest_held_s": None}])
def test_calls_that_wait_for_people_shortly_are_no_fault(work: dict[str, Any]) -> None:
    found = Diagnosis()
    _held_calls(found, work)
    assert found.findings == []


def test_a_call_that_nobody_approves_is_named() -> None:
    found = Diagnosis()
    _held_calls(found, {"held": 2, "oldest_held_s": 600.0})
    [finding] = found.findings
    assert (finding.subject, finding.status) == ("approvals", "warning")
    assert finding.detail == "2 tool calls wait until people approve them, the oldest for 10 min 00 s"


class Answers(Asking):
    """A server that has said all that it will be asked."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self._answers = answers

    async def get(self, path: str, params: Mapping[str, Any] | None = None) -> Any | None:
        return self._answers.get(path)


def waits(*reasons: str) -> dict[str, Any]:
    return {"data": [{"waits_for": reason} for reason in reasons]}


async def test_runs_that_do_not_move_are_told_with_what_they_wait_for() -> None:
    found = Diagnosis()
    listed = {"/v1/runs": {"data": [{"run_id": "a"}, {"run_id": "b"}, {"run_id": "c"}]}}
    told = {"/v1/runs/a/waits": waits("approval", "approval"), "/v1/runs/b/waits": waits("approval", "free_worker")}
    await _stuck_runs(found, Answers(listed | told), {"runs": 3})
    [finding] = found.findings
    assert (finding.subject, finding.status) == ("stuck runs", "warning")
    assert finding.detail == (
        "3 of the running runs had no event for 10 min 00 s; a; they wait for: approval (2), free worker"
    )  # fmt: skip


async def test_nothing_is_asked_where_nothing_runs() -> None:
    found = Diagnosis()
    await _stuck_runs(found, Answers({"/v1/runs": {"data": [{"run_id": "a"}]}}), {"runs": 0})
    assert found.findings == []
    await _stuck_runs(found, Answers({"/v1/runs": {"data": [{"run_id": "a"}]}}), {"runs": 1})
    assert [finding.detail for finding in found.findings] == ["1 of the running runs had no event for 10 min 00 s; a"]
