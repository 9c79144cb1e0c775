"""What `tidelog doctor` says of the upkeep."""

from typing import Any

import pytest

from api.cli.diagnosis.findings import Diagnosis
from api.cli.diagnosis.upkeep import examine_upkeep


def chore(**changed: Any) -> dict[str, Any]:
    well = {"name": "commands", "every_s": 100.0, "ended_at": "2026-11-28T10:00:00.000Z", "success_age_s": 50.0, "error": None}
    return {**well, **changed}


@pytest.mark.parametrize(
    ("changed", "status", "text"),
    [
        ({}, "ok", "commands at 2026-11-28T10:00:00.000Z"),
        ({"error": "TypeError: no", "success_age_s": None}, "wrong", "failed at 2026-11-28T10:00:00.000Z: TypeError: no"),
        ({"success_age_s": 300.0}, "ok", "commands at"),
        ({"success_age_s": 301.0}, "wrong", "has not been done since 2026-11-28T10:00:00.000Z"),
    ],
)
def test_a_chore_that_fails_or_is_overdue_is_wrong(changed: dict[str, Any], status: str, text: str) -> None:
    found = Diagnosis()
    examine_upkeep(found, {"upkeep": [chore(**changed)]})
    [finding] = found.findings
    assert (finding.subject, finding.status) == ("upkeep", status) and text in finding.detail


@pytest.mark.parametrize("health", [{}, {"upkeep": []}])
def test_a_server_that_does_not_say_is_not_judged(health: dict[str, Any]) -> None:
    found = Diagnosis()
    examine_upkeep(found, health)
    assert found.findings == []
