"""`/query`: filters become the parameters of a list, and prose is refused with the filters that there are."""

from datetime import UTC, datetime
from typing import Any, get_args
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from application.slash_commands.filters import FILTERS, Of, duration_of, filters_told, listing_of, schema_of_filters
from application.slash_commands.line import BadLine, read_line

WHEN = "a duration before now (24h, 7d), a day (2026-01-31) or a time with its zone (2026-01-31T12:00:00Z)"
STATUSES = "queued, running, paused, completed, failed, cancelled, degraded"
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
ID = "0198c0de-0000-7000-8000-000000000000"


def listed(text: str) -> tuple[str, dict[str, Any]]:
    of, parameters = listing_of(read_line(text), NOW)
    return of, parameters


def refused(text: str) -> list[str]:
    with pytest.raises(BadLine) as error:
        listed(text)
    return [told for _, told in error.value.faults]


@pytest.mark.parametrize(
    ("text", "of", "parameters"),
    [
        ("/query", "runs", {}),
        ("/query of=runs", "runs", {}),
        (
            "/query agent=critic status=failed since=24h",
            "runs",
            {"agent": "critic", "status": "failed", "started_after": datetime(2026, 11, 29, 12, tzinfo=UTC)},
        ),
        (
            f"/query project={ID} for=ada actor=key:1 error='connection refused' limit=20 cursor=x",
            "runs",
            {
                "project_id": UUID(ID), "on_behalf_of": "ada", "actor": "key:1", "error": "connection refused", "limit": 20,
                "cursor": "x",
            },
        ),
        (
            "/query metadata.ticket=T-1 metadata.a.b=2 started_after=2026-11-29 until=2026-11-30T13:00:00+02:00",
            "runs",
            {
                "metadata": ["ticket=T-1", "a.b=2"], "started_after": datetime(2026, 11, 29, tzinfo=UTC),
                "started_before": datetime(2026, 11, 30, 11, tzinfo=UTC),
            },
        ),
        (
            f"/query workflow=digest@3 origin=command:task parent={ID}",
            "runs",
            {"workflow": "digest@3", "origin": "command:task", "parent": UUID(ID)},
        ),
        ("/query at=1h", "runs", {"as_of": "2026-11-30T11:00:00+00:00"}),
        ("/query at=42 --status degraded", "runs", {"as_of": "42", "status": "degraded"}),
        (f"/query of=invocations run={ID} status=ambiguous asked_by=client", "invocations",
            {"run_id": UUID(ID), "status": "ambiguous", "asked_by": "client"}),
        (f"/query run={ID} limit=1 of=messages", "messages", {"run_id": UUID(ID), "limit": 1}),
    ],
)  # fmt: skip
def test_filters_become_parameters(text: str, of: str, parameters: dict[str, Any]) -> None:
    assert listed(text) == (of, parameters)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/query show me", [f"/query takes filters, not prose, and 'show me' is none. {filters_told('runs')}"]),
        ("/query of=all", ["'of' at character 8 takes one of runs, invocations, messages, not 'all'"]),
        ("/query agnt=x", ["'agnt' at character 8 is no filter of runs; did you mean 'agent'?"]),
        ("/query of=messages zzz=x", [f"'zzz' at character 20 is no filter of messages. {filters_told('messages')}",
            "/query of=messages needs 'run': write run=VALUE"]),
        ("/query of=invocations metadata.a=b",
            [f"'metadata.a' at character 23 is no filter of invocations. {filters_told('invocations')}"]),
        ("/query metadata.=b", ["'metadata.' at character 8 is no filter of runs; did you mean 'metadata.NAME'?"]),
        ("/query status=ambiguous limit=0", [f"'status' at character 8 takes one of {STATUSES}, not 'ambiguous'",
            "'limit' at character 25 takes a whole number from 1 to 1000, not '0'"]),
        ("/query limit=1001", ["'limit' at character 8 takes a whole number from 1 to 1000, not '1001'"]),
        ("/query limit=٣", ["'limit' at character 8 takes a whole number from 1 to 1000, not '٣'"]),
        ("/query project=x", ["'project' at character 8 takes an id, as 0198c0de-0000-7000-8000-000000000000, not 'x'"]),
        ("/query agent=", ["'agent' at character 8 takes a text of 1 to 500 characters, not ''"]),
        ("/query since=yesterday", [f"'since' at character 8 takes {WHEN}, not 'yesterday'"]),
        ("/query since=2026-13-45", [f"'since' at character 8 takes {WHEN}, not '2026-13-45'"]),
        ("/query since=1h started_after=2h", ["'since' is given twice, the second time at character 17"]),
        ("/query metadata.a=b metadata.a=c", ["'metadata.a' is given twice, the second time at character 21"]),
        ("/query of=runs of=runs", ["'of' is given twice, the second time at character 16"]),
    ],
)  # fmt: skip
def test_a_refusal_says_the_place_and_a_cure(text: str, told: list[str]) -> None:
    assert refused(text) == told


def test_the_filters_of_runs_are_told() -> None:
    assert filters_told("runs") == (
        "Filters of runs: of=, agent=, status=, since=, until=, project=, error=, actor=, for=, workflow=, origin=, key=, parent=, "
        "at=, limit=, cursor=, metadata.NAME="
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("24h", 86_400), ("7d", 604_800), ("2w", 1_209_600), ("999999999w", 36_525 * 86_400)],
)
def test_a_duration(text: str, seconds: int) -> None:
    found = duration_of(text)
    assert found is not None and found.total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "5", "h", "1y", "-1h", "1.5h", "1h30m", "٣h", "9999999999h", "1h "])
def test_no_duration(text: str) -> None:
    assert duration_of(text) is None


@given(st.sampled_from([name for of in FILTERS.values() for one in of for name in (one.name, one.parameter)]), st.text(max_size=20))
def test_every_value_is_taken_or_refused(name: str, value: str) -> None:
    for of in get_args(Of):
        try:
            listed(f"/query of={of} {name}='{value.replace(chr(39), '').replace(chr(0), '')}'")
        except BadLine as error:
            assert error.faults


def test_the_schema_names_every_filter() -> None:
    schema = schema_of_filters()
    assert set(schema["properties"]) == {"of", *(one.name for of in FILTERS.values() for one in of)}
    assert schema["properties"]["status"]["x-of"] == ["runs", "invocations"]
    assert {"failed", "ambiguous"} <= set(schema["properties"]["status"]["enum"])
    assert schema["properties"]["run"]["x-of"] == ["invocations", "messages"]
    assert all(one["description"] and "x-of" in one for one in schema["properties"].values())
